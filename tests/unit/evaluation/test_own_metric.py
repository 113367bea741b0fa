"""Measures of the user's own: a function in a file, and a task that scores by itself."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from slmops.data.rows import Row
from slmops.errors import ConfigError
from slmops.evaluation.own_metric import own_measure
from slmops.evaluation.quality import Outputs, tallies, tally
from slmops.tasks.base import open_task

COSTS = '''
def metric(answer, reference, row):
    """Euros that a wrong route costs."""
    assert row["messages"][-1]["content"].startswith("text")
    return 0 if answer == reference else 5.0 if answer == "hot" else 1
metric.better = "lower"

def spread(answers, references):
    return len(set(answers)) / len(set(references))

def words(answer, reference, row):
    return "many"

def fails(answer, reference, row):
    raise KeyError(answer)

def odd(answer):
    return 1

def endless(answer, reference, row):
    return float("inf")
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "costs.py"
    path.write_text(COSTS, encoding="utf-8")
    return path


@pytest.fixture
def made() -> Outputs:
    task = open_task("classification", {"labels": ["hot", "cold"]})
    rows = [Row.of(f"text {number}", answer, f"t.jsonl:{number}") for number, answer in enumerate(("hot", "cold", "cold", "hot"))]
    return Outputs(task, rows, ["Hot.", "hot", "cold", "no idea"])


def test_a_function_of_a_row_is_asked_for_each_with_answers_in_their_normal_form(file: Path, made: Outputs) -> None:
    found = tally(str(file), made)
    assert found.scores is not None
    assert found.scores.tolist() == [0, 5, 0, 1]
    assert tallies(made, [f"{file}:metric"])[f"{file}:metric"].value == 1.5


def test_a_function_of_all_rows_has_a_value_and_no_interval(file: Path, made: Outputs) -> None:
    found = tally(f"{file}:spread", made)
    assert (found.value, found.whole) == (1.5, True)
    rng = np.random.default_rng(1)
    weights = rng.multinomial(4, [0.25] * 4, size=100)
    others = found.of(weights[(weights != 1).any(axis=1)] @ found.rows)
    assert np.isnan(others).all()
    assert math.isnan(found.take([0, 1, 2]).value)
    assert found.take([3, 2, 1, 0]).value == 1.5


def test_it_is_named_as_its_function_and_says_which_way_is_better(file: Path) -> None:
    costs, spread = own_measure(str(file)), own_measure(f"{file}:spread")
    assert (costs.title, costs.better, costs.help, costs.of_rows) == ("metric", "lower", "Euros that a wrong route costs.", "score")
    assert (spread.better, spread.of_rows) == ("higher", "")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("words", r"row t\.jsonl:0: the measure is 'many', which is no number"),
        ("fails", r"row t\.jsonl:0: the measure failed: KeyError"),
        ("odd", "it takes 1 arguments"),
        ("endless", "the measure is inf"),
        ("absent", "there is no function 'absent'"),
    ],
)
def test_what_is_wrong_with_a_function_is_said(file: Path, made: Outputs, name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        tally(f"{file}:{name}", made)


TASK = '''
from slmops.tasks.prompts import Prompted

class Lengths(Prompted):
    """Answers as long as the reference."""

    @property
    def primary_measure(self):
        return "accuracy"

    def score(self, answers, references):
        same = [len(a) == len(r) for a, r in zip(answers, references)]
        longest = max(map(len, answers)) / max(map(len, references))
        return {"accuracy": sum(same) / len(same), "chrf": longest}
'''


def test_a_task_of_ones_own_that_scores_by_itself_keeps_its_values(tmp_path: Path) -> None:
    (tmp_path / "lengths.py").write_text(TASK, encoding="utf-8")
    task = open_task(str(tmp_path / "lengths.py"), {})
    rows = [Row.of("a", "1234"), Row.of("b", "12")]
    found = tallies(Outputs(task, rows, ["abcd", "abc"]))
    assert {name: one.value for name, one in found.items()} == {"accuracy": 0.5, "chrf": 1.0}
    assert (found["accuracy"].whole, found["chrf"].whole) == (False, True)
