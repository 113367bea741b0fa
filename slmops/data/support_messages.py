"""Messages that customers of an online shop write, each for one of 18 queues: made from phrase tables and a seed.

The rule a message is labelled by: its queue is what the customer asks to be done. Another topic that is mentioned (about
one message in seven) is settled, or named only to say that the message is not about it.

Sentence templates are divided once for all seeds: the test split is made from one part, everything else from the other.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from slmops.data import support_phrases as phrases
from slmops.data.rows import Row
from slmops.files import digest

if TYPE_CHECKING:
    from slmops.data.sources import RawSplits

LABELS: tuple[str, ...] = tuple(phrases.REQUESTS)
"""The 18 queues."""

ORIGIN = "support-messages"
"""``Row.origin`` of every row made here."""


class SupportMessages(BaseModel):
    """How many messages to make; labelled, validation and test are spread evenly over the queues, the pool is drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labelled: int = Field(108, ge=len(LABELS), le=20_000, description="rows with an answer")
    pool: int = Field(1200, ge=0, le=50_000, description="rows without an answer, for the teacher to label")
    validation: int = Field(54, ge=1, le=20_000, description="rows for choosing between checkpoints")
    test: int = Field(400, ge=1, le=20_000, description="held-out rows, from templates that no other split uses")
    seed: int = 7

    def fingerprint(self) -> str:
        """Changes when the rows would: with the options, the phrase tables or the generator's version."""
        return digest([ORIGIN, _VERSION, _tables(), self.model_dump()])

    def read(self) -> RawSplits:
        """The rows; those of the pool have no answer."""
        from slmops.data.sources import RawSplits

        rows = {
            split: [Row.of(text, answer=None if split == "pool" else label, origin=ORIGIN) for text, label in messages]
            for split, messages in generate(self).items()
        }
        return RawSplits(rows["labelled"], rows["pool"], rows["validation"], rows["test"])


@dataclass(frozen=True)
class Message:
    """A message and how it was made.

    Args:
        text: What the customer wrote.
        label: The queue it belongs to.
        templates: Ids of all sentence templates in it, the request's first.
        second: The other queue whose topic is mentioned as settled, if any.
        misspelt: Whether slips of the keyboard were added.
    """

    text: str
    label: str
    templates: tuple[str, ...]
    second: str | None = None
    misspelt: bool = False


def generate(options: SupportMessages) -> dict[str, list[tuple[str, str]]]:
    """Text and label of every message by split, the labels of the pool included."""
    return {
        split: [(message.text, message.label) for message in messages]
        for split, messages in generate_with_templates(options).items()
    }


def generate_with_templates(options: SupportMessages) -> dict[str, list[Message]]:
    """As :func:`generate`, with the templates and traits of each message."""
    taken: set[str] = set()
    # The pool comes last, so that its size changes no other split.
    counts = {"labelled": options.labelled, "validation": options.validation, "test": options.test, "pool": options.pool}
    return {split: list(_split(split, count, options.seed, taken)) for split, count in counts.items()}


_VERSION = 1
_TEST_SHARE = 0.35
_WORDS = (4, 60)
_TYPOS, _TWO_TOPICS, _NOT_ABOUT = 0.25, 0.15, 0.06
_OPENING, _CLOSING, _CONTEXT = 0.2, 0.18, 0.05
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


@dataclass(frozen=True)
class _Template:
    id: str
    text: str


@dataclass
class _Slots:
    """The values chosen for one message: a name keeps its value, two names never share one."""

    rng: random.Random
    chosen: dict[str, str] = field(default_factory=dict)

    def fill(self, text: str) -> str:
        """Choose one alternative of each ``[a|b]`` and a value for each ``{slot}``."""
        text = re.sub(r"\[([^\]]*)\]", lambda match: self.rng.choice(match[1].split("|")), text)
        return re.sub(r"\{(\w+)\}", lambda match: self._value(match[1]), text)

    def around(self, asked: str, frame: str) -> list[str]:
        """What stands before a request, the request, and what follows it; empty parts are left out."""
        before, after = (self.fill(part).strip() for part in frame.split("{request}"))
        return [part for part in (before, asked, after) if part]

    def _value(self, name: str) -> str:
        if name.startswith("a_"):
            value = self._value(name.removeprefix("a_"))
            return f"{'an' if value[0] in 'aeiou' else 'a'} {value}"
        if name not in self.chosen:
            free = [value for value in _values(name.rstrip("0123456789")) if value not in self.chosen.values()]
            self.chosen[name] = re.sub("#", lambda _: str(self.rng.randint(1, 9)), self.rng.choice(free))
        return self.chosen[name]


def _split(split: str, count: int, seed: int, taken: set[str]) -> Iterator[Message]:
    rng = random.Random(f"{seed}:{split}:labels")
    if split == "pool":
        labels = [rng.choice(LABELS) for _ in range(count)]
    else:
        labels = list(LABELS) * (count // len(LABELS)) + rng.sample(LABELS, count % len(LABELS))
        rng.shuffle(labels)
    rng = random.Random(f"{seed}:{split}:texts")
    side = "test" if split == "test" else "train"
    decks = {label: _deck(_sides(label, phrases.REQUESTS[label])[side], rng) for label in LABELS}
    for label in labels:
        message = next(message for message in _messages(decks[label], label, side, rng) if message.text.casefold() not in taken)
        taken.add(message.text.casefold())
        yield message


def _deck(templates: Sequence[_Template], rng: random.Random) -> Iterator[_Template]:
    """All templates in a random order, again and again: none is used twice before all were used once."""
    while True:
        yield from rng.sample(templates, len(templates))


def _messages(requests: Iterator[_Template], label: str, side: str, rng: random.Random) -> Iterator[Message]:
    for request in requests:
        message = _message(request, label, side, rng)
        if _WORDS[0] <= len(message.text.split()) <= _WORDS[1]:
            yield message


def _message(request: _Template, label: str, side: str, rng: random.Random) -> Message:
    slots, used = _Slots(rng), [request.id]

    def pick(kind: str, texts: tuple[str, ...]) -> str:
        template = rng.choice(_sides(kind, texts)[side])
        used.append(template.id)
        return template.text

    asked, second, kind = slots.fill(request.text), None, rng.random()
    # The shorter the request, the more likely the customer goes on to say what should be done.
    if rng.random() < 1.3 - len(asked.split()) / 17:
        wish = pick(f"{label}, wish", phrases.WISHES[label])
        asked = _joined([asked, slots.fill(pick("wish frame", phrases.WISH_FRAMES).replace("{wish}", wish))])
    parts = [asked]
    if kind < _TWO_TOPICS:
        second = rng.choice(_far(label))
        settled = pick(f"{second}, settled", phrases.SETTLED[second])
        parts = slots.around(asked, pick("two topics", phrases.TWO_TOPICS).replace("{settled}", settled))
    elif kind < _TWO_TOPICS + _NOT_ABOUT:
        topic = rng.choice(phrases.TOPICS[rng.choice(_far(label))])
        parts = slots.around(asked, pick("not about", phrases.NOT_ABOUT).replace("{topic}", topic))
    if rng.random() < _CONTEXT:
        if label not in phrases.WITHOUT_ORDER and "order" not in slots.chosen and rng.random() < 0.5:
            parts.insert(parts.index(asked) + 1, slots.fill(pick("order context", phrases.ORDER_CONTEXTS)))
        else:
            parts.insert(rng.choice((0, len(parts))), slots.fill(pick("context", phrases.CONTEXTS)))
    if rng.random() < _OPENING:
        if parts[0] is asked and rng.random() < 0.25:
            parts[0] = f"{pick('lead', phrases.LEADS)} {asked}"
        else:
            parts.insert(0, slots.fill(pick("opening", phrases.OPENINGS)))
    if rng.random() < _CLOSING:
        parts.append(slots.fill(pick("closing", phrases.CLOSINGS)))
    text, misspelt = _capitalised(_joined(parts)), rng.random() < _TYPOS
    return Message(_misspell(text, rng) if misspelt else text, label, tuple(used), second, misspelt)


def _joined(parts: Sequence[str]) -> str:
    """The parts in one line, with a full stop where the one before ends without a mark."""
    text = ""
    for part in parts:
        stop = "." if text and text[-1] not in ".,:;?!()" else ""
        text = f"{text}{stop} {part}".strip()
    return text


def _capitalised(text: str) -> str:
    return re.sub(r"(^|[.?!]\)? \(?)([a-z])", lambda match: match[1] + match[2].upper(), text)


def _misspell(text: str, rng: random.Random) -> str:
    """The text with one to four slips of somebody who types in a hurry."""
    result = text
    while result == text:
        if rng.random() < 0.35:
            result = result.lower()
        if rng.random() < 0.3:
            result = re.sub(r"(?<=[a-z])'(?=[a-z])", "", result)
        if rng.random() < 0.3:
            result = re.sub(r",|[.!?]+$", "", result)
        words = result.split(" ")
        long = [index for index, word in enumerate(words) if len(word) > 3 and word.isalpha() and word.islower()]
        for index in rng.sample(long, min(len(long), rng.choice((0, 1, 1, 2, 2, 3)))):
            words[index] = _slip(words[index], rng)
        result = " ".join(words)
    return result


def _slip(word: str, rng: random.Random) -> str:
    """A word of lower-case letters with one letter wrong, left out, doubled or swapped with the next."""
    at = rng.randrange(1, len(word) - 1)
    how = rng.randrange(4)
    if how == 0:
        row = next(row for row in _KEYBOARD if word[at] in row)
        near = row[max(0, row.index(word[at]) - 1) : row.index(word[at]) + 2].replace(word[at], "")
        return word[:at] + rng.choice(near) + word[at + 1 :]
    if how == 1:
        return word[:at] + word[at + 1 :]
    if how == 2:
        return word[: at + 1] + word[at:]
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


@cache
def _sides(kind: str, texts: tuple[str, ...]) -> dict[str, tuple[_Template, ...]]:
    """The templates of a kind, divided into those of the test split and those of all others."""
    order = list(range(len(texts)))
    random.Random(f"{ORIGIN}:{kind}").shuffle(order)
    cut = round(len(order) * (1 - _TEST_SHARE))
    return {
        side: tuple(_Template(f"{kind}/{index}", texts[index]) for index in sorted(indexes))
        for side, indexes in (("train", order[:cut]), ("test", order[cut:]))
    }


@cache
def _far(label: str) -> tuple[str, ...]:
    """The queues that can be mentioned beside a request without doubt about which of the two is meant."""
    near = {label}.union(*(group for group in phrases.CLOSE_TOPICS if label in group))
    return tuple(other for other in LABELS if other not in near)


@cache
def _values(kind: str) -> tuple[str, ...]:
    """The values of a kind of slot, those of the kinds it refers to included."""
    values = phrases.SLOTS[kind]
    return tuple(found for value in values for found in (_values(value[1:]) if value.startswith("@") else (value,)))


def _tables() -> dict[str, object]:
    return {name: _plain(value) for name, value in vars(phrases).items() if name.isupper()}


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value
