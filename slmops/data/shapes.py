"""How a record becomes chat turns and an answer, once it is known which of its fields are which."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from slmops.data.chat import TextTemplate
from slmops.data.rows import Message

ROLES = ("system", "user", "assistant")
_TYPES = {str: "text", bool: "true/false", int: "a number", float: "a number", list: "a list", dict: "an object"}
_HALF_PAIR = re.compile("[\ud800-\udfff]")


class BadRow(Exception):
    """A record that cannot become a row; the text is the reason, its kind before the first colon."""


class Example(NamedTuple):
    """What a record says: the turns before the answer, and the answer.

    ``answer`` is ``None`` where nobody has labelled the record (``null``, or a conversation that ends with the user) and
    ``""`` where it is empty; ``absent`` says that the record lacks the answer's field altogether.
    """

    messages: list[Message]
    answer: str | None
    absent: bool = False


@dataclass(frozen=True)
class Layout:
    """Where question and answer stand in a file's records.

    Args:
        shape: ``messages``, ``text_template`` or ``columns``.
        inputs: Fields of the question.
        answer: Field of the answer, or ``None``.
        why: How they were chosen, for people.
        template: For the shape ``text_template``.
    """

    shape: str
    inputs: tuple[str, ...]
    answer: str | None
    why: str
    template: TextTemplate | None = None

    def example(self, values: Mapping[str, Any], *, with_answer: bool = True) -> Example:
        """Read one record.

        A single input field is the user turn as it stands; several are lines ``name: value`` (an ``instruction`` with an
        ``input``: two paragraphs). Answers lose the white space around them; numbers and booleans become JSON text.

        Raises:
            BadRow: A field is missing, empty, of a wrong type; an unknown role; turns that make no question.
        """
        if self.shape == "messages":
            messages, spoken = _turns(values, self.inputs[0])
        else:
            messages, spoken = [{"role": "user", "content": self._content(values)}], None
        if not with_answer:
            return Example(messages, None)
        if self.answer is None:
            return Example(messages, spoken)
        if spoken is not None:
            raise BadRow(f"two answers: the last turn of {self.inputs[0]!r} and the field {self.answer!r}")
        if self.answer not in values:
            return Example(messages, None, absent=True)
        return Example(messages, _answer(values[self.answer], self.answer))

    def _content(self, values: Mapping[str, Any]) -> str:
        if self.template is not None:
            return self.template.content({name: _text(values, name, numbers=True) for name in self.inputs})
        if len(self.inputs) == 1:
            return _text(values, self.inputs[0])
        if self.inputs[0].lower() == "instruction":
            more = [_text(values, name) for name in self.inputs[1:] if str(values.get(name) or "").strip()]
            return "\n\n".join([_text(values, self.inputs[0]), *more])
        return "\n".join(f"{name}: {_text(values, name)}" for name in self.inputs)


def kind_of(value: Any) -> str:
    """What a value is, in words: ``text``, ``a number``, ``true/false``, ``a list``, ``an object``, ``null``."""
    return "null" if value is None else _TYPES.get(type(value), f"a {type(value).__name__}")


def _turns(values: Mapping[str, Any], field: str) -> tuple[list[Message], str | None]:
    turns = values.get(field)
    if turns is None:
        raise BadRow(f"missing field {field!r}")
    if not isinstance(turns, list):
        raise BadRow(f"wrong type: the field {field!r} holds {kind_of(turns)}, not a list of turns")
    if not turns:
        raise BadRow(f"empty field {field!r}")
    messages: list[Message] = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, Mapping):
            raise BadRow(f"wrong type: turn {number} of {field!r} is {kind_of(turn)}, not an object")
        role = turn.get("role")
        if role not in ROLES:
            raise BadRow(f"unknown role: {role!r} in turn {number} of {field!r}; known are {', '.join(ROLES)}")
        content = turn.get("content")
        if not isinstance(content, str):
            raise BadRow(f"wrong type: 'content' in turn {number} of {field!r} is {kind_of(content)}, not text")
        if not content.strip() and role == "system":
            continue
        if not content.strip() and not (number == len(turns) and role == "assistant"):
            raise BadRow(f"empty turn: 'content' in turn {number} of {field!r}")
        messages.append({"role": role, "content": _sound(content, field)})
    answer = messages.pop()["content"].strip() if messages and messages[-1]["role"] == "assistant" else None
    if not messages or messages[-1]["role"] != "user":
        raise BadRow(f"no question: in {field!r} no user turn stands before the answer")
    return messages, answer


def _text(values: Mapping[str, Any], field: str, *, numbers: bool = False) -> str:
    value = values.get(field)
    if value is None:
        raise BadRow(f"empty field {field!r}" if field in values else f"missing field {field!r}")
    if numbers and isinstance(value, (int, float)):
        return json.dumps(value)
    if not isinstance(value, str):
        raise BadRow(f"wrong type: the field {field!r} holds {kind_of(value)}, not text")
    if not value.strip():
        raise BadRow(f"empty field {field!r}")
    return _sound(value, field)


def _answer(value: Any, field: str) -> str | None:
    if value is None or value != value:  # NaN is how data frames write "no value"
        return None
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if not isinstance(value, str):
        raise BadRow(f"wrong type: the answer {field!r} is {kind_of(value)}, not text")
    return _sound(value, field).strip()


def _sound(text: str, field: str) -> str:
    if not text.isascii() and _HALF_PAIR.search(text):
        raise BadRow(f"half a character: the field {field!r} holds one half of a surrogate pair, which no encoding can write")
    return text
