"""Make a model with a smaller vocabulary: the tokens that some texts need, common ones as a margin, and every byte.

In a small model the embedding is a large part: 21 % of SmolLM2-135M, half of it cut to 8 of its 30 layers. Most of its
tokens are never seen in one kind of work.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.errors import ModelError
from slmops.files import read_json, write_json
from slmops.models.bpe import TOKENIZER, Bpe
from slmops.models.load import CONFIG, WEIGHTS, load_tokenizer, read_config, tensor_infos, weight_files
from slmops.models.weights import Part, Rows, write_safetensors

MARGIN = 4096
"""Common tokens that are kept beside those the texts need."""

_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json")
_GENERATION = "generation_config.json"
TABLES = re.compile(r"(.*\.)?(embed_tokens|wte|embed_in|lm_head|embed_out)\.(weight|bias)")
"""Names of the tensors with one row a token."""
_PER_LAYER = "vocab_size_per_layer_input"
_TOKEN_KEY = re.compile(r".*_token_(id|ids|index)|(begin_)?suppress_tokens")
_ANY_TEXT = "Straße 12,50 € naïve 日本語 Ελλάδα עברית 한국어 😀\t\n «æþð» Ωß ćž Ñ\x00\x7f"


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model in the order in which they are kept.

    Args:
        tokens: All tokens that a text can have; any first part of ``needed`` or more is closed under merges.
        needed: How many the texts, the special tokens and the bytes need.
        missing: Bytes that the tokenizer lacks; they are added to every choice.
    """

    tokens: tuple[str, ...]
    needed: int
    missing: tuple[str, ...]

    @classmethod
    def of(cls, model: Path, used: Iterable[int]) -> Vocabulary:
        """Order a model's tokens: what must be kept, then the others by the rank of the merge that makes them.

        Early merges are those that were most frequent in the texts that the tokenizer was trained on, so a margin of common
        tokens needs no list of words.

        Args:
            model: Its folder.
            used: Ids of the tokens in the texts; from training texts, never from test texts.

        Raises:
            ModelError: The tokenizer is of a kind that cannot be trimmed.
        """
        bpe = Bpe.read(model)
        by_id = {number: token for token, number in bpe.ids.items()}
        order: dict[str, None] = {}

        def keep(tokens: Iterable[str]) -> None:
            for token in tokens:
                if token not in order:
                    order.update(dict.fromkeys(bpe.parts(token)))

        keep(bpe.always_kept(_token_ids(model)))
        keep(by_id[number] for number in sorted(set(used)))
        needed = len(order)
        keep(bpe.by_rank())
        return cls(tuple(order), needed, tuple(token for token in bpe.byte_tokens if token not in bpe.ids))

    @property
    def smallest(self) -> int:
        """Fewest tokens that the texts can be written with as before."""
        return self.needed + len(self.missing)

    @property
    def largest(self) -> int:
        """All of them."""
        return len(self.tokens) + len(self.missing)

    def usual(self) -> int:
        """What the texts need and a margin of common tokens."""
        return min(self.largest, self.smallest + MARGIN)

    def first(self, size: int) -> tuple[str, ...]:
        """The tokens of the parent in a vocabulary of ``size`` tokens.

        Raises:
            ModelError: The texts need more, or there are fewer.
        """
        if not self.smallest <= size <= self.largest:
            raise ModelError(
                f"a vocabulary of {size:,} tokens is asked for",
                fix=f"the texts need {self.smallest:,}, and there are {self.largest:,}: choose a number between",
            )
        return self.tokens[: size - len(self.missing)]


def trim_vocabulary(source: Path, target: Path, keep: Sequence[str]) -> None:
    """Write to ``target`` the model of ``source`` with only the tokens ``keep``; bytes that its tokenizer lacks are added.

    Texts whose tokens are all kept have the same tokens and logits as before; all others are split into more tokens, down
    to bytes, so any text can be read and written. An added byte has the mean of the bytes' rows.

    Args:
        source: Model folder in Hugging Face layout.
        target: Folder to write to; made if it does not exist.
        keep: Tokens to keep, closed under merges: :meth:`Vocabulary.first`.

    Raises:
        ModelError: The tokenizer is of a kind that cannot be trimmed, or the model has tables of tokens that are not known.
    """
    bpe, config = Bpe.read(source), read_config(source)
    numbers, rows = _renumber(bpe, keep)
    target.mkdir(parents=True, exist_ok=True)
    _write_weights(source, target, config, bpe, numbers, rows)
    settings = [source / name for name in _SETTINGS if (source / name).is_file()]
    for file in settings:
        shutil.copyfile(file, target / file.name)
    moved = {bpe.ids[token]: numbers[token] for token in keep}
    if (file := target / _SETTINGS[0]).is_file():
        write_json(file, _with_new_decoder(read_json(file), moved))
    write_json(target / TOKENIZER, bpe.trimmed(numbers))
    if (source / _GENERATION).is_file():
        write_json(target / _GENERATION, _moved(read_json(source / _GENERATION), moved, len(numbers)))
    write_json(target / CONFIG, _moved(config, moved, len(numbers)))
    _check(source, target)


def _renumber(bpe: Bpe, keep: Sequence[str]) -> tuple[dict[str, int], tuple[int, ...]]:
    """New ids, and the parent's rows in that order: the model's tokens, the new bytes, then tokens outside the model."""
    inside = sorted((token for token in keep if token in bpe.vocab), key=bpe.vocab.__getitem__)
    missing = [token for token in bpe.byte_tokens if token not in bpe.ids]
    outside = sorted((token for token in keep if token not in bpe.vocab), key=bpe.added.__getitem__)
    order = [*inside, *missing, *outside]
    new = set(missing)
    return {token: number for number, token in enumerate(order)}, tuple(-1 if token in new else bpe.ids[token] for token in order)


def _check(source: Path, target: Path) -> None:
    """Refuse a result that does not read and write any text, or whose tokens are not the parent's."""
    parent, trimmed = load_tokenizer(source), load_tokenizer(target)
    ids = trimmed(_ANY_TEXT, add_special_tokens=False)["input_ids"]
    text = trimmed.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    numbers = Bpe.read(target).ids
    if text != _ANY_TEXT or trimmed.get_vocab() != numbers:
        raise ModelError(
            "the trimmed tokenizer does not read every text",
            where=str(source),
            fix=f"leave its vocabulary whole (tokenizer class {type(parent).__name__})",
        )


def _write_weights(
    source: Path, target: Path, config: Mapping[str, Any], bpe: Bpe, numbers: Mapping[str, int], rows: Sequence[int]
) -> None:
    size = int((config.get("text_config") or config)["vocab_size"])
    tensors = {name: (file, info) for file in weight_files(source) for name, info in tensor_infos(file).items()}
    tables = {name for name, (_, info) in tensors.items() if TABLES.fullmatch(name) and info.shape[0] == size}
    others = [name for name in tensors if "embed_tokens" in name and name not in tables]
    if not any(name.endswith(".weight") for name in tables) or others or config.get(_PER_LAYER):
        raise ModelError(
            f"the vocabulary of this model (type {config.get('model_type')!r}) cannot be trimmed: "
            + (f"{others[0]} is not known" if others else f"no embedding with {size:,} rows"),
            where=str(source),
            fix="leave its vocabulary whole",
        )
    own = tuple(bpe.ids[token] for token in bpe.byte_tokens if token in bpe.ids)
    parts: dict[str, tuple[Path, Part]] = {}
    for name, (file, info) in tensors.items():
        parts[name] = (file, Rows(info, tuple(rows), own) if name in tables else info)
    write_safetensors(target / WEIGHTS, parts)


def _with_new_decoder(settings: Mapping[str, Any], moved: Mapping[int, int]) -> dict[str, Any]:
    decoder = settings.get("added_tokens_decoder")
    if not isinstance(decoder, dict):
        return dict(settings)
    kept = {str(moved[int(number)]): token for number, token in decoder.items() if int(number) in moved}
    return {**settings, "added_tokens_decoder": kept}


def _moved(config: Mapping[str, Any], moved: Mapping[int, int], size: int) -> dict[str, Any]:
    """A configuration with the new size and ids; what names a token that is none becomes ``null``."""

    def of(key: str, value: Any) -> Any:
        if key == "vocab_size":
            return size
        if key == "text_config" and isinstance(value, dict):
            return _moved(value, moved, size)
        if not _TOKEN_KEY.fullmatch(key):
            return value
        if isinstance(value, list):
            return [moved[number] for number in value if number in moved]
        return moved.get(value) if isinstance(value, int) else value

    return {key: of(key, value) for key, value in config.items()}


def _token_ids(model: Path) -> list[int]:
    """Ids that the configuration names: begin, end, padding."""
    files = [model / CONFIG, model / _GENERATION]
    found: list[int] = []
    for config in (read_json(file) for file in files if file.is_file()):
        for key, value in {**(config.get("text_config") or {}), **config}.items():
            if _TOKEN_KEY.fullmatch(key):
                found += [number for number in (value if isinstance(value, list) else [value]) if isinstance(number, int)]
    return found
