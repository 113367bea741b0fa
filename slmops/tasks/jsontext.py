"""JSON in a model's answer: in a code fence, between other words, or cut off."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

_FENCED = re.compile(r"```([\w+-]*)[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_CLOSERS = {"{": "}", "[": "]"}


def unfenced(text: str, languages: Sequence[str] = ()) -> str:
    """What stands in the longest code fence, also one that is not closed; the text itself where there is none.

    Fences that name one of the languages go before others, which may hold an output or a call.
    """
    blocks: list[tuple[str, str]] = [(name.lower(), block.strip()) for name, block in _FENCED.findall(text) if block.strip()]
    named = [block for name, block in blocks if name in languages]
    return max(named or [block for _, block in blocks] or [text.strip()], key=len)


def read_json_text(text: str) -> Any:
    """The first object or list of a text; one that is cut off is closed behind its last whole value.

    Raises:
        ValueError: There is none.
    """
    plain = unfenced(text, ("json",))
    starts = [position for position in (plain.find("{"), plain.find("[")) if position >= 0]
    if not starts:
        raise ValueError("no JSON")
    body = plain[min(starts) :]
    try:
        return json.JSONDecoder().raw_decode(body)[0]
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    except json.JSONDecodeError as error:
        for closed in _closed(body):
            try:
                return json.loads(closed)
            except (ValueError, RecursionError):
                continue
        raise ValueError(f"broken JSON: {error.msg}") from error


def _closed(body: str) -> list[str]:
    """Ways to end JSON that breaks off: behind each of the last places where a value ended, nearest first."""
    ends: list[tuple[int, str]] = []
    stack: list[str] = []
    inside, escaped = False, False
    for position, sign in enumerate(body):
        if inside:
            inside, escaped = escaped or sign != '"', sign == "\\" and not escaped
            if inside:
                continue
        elif sign == '"':
            inside = True
            continue
        elif sign in _CLOSERS:
            stack.append(_CLOSERS[sign])
        elif sign in "}]":
            if not stack or stack.pop() != sign:
                return []
        elif sign != ",":
            continue
        ends.append((position if sign == "," else position + 1, "".join(reversed(stack))))
    if not stack:
        return []  # it was complete, so it is broken elsewhere
    if not inside:
        ends.append((len(body), "".join(reversed(stack))))
    return [body[:end] + closers for end, closers in reversed(ends[-8:])]
