"""A tokenizer file (``tokenizer.json``) of byte-pair encoding: which tokens make a token, and the file with fewer of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from slmops.errors import ModelError
from slmops.files import read_json

TOKENIZER = "tokenizer.json"

# 0xC0, 0xC1 and 0xF5 to 0xFF stand in no UTF-8 text (RFC 3629).
_UTF8_BYTES = (*range(0xC0), *range(0xC2, 0xF5))
# Names of tokens that no training has used yet; nothing a text means is lost with them.
_UNUSED = re.compile(r"<unused\d+>|<\|(?:reserved_special_token_|placeholder|dummy_|extra_)\d+\|>", re.IGNORECASE)


@dataclass(frozen=True)
class Bpe:
    """A byte-pair encoding, byte-level (GPT-2, Llama 3, Qwen, SmolLM2) or with bytes as fallback (Gemma, Phi-3).

    Args:
        data: Content of ``tokenizer.json``.
        vocab: Token to id, of the model part.
        merges: Pairs of tokens that become one, the first come first.
        byte_level: Whether texts are turned into bytes first; else characters that are no token become ``<0xNN>``.
    """

    data: Mapping[str, Any]
    vocab: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    byte_level: bool

    @classmethod
    def read(cls, folder: Path) -> Bpe:
        """Read the tokenizer of a model folder.

        Raises:
            ModelError: The tokenizer is of another kind.
        """
        file = folder / TOKENIZER
        if not file.is_file():
            raise ModelError("no tokenizer.json here", where=str(folder), fix="save the tokenizer with a current transformers")
        data = read_json(file)
        model = data["model"]
        byte_level = any(part.get("type") == "ByteLevel" for part in _parts(data.get("decoder")))
        affixes = [model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout")]
        if model.get("type") != "BPE" or any(affixes) or not (byte_level or model.get("byte_fallback")):
            raise ModelError(
                f"the vocabulary of this tokenizer ({model.get('type', 'unknown')}) cannot be trimmed",
                where=str(file),
                fix="trimming knows byte-pair encodings over bytes, or with bytes as fallback; leave the vocabulary whole",
            )
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        return cls(data, model["vocab"], tuple((left, right) for left, right in pairs), byte_level)

    @cached_property
    def ranks(self) -> Mapping[tuple[str, str], int]:
        """Place of each merge; the lowest is done first."""
        return {merge: rank for rank, merge in reversed(list(enumerate(self.merges)))}

    @cached_property
    def added(self) -> Mapping[str, int]:
        """Tokens that are found in a text before it is split: the special ones and others that were added."""
        return {token["content"]: int(token["id"]) for token in self.data.get("added_tokens") or ()}

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """All tokens."""
        return {**self.vocab, **self.added}

    @property
    def byte_tokens(self) -> tuple[str, ...]:
        """The tokens of single bytes that any UTF-8 text can be written with; a tokenizer may lack some."""
        if self.byte_level:
            alphabet = byte_alphabet()
            return tuple(alphabet[byte] for byte in _UTF8_BYTES)
        return tuple(f"<0x{byte:02X}>" for byte in range(256))

    def always_kept(self, ids: Iterable[int] = ()) -> list[str]:
        """Bytes, added tokens (without those that only hold a place) and the tokens with these ids."""
        by_id = {number: token for token, number in self.ids.items()}
        added = [token for token in self.added if not _UNUSED.fullmatch(token)]
        unknown = [token for token in [self.data["model"].get("unk_token")] if token in self.ids]
        own = [token for token in self.byte_tokens if token in self.vocab]
        return list(dict.fromkeys([*added, *unknown, *own, *(by_id[number] for number in ids if number in by_id)]))

    def parts(self, token: str) -> list[str]:
        """The token and all tokens that stand between it and its characters when it is made, shorter ones first.

        A text whose tokens are all kept with their parts is split as before: every merge that was done is still there, and
        those that are gone were not done. A token that its own merges do not make is found whole and has no parts.
        """
        if token in self.added or token not in self.vocab or token in self._bytes:
            return [token]
        symbols, seen = list(token), dict.fromkeys(token)
        while len(symbols) > 1:
            ranked = [(self.ranks.get(pair, -1), place) for place, pair in enumerate(pairwise(symbols))]
            possible = [(rank, place) for rank, place in ranked if rank >= 0]
            if not possible:
                return [token]
            _, place = min(possible)
            symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
            seen[symbols[place]] = None
        return sorted(seen, key=len) if all(part in self.vocab for part in seen) else [token]

    @cached_property
    def _bytes(self) -> frozenset[str]:
        return frozenset(self.byte_tokens)

    def by_rank(self) -> list[str]:
        """Tokens in the order in which merges make them: those that were most frequent where the tokenizer was trained first."""
        made = (left + right for left, right in self.merges)
        return [token for token in dict.fromkeys(made) if token in self.vocab]

    def trimmed(self, numbers: Mapping[str, int]) -> dict[str, Any]:
        """The file with these tokens alone under these ids."""
        data, model = dict(self.data), dict(self.data["model"])
        outside = [token for token in self.added if token not in self.vocab]
        model["vocab"] = {token: number for token, number in numbers.items() if token not in outside}
        model["merges"] = [
            merge
            for merge, (left, right) in zip(self.data["model"]["merges"], self.merges, strict=True)
            if left in numbers and right in numbers and left + right in numbers
        ]
        data["model"] = model
        added = [
            {**token, "id": numbers[token["content"]]} for token in data.get("added_tokens") or () if token["content"] in numbers
        ]
        data["added_tokens"] = sorted(added, key=lambda token: token["id"])
        data["post_processor"] = _renumbered(data.get("post_processor"), numbers)
        if isinstance(data.get("padding"), dict):
            data["padding"] = {**data["padding"], "pad_id": numbers.get(data["padding"]["pad_token"], 0)}
        return data


def byte_alphabet() -> list[str]:
    """The printable character that byte-level tokenizers write for each byte (GPT-2, Radford et al. 2019)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]


def _parts(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """A component of the file, or those of its sequence."""
    if not part:
        return []
    inner: Sequence[Mapping[str, Any]] = part.get("decoders") or ()
    return [part, *(one for sub in inner for one in _parts(sub))]


def _renumbered(part: Any, numbers: Mapping[str, int]) -> Any:
    """A post-processor with new ids: ``{id, ids, tokens}`` of a template, ``[token, id]`` of ``cls`` and ``sep``."""
    if not isinstance(part, dict):
        return part
    found = {key: _renumbered(value, numbers) for key, value in part.items()}
    if "processors" in found:
        found["processors"] = [_renumbered(one, numbers) for one in found["processors"]]
    if "tokens" in found and "ids" in found:
        found["ids"] = [numbers[token] for token in found["tokens"]]
    for key in ("cls", "sep"):
        if isinstance(found.get(key), list):
            found[key] = [found[key][0], numbers[found[key][0]]]
    return found
