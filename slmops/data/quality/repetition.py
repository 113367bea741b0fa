"""Answers that went wrong while they were written: loops, and ends in the middle."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence

_LONGEST_PERIOD = 24
_LEAST_REPEATS = 4
_LEAST_WORDS = 20
_LEAST_DISTINCT = 0.3
_LOOP_OF_SIGNS = re.compile(r"([^\s\d.\-=_*#~+|/\\:·•…─━]{1,16}?)\1{11,}")
_OPEN_END = re.compile(
    r"(?:,|\(|\[|\{|\b(?:the|an|and|or|but|because|its|their|your|und|oder|aber|weil|et|mais|pero))$", re.IGNORECASE
)
_LEAST_SENTENCE = 6


def loop(text: str) -> str | None:
    """What a text says over and over, or ``None``.

    Found are: at least four rounds of the same words, twenty words in all; the same few signs at least twelve times
    without a space (rulers, dots and digits do not count); a long text of which fewer than 30 % of the 4-grams differ.
    """
    if found := _LOOP_OF_SIGNS.search(text):
        return found.group(1)
    words = text.split()
    if len(words) < _LEAST_WORDS:
        return None
    grams = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    (commonest, count), *_ = grams.most_common(1)
    if count < _LEAST_REPEATS - 1:
        return None
    if len(grams) < _LEAST_DISTINCT * (len(words) - 3):
        return " ".join(commonest)
    return next((" ".join(part) for period in range(1, _LONGEST_PERIOD + 1) if (part := _round(words, period))), None)


def _round(words: Sequence[str], period: int) -> Sequence[str] | None:
    """The words of one round, where the text repeats itself after ``period`` words for long enough."""
    needed = max(_LEAST_REPEATS * period, _LEAST_WORDS) - period
    run = 0
    for index in range(period, len(words)):
        run = run + 1 if words[index] == words[index - period] else 0
        if run >= needed:
            return words[index - period + 1 : index + 1]
    return None


def cut_off(text: str) -> str | None:
    """Why a text seems to have been cut off, or ``None``: an open code block, open JSON, an end in mid-sentence."""
    if text.count("```") % 2:
        return "an open code block"
    stripped = text.strip()
    if stripped[:1] in ("{", "[") and _open_brackets(stripped) > 0:
        return "JSON that does not end"
    if len(stripped.split()) >= _LEAST_SENTENCE and (end := _OPEN_END.search(stripped)):
        return f"it ends with {end.group()!r}"
    return None


def _open_brackets(text: str) -> int:
    """Brackets that are still open at the end of a text that is no JSON, strings left out; 0 for JSON."""
    try:
        json.loads(text)
    except ValueError:
        depth, inside, escaped = 0, False, False
        for sign in text:
            if escaped:
                escaped = False
            elif inside and sign == "\\":
                escaped = True
            elif sign == '"':
                inside = not inside
            elif not inside:
                depth += (sign in "{[") - (sign in "}]")
        return depth
    return 0
