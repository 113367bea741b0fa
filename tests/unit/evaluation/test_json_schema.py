"""What follows a JSON schema."""

from __future__ import annotations

from typing import Any

import pytest

from slmops.errors import ConfigError
from slmops.evaluation.json_schema import follows, is_text


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"type": "integer"}, [1, 2.0, -3], [1.5, True, "1"]),
        ({"type": ["number", "null"]}, [1.5, None], ["x", False]),
        ({"enum": ["a", 1]}, ["a", 1], ["b", True]),
        ({"const": 0}, [0], [False, 1]),
        ({"type": "string", "pattern": "^a", "minLength": 2, "maxLength": 3}, ["ab", "abc"], ["a", "abcd", "ba", 3]),
        (
            {"type": "array", "items": {"minimum": 0, "maximum": 9}, "minItems": 1, "maxItems": 2},
            [[0, 9]],
            [[], [10], [-1], [1, 1, 1]],
        ),
        (
            {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"], "additionalProperties": False},
            [{"x": "1"}],
            [{}, {"x": 1}, {"x": "1", "y": 2}, []],
        ),
        ({"type": "object", "additionalProperties": {"type": "null"}}, [{}, {"y": None}], [{"y": 1}]),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}], "title": "maybe"}, [None, True], [0]),
        (True, [1], []),
        (False, [], [1]),
    ],
)
def test_values_follow_a_schema_or_not(schema: Any, valid: list[Any], invalid: list[Any]) -> None:
    assert [follows(value, schema) for value in valid] == [True] * len(valid)
    assert [follows(value, schema) for value in invalid] == [False] * len(invalid)


def test_a_keyword_that_is_not_known_is_refused_rather_than_passed_over() -> None:
    with pytest.raises(ConfigError, match="'oneOf' is not known"):
        follows(1, {"oneOf": [{"type": "integer"}]})


def test_texts_and_labels_are_written_without_quotes() -> None:
    assert [is_text(schema) for schema in ({"type": "string"}, {"enum": ["a"]}, {"enum": [1]}, {"type": "object"}, {})] == [
        *(True, True),
        *(False, False, False),
    ]
