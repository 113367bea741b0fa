"""JSON answers are read from fences, prose and cut-off text, and scored by field and value."""

from __future__ import annotations

import json

import pytest

from slmops.data.rows import Row
from slmops.errors import ConfigError
from slmops.tasks.base import AnswerError, open_task
from slmops.tasks.extraction import Extraction

TASK = open_task("extraction", {"fields": ["city", "day", "size"]})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"day": "Monday", "city": "Rome"}', {"city": "Rome", "day": "Monday"}),
        ('```json\n{"city": ["Rome"]}\n```', {"city": "Rome"}),
        ('Here it is: {"city": "Rome"} I hope it helps.', {"city": "Rome"}),
        ('{"city": "Rome", "day": ["Mon", "Tue"]', {"city": "Rome", "day": ["Mon", "Tue"]}),
        ('{"city": "Rome", "day": ["Mon", "Tu', {"city": "Rome", "day": "Mon"}),
        ('```json\n{"city": "Rome", "day": "Mo', {"city": "Rome"}),
        ('{"city": "a \\"b\\" {c", "day": ', {"city": 'a "b" {c'}),
        ('{"city": null, "day": "", "size": 2.0}', {"size": 2}),
        ("{}", {}),
    ],
)
def test_json_is_read_as_far_as_it_goes(text: str, values: dict[str, object]) -> None:
    assert json.loads(TASK.parse(text)) == values
    assert list(json.loads(TASK.parse(text))) == [name for name in ("city", "day", "size") if name in values]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Rome", "no JSON object: no JSON"),
        ('["Rome"]', "no JSON object: a list"),
        ('{"city": Rome}', "no JSON object: broken JSON"),
        ('{"town": "Rome"}', "unknown field: 'town'"),
        ("[" * 100_000, "no JSON object"),
        ('{"a":' * 50_000, "no JSON object"),
    ],
)
def test_other_texts_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(AnswerError, match=reason):
        TASK.parse(text)
    with pytest.raises(AnswerError, match="missing field: 'city'"):
        open_task("extraction", {"fields": ["city", "day"], "required": ["city"]}).parse('{"day": "Monday", "city": ""}')


def test_f1_is_over_pairs_of_field_and_value() -> None:
    gold = ['{"city": "Rome", "day": ["Mon", "Tue"]}', "{}"]
    assert TASK.score(['{"city": "rome", "day": "Tue", "size": 2}', "{}"], gold) == {
        "entity_f1": pytest.approx(2 * 2 / (3 + 3)),
        "exact_match": 0.5,
        "valid_share": 1.0,
    }
    assert TASK.score(["nothing", '{"city": "Rome"}'], gold)["entity_f1"] == 0.0
    assert TASK.correct('{"day": ["Tue", "Mon"], "city": "ROME"}', gold[0])
    assert not TASK.correct('{"day": ["Tue"], "city": "Rome"}', gold[0])
    assert TASK.correct('{"size": "2"}', '{"size": 2.0}')


def test_fields_come_from_the_data_where_the_recipe_names_none() -> None:
    answers = ['{"day": "Mon"}', "broken", '{"city": "Rome", "day": "Mon"}']
    assert Extraction.complete({}, answers) == {"fields": ["city", "day"]}
    assert Extraction.complete({"fields": ["x"]}, answers) == {"fields": ["x"]}
    with pytest.raises(ConfigError, match="a field is named twice"):
        open_task("extraction", {"fields": ["x", "x"]})
    assert "city, day, size" in TASK.ask(Row.of("to Rome on Monday"))[0]["content"]
