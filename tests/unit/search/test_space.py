"""What may vary, as people write it."""

from __future__ import annotations

from typing import Any

import pytest

from slmops.errors import ConfigError, UsageError
from slmops.search.space import read_dimension, read_flag


@pytest.mark.parametrize(
    ("text", "name", "spec"),
    [
        ("learning_rate=1e-5..1e-3:log", "learning_rate", {"type": "float", "low": "1e-5", "high": "1e-3", "log": True}),
        ("lora_r=8..64:step=8", "lora_r", {"type": "int", "low": "8", "high": "64", "step": "8"}),
        ("kd_temperature=1..4:float:points=4", "kd_temperature", {"type": "float", "low": "1", "high": "4", "points": "4"}),
        ("batch_size=8,16", "batch_size", {"type": "choice", "values": [8, 16]}),
        ("training.lora={r: 8},null", "training.lora", {"type": "choice", "values": [{"r": 8}, None]}),
    ],
)
def test_the_command_line_says_the_same_as_yaml(text: str, name: str, spec: dict[str, Any]) -> None:
    assert read_flag(text) == (name, spec)
    read_dimension(name, spec)


@pytest.mark.parametrize("text", ["learning_rate", "=1..2", "learning_rate=", "x=[1"])
def test_a_flag_that_is_neither_range_nor_choice_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--space"):
        read_flag(text)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"type": "float", "low": 1, "high": 1}, r"low \(1\) must be below high \(1\)"),
        ({"type": "float", "low": 0, "high": 1, "log": True}, "log needs low above zero"),
        ({"type": "int", "low": 1, "high": 9, "log": True, "step": 2}, "log and step do not go together"),
        ({"type": "int", "low": 1.5, "high": 9}, "low: Input should be a valid integer"),
        ({"type": "float", "low": 0, "hgh": 1}, "hgh: Extra inputs"),
        ({"type": "normal", "low": 0, "high": 1}, "type: .*'float', 'int', 'choice'"),
        ({"low": 0, "high": 1}, "type: Unable to extract tag"),
        ({"type": "choice", "values": []}, "values: "),
        ({"type": "float", "low": 0, "high": float("inf")}, "must be below"),
    ],
)
def test_what_is_no_range_is_refused_with_its_name(spec: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"search\.space\.lr: .*{problem}"):
        read_dimension("lr", spec)


def test_a_grid_tries_the_ends_and_what_lies_evenly_between() -> None:
    rates = read_dimension("x", {"type": "float", "low": "1e-5", "high": "1e-3", "log": True, "points": 3})
    assert rates.grid() == [1e-5, 1e-4, 1e-3]
    assert read_dimension("x", {"type": "float", "low": 0, "high": 1, "points": 5}).grid() == [0, 0.25, 0.5, 0.75, 1]
    assert read_dimension("x", {"type": "int", "low": 2, "high": 9, "step": 3}).grid() == [2, 5, 8]
    assert read_dimension("x", {"type": "int", "low": 1, "high": 64, "log": True, "points": 4}).grid() == [1, 4, 16, 64]
    assert read_dimension("x", {"type": "choice", "values": ["b", "a"]}).grid() == ["b", "a"]
    with pytest.raises(UsageError, match="cannot try every number"):
        read_dimension("x", {"type": "float", "low": 0, "high": 1}).grid()


def test_what_is_drawn_becomes_a_short_value_inside_the_range() -> None:
    rate = read_dimension("x", {"type": "float", "low": 0.00012345, "high": 1})
    assert rate.value(0.123456789) == 0.1235
    assert rate.value(0.00012345) == 0.00012345
    either = read_dimension("x", {"type": "choice", "values": [{"r": 8}, None, "a", True]})
    assert [either.value(either.drawn(value)) for value in either.grid()] == [{"r": 8}, None, "a", True]


def test_a_number_with_an_exponent_is_one_in_a_choice_too() -> None:
    assert read_dimension(*read_flag("learning_rate=1e-3,2E4,3.0e-1,e5,a")).grid() == [1e-3, 2e4, 0.3, "e5", "a"]


def test_the_recipes_own_value_is_known_where_the_range_has_it() -> None:
    steps = read_dimension("x", {"type": "int", "low": 2, "high": 10, "step": 4})
    assert [steps.drawn(value) for value in (2, 6.0, 8, 14, None, True, 2.5)] == [2, 6, None, None, None, None, None]
    rate = read_dimension("x", {"type": "float", "low": 1, "high": 2})
    assert [rate.drawn(value) for value in (1, 1.5, 3, None, "a")] == [1.0, 1.5, None, None, None]
