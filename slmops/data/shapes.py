"""How a record becomes chat turns and an answer, once it is known which of its fields are which."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from slmops.data.chat import TextTemplate
from slmops.data.rows import Message
from slmops.data.tagged import fields_of

ROLES = ("system", "user", "assistant")
_TYPES = {str: "text", bool: "true/false", int: "a number", float: "a number", list: "a list", dict: "an object"}
_ABSENT = object()
_HALF_PAIR = re.compile("[\ud800-\udfff]")


class BadRow(Exception):
    """A record that cannot become a row; the text is the reason, its kind before the first colon."""


class Example(NamedTuple):
    """What a record says: the turns before the answer, and the answer.

    ``answer`` is ``None`` where nobody has labelled the record (``null``, or a conversation that ends with the user) and
    ``""`` where it is empty; ``absent`` says that the record lacks the answer's field altogether. ``others`` are as right.
    ``fields`` are the texts of a question that was put together from several.
    """

    messages: list[Message]
    answer: str | None
    absent: bool = False
    others: tuple[str, ...] = ()
    fields: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Layout:
    """Where question and answer stand in a file's records.

    Args:
        shape: ``messages``, ``text_template``, ``columns`` or ``pieces`` (a text in pieces, some of them with an ``entity``).
        inputs: Fields of the question.
        answer: Field of the answer, or ``None``.
        why: How they were chosen, for people.
        template: For the shape ``text_template``.
        nested: Fields that hold lists or objects by rule: a list of texts (sentences of a question, alternatives of an
            answer), a list of choices with ``label`` and ``text``, an object as an answer.
        tags: Field with one tag a word of the question; the fields they mark are the answer.
        rationale: Field with the reasoning before the answer.
    """

    shape: str
    inputs: tuple[str, ...]
    answer: str | None
    why: str
    template: TextTemplate | None = None
    nested: frozenset[str] = frozenset()
    tags: str | None = None
    rationale: str | None = None

    def example(self, values: Mapping[str, Any], *, with_answer: bool = True) -> Example:
        """Read one record.

        A single input field is the user turn as it stands; several are lines ``name: value`` (an ``instruction`` with an
        ``input``: two paragraphs). Answers lose the white space around them; numbers and booleans become JSON text.

        Raises:
            BadRow: A field is missing, empty, of a wrong type; an unknown role; turns that make no question.
        """
        return self._example(values, with_answer)._replace(fields=self._texts(values))

    def _example(self, values: Mapping[str, Any], with_answer: bool) -> Example:
        if self.shape == "messages":
            messages, spoken = _turns(values, self.inputs[0])
        elif self.shape == "pieces":
            text, spoken = _pieces(values, self.inputs[0])
            messages = [{"role": "user", "content": text}]
        else:
            messages, spoken = [{"role": "user", "content": self._content(values)}], None
        if not with_answer:
            return Example(messages, None)
        if self.tags is not None:
            return Example(messages, _tagged(text_of(values, self.inputs[0]), text_of(values, self.tags), self.tags))
        if self.answer is None:
            return Example(messages, spoken)
        if spoken is not None and self.shape == "messages":
            raise BadRow(f"two answers: the last turn of {self.inputs[0]!r} and the field {self.answer!r}")
        value = look_up(values, self.answer)
        if value is _ABSENT:
            return Example(messages, None, absent=True)
        first, *others = _answers(value, self.answer, nested=self.answer in self.nested)
        return Example(messages, self._reasoned(values, first), others=tuple(filter(None, others)))

    def _reasoned(self, values: Mapping[str, Any], answer: str | None) -> str | None:
        """The answer behind its reasoning, as tasks with a chain of thought read it."""
        reasoning = look_up(values, self.rationale) if self.rationale is not None else None
        if not answer or not isinstance(reasoning, str) or not reasoning.strip():
            return answer
        return f"{_sound(reasoning, str(self.rationale)).strip()}\nAnswer: {answer}"

    def _content(self, values: Mapping[str, Any]) -> str:
        if self.template is not None:
            return self.template.content({name: text_of(values, name, numbers=True) for name in self.inputs})
        if len(self.inputs) == 1:
            return self._input(values, self.inputs[0])
        if self.inputs[0].lower() == "instruction":
            more = [
                text_of(values, name) for name in self.inputs[1:] if look_up(values, name) and str(look_up(values, name)).strip()
            ]
            return "\n\n".join([text_of(values, self.inputs[0]), *more])
        return "\n".join(
            f"{name.rpartition('.')[2]}: {self._input(values, name)}".replace(": \n", ":\n", 1) for name in self.inputs
        )

    def _texts(self, values: Mapping[str, Any]) -> Mapping[str, str] | None:
        """The texts of several input fields; an instruction may have no input."""
        if len(self.inputs) < 2:
            return None
        if self.template is not None:
            return {name: text_of(values, name, numbers=True) for name in self.inputs}
        there = [name for name in self.inputs if (value := look_up(values, name)) is not _ABSENT and value and str(value).strip()]
        return {name.rpartition(".")[2]: self._input(values, name) for name in there}

    def _input(self, values: Mapping[str, Any], field: str) -> str:
        value = look_up(values, field)
        return _listed(value, field) if field in self.nested and isinstance(value, list) and value else text_of(values, field)


def kind_of(value: Any) -> str:
    """What a value is, in words: ``text``, ``a number``, ``true/false``, ``a list``, ``an object``, ``null``."""
    return "null" if value is None else _TYPES.get(type(value), f"a {type(value).__name__}")


def look_up(values: Mapping[str, Any], field: str) -> Any:
    """The value of a field, or of a path such as ``question.stem`` or ``instances.0.input``; a mark where there is none."""
    if field in values:
        return values[field]
    here: Any = values
    for part in field.split("."):
        if isinstance(here, Mapping) and part in here:
            here = here[part]
        elif isinstance(here, list) and part.isdecimal() and int(part) < len(here):
            here = here[int(part)]
        else:
            return _ABSENT
    return here


def is_absent(value: Any) -> bool:
    """Whether :func:`look_up` found nothing."""
    return value is _ABSENT


def are_pieces(value: Any) -> bool:
    """Whether a value is a text in pieces: a list of objects with ``text``, and nothing beside it but an ``entity`` name."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, Mapping) and "text" in item and set(item) <= {"text", "entity"} for item in value)
    )


def _pieces(values: Mapping[str, Any], field: str) -> tuple[str, str]:
    """The whole text, and JSON of entity to values."""
    items = look_up(values, field)
    if not are_pieces(items) or not all(isinstance(part, str) for item in items for part in item.values()):
        raise BadRow(f"wrong type: the field {field!r} is no list of pieces with a text")
    text = _sound("".join(item["text"] for item in items), field).strip()
    if not text:
        raise BadRow(f"empty field {field!r}")
    entities: dict[str, list[str]] = {}
    for item in items:
        if "entity" in item:
            entities.setdefault(item["entity"], []).append(item["text"].strip())
    return text, json.dumps(entities, ensure_ascii=False)


def _tagged(text: str, tags: str, field: str) -> str:
    words, marks = text.split(), tags.split()
    if len(words) != len(marks):
        raise BadRow(f"wrong number of tags: {len(marks)} in {field!r} for {len(words)} words")
    return fields_of(words, marks)


def _listed(value: list[Any], field: str) -> str:
    """Sentences with a space between them; choices one a line."""
    if _are_texts(value):
        return _sound(" ".join(item.strip() for item in value if item.strip()), field)
    if all(isinstance(item, Mapping) and isinstance(item.get("text"), str) and item.get("label") is not None for item in value):
        return _sound("".join(f"\n({item['label']}) {item['text'].strip()}" for item in value), field)
    raise BadRow(f"wrong type: the field {field!r} holds a list that is neither texts nor choices with label and text")


def _are_texts(value: list[Any]) -> bool:
    return all(isinstance(item, str) for item in value)


def _turns(values: Mapping[str, Any], field: str) -> tuple[list[Message], str | None]:
    turns = look_up(values, field)
    if turns is None or turns is _ABSENT:
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


def text_of(values: Mapping[str, Any], field: str, *, numbers: bool = False) -> str:
    """The text in a field, or with ``numbers`` a number in it as JSON.

    Raises:
        BadRow: The field is missing, empty or holds something else.
    """
    value = look_up(values, field)
    if value is None or value is _ABSENT:
        raise BadRow(f"empty field {field!r}" if value is None else f"missing field {field!r}")
    if numbers and isinstance(value, (int, float)):
        return json.dumps(value)
    if not isinstance(value, str):
        raise BadRow(f"wrong type: the field {field!r} holds {kind_of(value)}, not text")
    if not value.strip():
        raise BadRow(f"empty field {field!r}")
    return _sound(value, field)


def _answers(value: Any, field: str, *, nested: bool) -> list[str | None]:
    """The answer and, in a list of texts, the others that are not empty and not the same."""
    if not (nested and isinstance(value, list) and _are_texts(value)):
        return [_answer(value, field, nested=nested)]
    found = [_answer(item, field) for item in value if isinstance(item, str) and item.strip()]
    return list(dict.fromkeys(found)) or [""]


def _answer(value: Any, field: str, *, nested: bool = False) -> str | None:
    if nested and isinstance(value, dict):
        return _sound(json.dumps(value, ensure_ascii=False), field)
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
