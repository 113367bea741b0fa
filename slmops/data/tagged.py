"""Tagged words: one tag a word, in BIO or a like scheme or as plain names, and the fields that they mark."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_TAG = re.compile(r"O|[BIESLU]-\S+")
_SAMPLE = 1000
_DOCUMENT = "-DOCSTART-"


class Sentence(NamedTuple):
    """The words of a block of lines and their tags; ``problem`` says why it cannot be used. Lines count from 1."""

    first: int
    last: int
    words: list[str]
    tags: list[str]
    problem: str = ""


def is_tagged(lines: Sequence[str]) -> bool:
    """Whether lines are a word and, in the last column, its tag each (CoNLL), with blank lines between sentences."""
    columns = [parts for parts in map(_columns, lines[:_SAMPLE]) if parts]
    tagged = sum(len(parts) > 1 and _TAG.fullmatch(parts[-1]) is not None for parts in columns)
    return len(columns) > 1 and tagged >= 0.9 * len(columns)


def sentences(lines: Sequence[str]) -> Iterator[Sentence]:
    """The blocks between blank lines; marks of a document's beginning are skipped."""
    start, block = 0, []
    for number, line in enumerate([*lines, ""], 1):
        parts = _columns(line)
        if parts and parts[0] != _DOCUMENT:
            start = start or number
            block.append(parts)
        elif block:
            untagged = [parts[0] for parts in block if len(parts) < 2 or not _TAG.fullmatch(parts[-1])]
            problem = f"no tag: the word {untagged[0]!r}" if untagged else ""
            yield Sentence(start, number - 1, [parts[0] for parts in block], [parts[-1] for parts in block], problem)
            start, block = 0, []


def fields_of(words: Sequence[str], tags: Sequence[str]) -> str:
    """JSON of field to values that tags mark: ``B-x``, ``I-x`` (or ``E``, ``S``, ``L``, ``U``), or just ``x`` on each word."""
    found: dict[str, list[list[str]]] = {}
    previous: str | None = None
    for word, tag in zip(words, tags, strict=True):
        prefix, dash, name = tag.partition("-")
        scheme = bool(dash) and prefix in "BIESLU" and len(prefix) == 1
        name = name if scheme else tag
        if tag == "O":
            previous = None
            continue
        starts = name != previous or (scheme and prefix in "BSU")
        found.setdefault(name, [])
        if starts:
            found[name].append([word])
        else:
            found[name][-1].append(word)
        previous = None if scheme and prefix in "ESLU" else name
    return json.dumps({name: [" ".join(value) for value in values] for name, values in found.items()}, ensure_ascii=False)


def _columns(line: str) -> list[str]:
    line = line.rstrip("\r")
    return [part for part in (line.split("\t") if "\t" in line else line.split(" ")) if part.strip()]
