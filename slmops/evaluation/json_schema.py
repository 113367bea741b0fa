"""JSON Schema (draft 2020-12) as far as answers need it: values, objects, lists, texts, numbers and alternatives."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from slmops.errors import ConfigError

Schema = Mapping[str, Any]

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: _is_number(value),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
}
_NOTES = {"title", "description", "default", "examples", "$schema", "$id", "$comment", "format"}


def follows(value: Any, schema: Schema | bool) -> bool:
    """Whether a JSON value is valid against a schema.

    Raises:
        ConfigError: The schema has a keyword that is not known here.
    """
    if isinstance(schema, bool):
        return schema
    unknown = sorted(set(schema) - set(_CHECKS) - _NOTES - {"additionalProperties"})
    if unknown:
        raise ConfigError(
            f"the keyword {unknown[0]!r} is not known here", where="answer_schema", fix="use " + ", ".join(sorted(_CHECKS))
        )
    return _no_others(value, schema) and all(check(value, schema[name]) for name, check in _CHECKS.items() if name in schema)


def is_text(schema: Schema) -> bool:
    """Whether a schema's values are texts, which an answer is as it stands; others are written in it as JSON."""
    return bool(schema["type"] == "string") if "type" in schema else _values_are_texts(schema)


def _values_are_texts(schema: Schema) -> bool:
    values = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
    return all(isinstance(value, str) for value in values) and bool(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _has_type(value: Any, kinds: Any) -> bool:
    return any(_TYPES[kind](value) for kind in ([kinds] if isinstance(kinds, str) else kinds))


def _same(value: Any, other: Any) -> bool:
    """Equality of JSON, where ``true`` is not 1."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _no_others(value: Any, schema: Schema) -> bool:
    """Whether the properties that are not named are as ``additionalProperties`` allows."""
    if not isinstance(value, dict):
        return True
    named = schema.get("properties", {})
    return all(follows(item, schema.get("additionalProperties", True)) for name, item in value.items() if name not in named)


_CHECKS: dict[str, Callable[[Any, Any], bool]] = {
    "type": _has_type,
    "enum": lambda value, allowed: any(_same(value, one) for one in allowed),
    "const": lambda value, only: _same(value, only),
    "anyOf": lambda value, schemas: any(follows(value, one) for one in schemas),
    "properties": lambda value, known: (
        not isinstance(value, dict) or all(follows(value[name], one) for name, one in known.items() if name in value)
    ),
    "required": lambda value, names: not isinstance(value, dict) or all(name in value for name in names),
    "items": lambda value, one: not isinstance(value, list) or all(follows(item, one) for item in value),
    "minItems": lambda value, least: not isinstance(value, list) or len(value) >= least,
    "maxItems": lambda value, most: not isinstance(value, list) or len(value) <= most,
    "minLength": lambda value, least: not isinstance(value, str) or len(value) >= least,
    "maxLength": lambda value, most: not isinstance(value, str) or len(value) <= most,
    "pattern": lambda value, pattern: not isinstance(value, str) or re.search(pattern, value) is not None,
    "minimum": lambda value, least: not _is_number(value) or value >= least,
    "maximum": lambda value, most: not _is_number(value) or value <= most,
}
