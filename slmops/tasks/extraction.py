"""Extraction: named fields and their values out of a text, as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import Field, field_validator

from slmops.tasks.base import AnswerError
from slmops.tasks.jsontext import read_json_text
from slmops.tasks.labels import short
from slmops.tasks.prompts import Prompted


class PairCounts(NamedTuple):
    """Pairs of field and value of one row: right ones, those of the answer, those of the reference; 1 where all are right."""

    hits: int
    claimed: int
    actual: int
    right: int


class Extraction(Prompted):
    """A JSON object of fields; what a text does not have is left out, several values are a list.

    JSON in a code fence, between words or cut off is read as far as it goes. The normal form has the fields in the order
    of ``fields``, no empty values, and a single value without its list.

    Args:
        fields: The names an answer may have.
        required: Those it must have.
    """

    fields: tuple[str, ...] = Field(min_length=1, description="Names an answer may have; left out: those in the data")
    required: tuple[str, ...] = Field((), description="Names an answer must have")

    @field_validator("fields")
    @classmethod
    def _distinct(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(fields)) != len(fields):
            raise ValueError("a field is named twice")
        return fields

    @property
    def primary_measure(self) -> str:
        """The measure that decides."""
        return "entity_f1"

    @property
    def answer_schema(self) -> dict[str, Any]:
        """JSON Schema of the normal form, which is an object written as text."""
        properties: dict[str, Any] = {name: {} for name in self.fields}
        return {"type": "object", "properties": properties, "required": list(self.required), "additionalProperties": False}

    @classmethod
    def complete(cls, options: Mapping[str, Any], answers: Sequence[str]) -> dict[str, Any]:
        """Without ``fields``, the names that occur in the data's answers, sorted."""
        if options.get("fields"):
            return dict(options)
        found: set[str] = set()
        for answer in answers:
            try:
                value = read_json_text(answer)
            except ValueError:
                continue
            found |= set(value) if isinstance(value, dict) else set()
        return {**options, "fields": sorted(found)}

    def own_prompt(self) -> str:
        """What the teacher is told where neither recipe nor row says it."""
        return (
            "Find these fields in the text: {fields}. Answer with one JSON object alone, values word for word as they stand in "
            "the text, several values of one field as a list. Leave out fields that the text does not have."
        )

    def slots(self) -> Mapping[str, str]:
        """``{fields}``: the names, separated by commas."""
        return {"fields": ", ".join(self.fields)}

    def parse(self, text: str) -> str:
        """JSON text of the fields; raises :class:`AnswerError` for no JSON object, an unknown field or a missing one."""
        values = self._values(text)
        ordered = {name: values[name] for name in self.fields if name in values}
        return json.dumps(ordered, ensure_ascii=False)

    def correct(self, answer: str, reference: str) -> bool:
        """Whether all fields have the reference's values; case and the order of values do not matter."""
        read = self.read(answer)
        return read is not None and _pairs(json.loads(read)) == _pairs(json.loads(self.parse(reference)))

    def score(self, answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """F1 over all pairs of field and value, share of rows that are right as a whole, share of valid answers."""
        counts = [self.counts(answer, reference) for answer, reference in zip(answers, references, strict=True)]
        hits, claimed, actual, right = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0, 0, 0)
        return {
            "entity_f1": 2 * hits / (claimed + actual) if claimed + actual else float(right == len(references)),
            "exact_match": right / max(len(references), 1),
            "valid_share": self.valid_share(answers),
        }

    def counts(self, answer: str, reference: str) -> PairCounts:
        """What one row adds to the measures."""
        read = self.read(answer)
        given = _pairs(json.loads(read)) if read is not None else Counter()
        expected = _pairs(json.loads(self.parse(reference)))
        return PairCounts((given & expected).total(), given.total(), expected.total(), int(read is not None and given == expected))

    def _values(self, text: str) -> dict[str, Any]:
        if not text.strip():
            raise AnswerError("empty answer")
        try:
            value = read_json_text(text)
        except ValueError as error:
            raise AnswerError(f"no JSON object: {error}; {short(text.strip())!r}") from error
        if not isinstance(value, dict):
            raise AnswerError(f"no JSON object: a {type(value).__name__}")
        unknown = sorted(set(value) - set(self.fields))
        if unknown:
            raise AnswerError(f"unknown field: {unknown[0]!r}")
        values = {name: kept for name, item in value.items() if (kept := _kept(item)) is not None}
        missing = [name for name in self.required if name not in values]
        if missing:
            raise AnswerError(f"missing field: {missing[0]!r}")
        return values


def _kept(value: Any) -> Any:
    """A value without what is empty; a list of one is the one; ``None`` where nothing is left."""
    if isinstance(value, str):
        return " ".join(value.split()) or None
    if isinstance(value, float):
        return int(value) if value.is_integer() else value if value == value else None
    if isinstance(value, dict):
        return {name: kept for name, item in value.items() if (kept := _kept(item)) is not None} or None
    if isinstance(value, list):
        found = [kept for item in value if (kept := _kept(item)) is not None]
        return found[0] if len(found) == 1 else found or None
    return value


def _pairs(values: Mapping[str, Any]) -> Counter[tuple[str, str]]:
    return Counter(pair for name, value in values.items() for pair in _texts(name, value))


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for item in value:
            yield from _texts(name, item)
    elif isinstance(value, dict):
        for inner, item in value.items():
            yield from _texts(f"{name}.{inner}", item)
    else:
        yield name, value.casefold() if isinstance(value, str) else json.dumps(value)
