"""Do a teacher and a student fit? What both have in common, and which objectives follow from it; no weights are loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from slmops.data.chat import PLAIN, ChatTemplate
from slmops.errors import SlmopsError
from slmops.models.bpe import TOKENIZER, byte_alphabet
from slmops.models.fittable import BY_POSITION, Objective, Pairing, Side, Tokenizers
from slmops.models.layers import uniform_map
from slmops.models.load import context_length, load_tokenizer, parameter_count, read_config
from slmops.models.sizes import Anatomy

_SAMPLES = (
    "Where's MY  order no. 1234567? It hasn't arrived.",
    "Summarize the following paragraph in one sentence:\n\n- first point\n- second point",
    'def add(a, b):\n    return a + b  # {"key": 1.5}',
    "Das Paket kam nicht an; ça coûte 12,50 € … 日本語 😀",
)
_CONVERSATION = ({"role": "user", "content": "Hello"},)
_FORMATS = {
    "<|im_start|>": "ChatML",
    "<|start_header_id|>": "Llama 3",
    "<start_of_turn>": "Gemma",
    "[INST]": "Llama 2",
    "<|user|>": "Phi",
}


def pair(teacher: Path, student: Path, *, names: tuple[str, str] | None = None, layers: int | None = None) -> Pairing:
    """Compare two model folders.

    Args:
        teacher: Folder of the teacher.
        student: Folder of the student.
        names: What they are called; the folders' names without it.
        layers: Layers that the student will be cut to.

    Raises:
        ModelError: A folder is no model, or has no tokenizer.
    """
    named = [Path(name).name if Path(name).exists() else name for name in names or (str(teacher), str(student))]
    first, second = _tokenizer(teacher), _tokenizer(student)
    one, two = _side(teacher, named[0], first), _side(student, named[1], second)
    if layers is not None:
        anatomy = Anatomy.of(student)
        kept = min(layers, anatomy.layers)
        two = replace(two, layers=kept, parameters=anatomy.parameters(kept, anatomy.vocabulary))
    texts = [_texts(teacher, first), _texts(student, second)]
    pieces = [[_pieces(tokenizer, own, text) for text in _SAMPLES] for tokenizer, own in zip((first, second), texts, strict=True)]
    alike = sum(left == right for left, right in zip(*pieces, strict=True)) / len(_SAMPLES)
    tokenizers = _relation(first, second, one, two, alike)
    shared = len(set(texts[1].values()) & set(texts[0].values())) / max(1, len(set(texts[1].values())))
    return Pairing(
        one,
        two,
        tokenizers,
        shared,
        alike,
        _prompt(teacher) == _prompt(student),
        uniform_map(one.layers, two.layers),
        _objectives(tokenizers, one, two),
    )


def _objectives(tokenizers: Tokenizers, teacher: Side, student: Side) -> tuple[Objective, ...]:
    """What can be asked of a student, strongest first."""
    positions = tokenizers in BY_POSITION
    under = "under the student's numbers" if tokenizers == "student's is a part" else "of the same tokens"
    no_position = "positions are not the same tokens"
    projected = "" if teacher.width == student.width else ", through a learned projection"
    maps = "attention_maps too" if teacher.heads == student.heads else "no attention_maps, as the numbers of heads differ"
    return (
        Objective("answers: cross_entropy", True, "text is text for any tokenizer"),
        Objective("distributions: forward_kl and others", positions, under if positions else "a position is not the same token"),
        Objective("distributions: uld", True, "not needed" if positions else "compares sorted probabilities"),
        Objective("layers: hidden_states", positions, f"layers as above{projected}" if positions else no_position),
        Objective("layers: attention_relations and others", positions, maps if positions else no_position),
    )


def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    file = folder / TOKENIZER
    return Tokenizer.from_file(str(file)) if file.is_file() else load_tokenizer(folder).backend_tokenizer


def _side(folder: Path, name: str, tokenizer: Any) -> Side:
    config = read_config(folder)
    text = {**config, **(config.get("text_config") or {})}
    return Side(
        name,
        str(text.get("model_type", "unknown")),
        parameter_count(folder),
        tokenizer.get_vocab_size(),
        int(text["vocab_size"]),
        _format(folder),
        context_length(folder),
        int(text.get("num_hidden_layers") or text.get("n_layer") or 0),
        int(text.get("hidden_size") or text.get("n_embd") or 0),
        int(text.get("num_attention_heads") or text.get("n_head") or 0),
    )


def _texts(folder: Path, tokenizer: Any) -> dict[int, bytes]:
    """What each token stands for, so that ``Ġthe`` of one kind of tokenizer and ``▁the`` of another are one."""
    byte_of = {sign: byte for byte, sign in enumerate(byte_alphabet())}
    byte_level = "ByteLevel" in json.dumps(json.loads(tokenizer.to_str()).get("decoder"))

    def text(token: str) -> bytes:
        if byte_level and all(sign in byte_of for sign in token):
            return bytes(byte_of[sign] for sign in token)
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes.fromhex(token[3:5])
        return token.replace("▁", " ").encode()

    return {number: text(token) for token, number in tokenizer.get_vocab().items()}


def _pieces(tokenizer: Any, texts: Mapping[int, bytes], text: str) -> list[bytes]:
    return [texts[number] for number in tokenizer.encode(text, add_special_tokens=False).ids]


def _relation(first: Any, second: Any, teacher: Side, student: Side, alike: float) -> Tokenizers:
    before, after = first.get_vocab(), second.get_vocab()
    if before == after and alike == 1:
        return "same" if teacher.rows == student.rows else "same with padding"
    if _part(after, before):
        return "student's is a part"
    return "teacher's is a part" if _part(before, after) else "different"


def _part(smaller: Mapping[str, int], larger: Mapping[str, int]) -> bool:
    """Whether all tokens of one are the other's too, but for single bytes that it may lack."""
    return all(token in larger or len(token) == 1 or token.startswith("<0x") for token in smaller)


def _prompt(folder: Path) -> str | None:
    try:
        return ChatTemplate.load(folder).render(_CONVERSATION)
    except SlmopsError:
        return None


def _format(folder: Path) -> str:
    try:
        jinja = ChatTemplate.load(folder).jinja
    except SlmopsError:
        return "none"
    if jinja == PLAIN:
        return "none (plain)"
    return next((name for sign, name in _FORMATS.items() if sign in jinja), "its own")
