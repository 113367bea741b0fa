"""Personal data replaced by placeholders before a request leaves the machine, and put back into the answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from slmops.data.personal_data import FINDERS, Finder, Span, by_pattern, find_all, without_overlaps
from slmops.data.rows import Message

_INSIDE = r"\s*([A-Za-z]+(?:\\?_[A-Za-z]+)*)\\?[_ ](\d+)\s*"
_PLACEHOLDER = re.compile(rf"\[{_INSIDE}\]|\\\[{_INSIDE}\\\]")

_LEAST_AGAIN = 8


@dataclass(frozen=True)
class Masked:
    """A conversation without its personal data.

    Args:
        messages: The turns with placeholders such as ``[EMAIL_1]``.
        originals: What each placeholder stands for. It never leaves the machine.
    """

    messages: tuple[Message, ...]
    originals: Mapping[str, str]

    @property
    def counts(self) -> dict[str, int]:
        """Different pieces of personal data by kind."""
        kinds = [name[1:-1].rpartition("_")[0] for name in self.originals]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}

    def unmask(self, text: str) -> str:
        """Put the originals back into an answer, also where a model changed a placeholder's case or escaped its brackets."""
        return _PLACEHOLDER.sub(lambda found: self.originals.get(_name(found), found.group()), text)

    def invented(self, text: str) -> list[str]:
        """Placeholders in an answer that stand for nothing: the model made them up."""
        names = {_name(found) for found in _PLACEHOLDER.finditer(text)}
        kinds = {name.rpartition("_")[0] for name in self.originals}
        return sorted(name for name in names - self.originals.keys() if name.rpartition("_")[0] in kinds)


def mask(messages: Sequence[Message], finders: Sequence[Finder] = (by_pattern,)) -> Masked:
    """Replace personal data by placeholders; equal pieces get the same one in all turns.

    A placeholder that already stands in the text is not given again, so ``unmask`` gives back the very text.

    Args:
        messages: Chat turns.
        finders: What looks for personal data; of overlapping finds the first finder's stays.
    """
    spans = [find_all(turn["content"], finders) for turn in messages]
    values = {
        (span.kind, turn["content"][span.start : span.end]) for turn, found in zip(messages, spans, strict=True) for span in found
    }
    there = {_name(found) for turn in messages for found in _PLACEHOLDER.finditer(turn["content"])}
    placeholders: dict[tuple[str, str], str] = {}
    turns = []
    for turn, found in zip(messages, spans, strict=True):
        text, parts, end = turn["content"], [], 0
        for span in without_overlaps([*found, *_again(text, values)]):
            key = (span.kind, text[span.start : span.end])
            parts += [text[end : span.start], placeholders.setdefault(key, _next(span.kind, placeholders, there))]
            end = span.end
        turns.append({**turn, "content": "".join([*parts, text[end:]])})
    return Masked(tuple(turns), {name: original for (_, original), name in placeholders.items()})


def mask_text(text: str) -> str:
    """A text with placeholders for what the patterns find, for reports and logs."""
    return mask([{"role": "user", "content": text}]).messages[0]["content"]


def open_finders(names: Sequence[str]) -> list[Finder]:
    """The finders of these names.

    Raises:
        UsageError: No finder has that name.
        MissingExtraError: What it needs is not installed.
    """
    return [FINDERS.get(name) for name in names]


def _again(text: str, values: Iterable[tuple[str, str]]) -> Iterator[Span]:
    """Where long values stand that were found elsewhere, also where no pattern sees them because of what is beside them."""
    for kind, value in sorted(values):
        if len(value) >= _LEAST_AGAIN:
            yield from (Span(kind, *match.span()) for match in re.finditer(re.escape(value), text))


def _next(kind: str, placeholders: Mapping[tuple[str, str], str], there: set[str]) -> str:
    number = 1 + sum(known == kind for known, _ in placeholders)
    taken = there | set(placeholders.values())
    while (name := f"[{kind}_{number}]") in taken:
        number += 1
    return name


def _name(found: re.Match[str]) -> str:
    kind, number = (part for part in found.groups() if part is not None)
    return f"[{kind.replace(chr(92), '').upper()}_{int(number)}]"
