"""Log-probabilities that an endpoint gave, as signals for a student whose tokenizer makes the same tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from slmops.data.templates import Template
from slmops.signals.distribution import id_type
from slmops.signals.topk import LOG_ZERO, TopK

if TYPE_CHECKING:
    from slmops.data.rows import Row

Token = Mapping[str, Any]
"""``{"token", "logprob", "top"}`` as replies have it."""


def reply_signal(template: Template, row: Row, tokens: Sequence[Token], k: int) -> TopK | None:
    """The endpoint's distribution at the answer tokens of a row; ``None`` where the tokens differ.

    Alternatives that are no single token of the student go into the tail. Of the end nothing is known but that the answer
    ended there.

    Args:
        template: The student's.
        row: With the answer.
        tokens: What the endpoint said of its tokens.
        k: Entries a position.
    """
    ids = template.encode(row).answer_ids
    texts = [str(token["token"]) for token in tokens]
    if texts:
        texts[0] = texts[0].lstrip()
    prefix = template.chat.answer_prefix
    own = [_text(template, number) for number in ids[:-1]]
    if own and own[0].startswith(prefix):
        own[0] = own[0].removeprefix(prefix)
    if own != texts:
        return None
    positions = []
    for place, (token, number) in enumerate(zip(tokens, ids[:-1], strict=True)):
        known = {number: float(token["logprob"])}
        for text, logprob in token["top"]:
            other = _single(template, prefix + str(text).lstrip() if place == 0 else str(text))
            if other is not None:
                known.setdefault(other, float(logprob))
        positions.append(known)
    return _top_k([*positions, {ids[-1]: 0.0}], k, len(template.tokenizer))


def certain_signal(template: Template, row: Row, k: int) -> TopK:
    """A signal that knows the answer and nothing else; learning from it is learning from the answer."""
    return _top_k([{number: 0.0} for number in template.encode(row).answer_ids], k, len(template.tokenizer))


def _top_k(positions: Sequence[Mapping[int, float]], k: int, vocabulary: int) -> TopK:
    """Positions with few known tokens as arrays of ``k``; what fills them up has no probability."""
    ids = np.zeros((len(positions), k), id_type(vocabulary))
    logprobs = np.full((len(positions), k), LOG_ZERO, np.float16)
    for place, known in enumerate(positions):
        best = sorted(known.items(), key=lambda item: (-item[1], item[0]))[:k]
        filler = (number for number in range(k + len(known)) if number not in known)
        chosen = [*(number for number, _ in best), *(next(filler) for _ in range(k - len(best)))]
        ids[place] = chosen
        logprobs[place, : len(best)] = [min(0.0, logprob) for _, logprob in best]
    left = 1 - np.exp(logprobs.astype(np.float64)).sum(-1)
    tail = np.full(len(positions), LOG_ZERO, np.float32)
    tail[left > 0] = np.log(left[left > 0]).astype(np.float32)
    return TopK(ids, logprobs, np.maximum(tail, LOG_ZERO))


def _text(template: Template, number: int) -> str:
    return str(template.tokenizer.decode([number], skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _single(template: Template, text: str) -> int | None:
    """The token that a text is by itself."""
    ids: list[int] = template.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids[0] if len(ids) == 1 and _text(template, ids[0]) == text else None
