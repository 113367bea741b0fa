"""A search is checked before anything is trained, wherever it is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from slmops.config import Recipe, load_recipe
from slmops.errors import ConfigError, UsageError
from slmops.search.settings import read_search
from tests.unit.search.conftest import MakeSearch

RATE = {"learning_rate": {"type": "float", "low": "1e-6", "high": "1e-3", "log": True}}
AS_PEOPLE_WRITE_IT = """
search_strategy: {type: random, num_trials: 7}
search_space: {learning_rate: {type: float, low: 1e-6, high: 1e-3, log: true}, lora_r: {type: int, low: 8, high: 64},
  batch_size: {type: choice, values: [8, 16, 32]}}
"""


def test_a_space_may_stand_in_a_file_in_the_recipe_or_at_its_top(recipe: Recipe, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(AS_PEOPLE_WRITE_IT)
    alone = read_search(recipe, file, {}, {})
    assert list(alone.space) == ["training.learning_rate", "training.lora.r", "training.batch_size"]
    assert (alone.section.strategy.type, alone.trials) == ("random", 7)
    values = {**recipe.model_dump(mode="json", exclude_defaults=True), **yaml.safe_load(AS_PEOPLE_WRITE_IT)}
    whole = tmp_path / "recipe.yaml"
    whole.write_text(yaml.safe_dump(values))
    assert read_search(load_recipe(whole), None, {}, {}).facts == alone.facts


def test_the_command_line_wins_over_the_file(recipe: Recipe, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(AS_PEOPLE_WRITE_IT)
    given = {"type": "tpe", "num_trials": None, "goals": ["accuracy", "latency_ms"], "row": None}
    found = read_search(recipe, file, given, {"batch_size": {"type": "choice", "values": [4]}})
    assert (found.section.strategy.type, found.trials) == ("tpe", 7)
    assert found.space["training.batch_size"].grid() == [4]
    assert found.goals == ("accuracy", "latency_p50_ms")
    assert found.packaged


@pytest.mark.parametrize(
    ("space", "more", "problem"),
    [
        ({}, {}, "nothing varies"),
        ({"lr": RATE["learning_rate"]}, {}, "no value 'lr'"),
        ({**RATE, "training.learning_rate": RATE["learning_rate"]}, {}, "is named twice"),
        (RATE, {"goals": ["acuracy"]}, "unknown measure 'acuracy'\n.*did you mean 'accuracy'"),
        ({"epochs": {"type": "float", "low": -1, "high": 3}}, {}, r"with training\.epochs=-1.*greater than 0"),
        ({"layers": {"type": "choice", "values": [2, "many"]}}, {}, r"student\.layers"),
        ({"schemes": {"type": "choice", "values": [["int8"]]}}, {}, "no goal is measured of the converted model"),
        ({"schemes": {"type": "choice", "values": [["int7"]]}}, {"goals": ["size_mb"]}, "unknown name 'int7'"),
        (
            {"forward_kl.weight": {"type": "float", "low": 0.1, "high": 1}},
            {"row": "control"},
            "changes nothing: the student control",
        ),
        ({"k": {"type": "int", "low": 2, "high": 8}}, {"row": "answers-only"}, "changes nothing"),
        (RATE, {"kind": "grid"}, "cannot try every number"),
        ({"max_steps": {"type": "int", "low": 1, "high": 20000}}, {"kind": "grid"}, "a grid of more than 10,000"),
    ],
)
def test_a_search_that_cannot_work_is_refused(make_search: MakeSearch, space: dict, more: dict, problem: str) -> None:
    with pytest.raises((UsageError, ConfigError), match=problem):
        make_search(space, **more).combinations  # noqa: B018  # a property that checks


def test_a_grid_is_every_combination_in_order(make_search: MakeSearch) -> None:
    space = {"batch_size": {"type": "choice", "values": [8, 4]}, "epochs": {"type": "int", "low": 1, "high": 3}}
    search = make_search(space, "grid", None)
    assert search.combinations == [(8, 1), (8, 2), (8, 3), (4, 1), (4, 2), (4, 3)]
    assert search.trials == 6
    assert make_search(space, "grid", 4).trials == 4


def test_sampled_values_make_a_recipe_like_any_other(make_search: MakeSearch) -> None:
    search = make_search({"lora_r": {"type": "int", "low": 2, "high": 8}, "kd_temperature": {"type": "float", "low": 1, "high": 4}})
    made = search.recipe_with({"training.lora.r": 4, "training.objectives.1.kd_temperature": 2.5})
    assert made.training.lora is not None
    assert (made.training.lora.r, made.training.lora.alpha) == (4, 32)
    assert made.training.objectives[1] == {"name": "forward_kl", "weight": 0.7, "kd_temperature": 2.5}
    assert search.recipe.training.lora is None
    assert search.values_of(search.recipe) == {"training.lora.r": None, "training.objectives.1.kd_temperature": 1.0}


@pytest.mark.parametrize(
    ("written", "strategy"),
    [
        ("{type: random, num_trials: 20}", "random"),
        ("random_search", "random"),
        ("{type: RandomSampler}", "random"),
        ("{type: grid-search}", "grid"),
        ("{type: Grid}", "grid"),
        ("{type: bayesian}", "tpe"),
        ("bayesian_optimization", "tpe"),
        ("{type: optuna}", "tpe"),
        ("{type: TPESampler}", "tpe"),
    ],
)
def test_strategies_have_the_names_that_people_write(recipe: Recipe, tmp_path: Path, written: str, strategy: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(f"search_strategy: {written}\nsearch_space: {{batch_size: {{type: choice, values: [8, 16]}}}}\n")
    assert read_search(recipe, file, {}, {}).section.strategy.type == strategy


def test_a_number_with_an_exponent_is_a_number(recipe: Recipe, tmp_path: Path) -> None:
    """``1e-6`` is a text to YAML 1.1, which wants a point."""
    file = tmp_path / "space.yaml"
    file.write_text(AS_PEOPLE_WRITE_IT.replace("[8, 16, 32]}", "[8]}, weight_decay: {type: choice, values: [1e-2, 0]}"))
    found = read_search(recipe, file, {}, {}).space
    assert found["training.learning_rate"].model_dump() == {"type": "float", "low": 1e-6, "high": 1e-3, "log": True, "points": None}
    assert found["training.weight_decay"].grid() == [0.01, 0]
