"""Several texts in one reply: a JSON list, a numbered list, bullets, or paragraphs."""

from __future__ import annotations

import re
from typing import Any

from slmops.tasks.jsontext import read_json_text, unfenced

_ITEM = re.compile(r"^ {0,3}(?:\(?\d{1,3}[.):]|[-*•–])[ \t]+", re.MULTILINE)
_TAG = re.compile(r"</?text>")
_QUOTES = {'"': '"', "'": "'", "“": "”", "„": "“", "«": "»", "`": "`"}
_KEYS = ("text", "input", "question", "paraphrase", "example")


def read_texts(reply: str, most: int) -> list[str]:
    """The texts of a reply in their order, at most so many; none where the reply is empty.

    A list of objects gives the text of each; what stands before the first item of a list is a preamble. With ``most`` 1, a
    reply that is no list is the text itself.
    """
    texts = _of_json(reply)
    if texts is None:
        texts = _of_lines(unfenced(reply), most)
    return [text for text in map(_bare, texts) if text][:most]


def _of_json(reply: str) -> list[str] | None:
    if "[" not in reply and "{" not in reply:
        return None
    try:
        value = read_json_text(reply)
    except ValueError:
        return None
    if isinstance(value, dict):
        value = next((item for item in value.values() if isinstance(item, list)), list(value.values()))
    texts = [text for item in value if (text := _text_of(item)) is not None]
    return texts or None


def _text_of(item: Any) -> str | None:
    if isinstance(item, str):
        return item
    if not isinstance(item, dict):
        return None
    named = next((item[key] for key in _KEYS if isinstance(item.get(key), str)), None)
    return named or next((value for value in item.values() if isinstance(value, str)), None)


def _of_lines(reply: str, most: int) -> list[str]:
    marks = list(_ITEM.finditer(reply))
    if len(marks) >= min(most, 2):
        ends = [*(mark.start() for mark in marks[1:]), len(reply)]
        return [reply[mark.end() : end] for mark, end in zip(marks, ends, strict=True)]
    if most == 1:
        return [reply]
    paragraphs = re.split(r"\n\s*\n", reply.strip())
    return paragraphs if len(paragraphs) > 1 else reply.splitlines()


def _bare(text: str) -> str:
    """A text without tags and quotes around it."""
    plain = _TAG.sub("", text).strip()
    while len(plain) > 1 and _QUOTES.get(plain[0]) == plain[-1] and plain[0] not in plain[1:-1]:
        plain = plain[1:-1].strip()
    return plain
