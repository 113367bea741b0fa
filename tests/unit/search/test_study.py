"""A study: what is drawn, what is pruned, and that a killed process loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slmops.errors import UsageError
from slmops.search.study import Study
from slmops.search.trials import Found, Trial
from slmops.workspace import Abandoned
from tests.unit.search.conftest import MakeSearch

SPACE = {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}, "epochs": {"type": "int", "low": 1, "high": 9}}
GRID = {"batch_size": {"type": "choice", "values": [8, 4]}, "epochs": {"type": "int", "low": 1, "high": 2}}


def work(study: Study, trials: int = 100) -> list[Trial]:
    """Run so many trials, whose accuracy is highest at a learning rate of 1e-3."""
    for _ in range(trials):
        with study.next() as trial:
            if trial is None:
                break
            rate = trial.values.get("training.learning_rate", 1e-3)
            trial.finish(Found({"accuracy": 1 - abs(rate - 1e-3)}, {"accuracy": (0.0, 1.0)}, 0.5, ["distilled-1"]), 2.0)
    return study.trials()


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_values_do_not_depend_on_where_a_study_was_interrupted(make_search: MakeSearch, tmp_path: Path, kind: str) -> None:
    search = make_search(SPACE, kind, 5)
    whole = work(Study.open(tmp_path / "whole", search, ["accuracy"]))
    for _ in range(2):
        parts = work(Study.open(tmp_path / "parts", search, ["accuracy"]), 3)
    assert len(whole) == 5
    assert [trial.values for trial in parts] == [trial.values for trial in whole]
    assert len({str(trial.values) for trial in whole}) == 5


def test_the_first_trial_is_the_recipe_itself_where_the_space_has_it(make_search: MakeSearch, tmp_path: Path) -> None:
    first = work(Study.open(tmp_path, make_search(SPACE), ["accuracy"]))[0]
    assert first.values == {"training.learning_rate": 5e-4, "training.epochs": 3}


def test_a_grid_is_tried_in_its_order(make_search: MakeSearch, tmp_path: Path) -> None:
    trials = work(Study.open(tmp_path, make_search(GRID, "grid", None), ["accuracy"]))
    assert [tuple(trial.values.values()) for trial in trials] == [(8, 1), (8, 2), (4, 1), (4, 2)]


def test_what_a_trial_reached_is_read_again(make_search: MakeSearch, tmp_path: Path) -> None:
    search = make_search(SPACE, trials=2)
    study = Study.open(tmp_path, search, ["accuracy"])
    with study.next() as trial:
        trial.watch(0.5, 0.7)
        trial.give_up("failed", "the loss is nan", 1.5)
    work(study)
    failed, complete = Study.open(tmp_path, search, ["accuracy"]).trials()
    assert (failed.state, failed.why, failed.seconds, failed.goals, failed.curve) == (
        "failed",
        "the loss is nan",
        1.5,
        {},
        [(0.5, 0.7)],
    )
    assert (complete.state, complete.loss, complete.made) == ("complete", 0.5, ["distilled-1"])
    assert complete.intervals == {"accuracy": (0.0, 1.0)}


def test_a_study_of_another_search_is_not_gone_on_with(make_search: MakeSearch, tmp_path: Path) -> None:
    Study.open(tmp_path, make_search(SPACE), ["accuracy"])
    Study.open(tmp_path, make_search(SPACE, trials=30), ["accuracy"])  # more trials are welcome
    with pytest.raises(UsageError, match="its space, strategy changed"):
        Study.open(tmp_path, make_search(GRID, "grid"), ["accuracy"])
    with pytest.raises(UsageError, match="its goals changed"):
        Study.open(tmp_path, make_search(SPACE), ["accuracy", "size_mb"])


@pytest.mark.parametrize("prune", ["median", "halving", "none"])
def test_a_bad_trial_is_pruned_unless_that_is_off(make_search: MakeSearch, tmp_path: Path, prune: str) -> None:
    study = Study.open(tmp_path, make_search(SPACE, prune=prune), ["accuracy"])
    for loss in (0.5, 0.6, 0.7, 0.8):
        with study.next() as trial:
            for share in (0.25, 0.5, 0.75, 1.0):
                if prune != "halving" or loss == 0.5:
                    trial.watch(share, loss)
            trial.finish(Found({"accuracy": 1 - loss}, {}, loss, []), 1.0)
    with study.next() as trial:
        trial.watch(0.125, 5.0)  # too early to say
        if prune == "none":
            trial.watch(0.25, 5.0)
        else:
            with pytest.raises(Abandoned, match=r"validation loss 5\.000 after 25%"):
                trial.watch(0.25, 5.0)


def test_a_good_trial_is_not_pruned(make_search: MakeSearch, tmp_path: Path) -> None:
    study = Study.open(tmp_path, make_search(SPACE), ["accuracy"])
    for loss in (0.5, 0.6, 0.7, 0.8, 0.4):
        with study.next() as trial:
            for share in (0.25, 0.5, 0.75, 1.0):
                trial.watch(share, loss)
            trial.finish(Found({"accuracy": 1 - loss}, {}, loss, []), 1.0)
    assert [trial.state for trial in study.trials()] == ["complete"] * 5


def test_importance_names_the_value_that_matters(make_search: MakeSearch, tmp_path: Path) -> None:
    few = Study.open(tmp_path / "few", make_search(SPACE, trials=8), ["accuracy"])
    work(few)
    assert few.importance() is None
    study = Study.open(tmp_path / "enough", make_search(SPACE, trials=12), ["accuracy"])
    work(study)
    shares = study.importance()
    assert shares is not None
    assert shares["training.learning_rate"] > 0.6
    assert sum(shares.values()) == pytest.approx(1)


HOLD = """
import sys, time
from pathlib import Path
from slmops.config import Recipe
from slmops.sections import SearchSection
from slmops.search.settings import Search
from slmops.search.study import Study

recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
section = SearchSection.model_validate_json(Path(sys.argv[2]).read_text())
study = Study.open(Path(sys.argv[3]), Search.of(recipe, section), ["accuracy"])
with study.next() as trial:
    trial.watch(0.25, 0.5)
    print(trial.number, flush=True)
    time.sleep(60)
"""


def test_the_trial_of_a_killed_process_is_taken_up_by_the_next_and_no_other(make_search: MakeSearch, tmp_path: Path) -> None:
    search = make_search(SPACE, trials=3)
    (tmp_path / "recipe.json").write_text(search.recipe.model_dump_json())
    (tmp_path / "search.json").write_text(search.section.model_dump_json())
    folder = tmp_path / "study"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, *map(str, (tmp_path / "recipe.json", tmp_path / "search.json", folder))],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "0\n"
        study = Study.open(folder, search, ["accuracy"])
        with study.next() as trial:
            assert trial.number == 1  # the first one is under way
            trial.finish(Found({"accuracy": 0.5}, {}, None, []), 1.0)
        held = study.trials()[0]
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        with study.next() as trial:
            assert (trial.number, trial.values) == (0, held.values)
            trial.watch(0.25, 0.4)  # from a checkpoint before
            trial.finish(Found({"accuracy": 0.6}, {}, None, []), 1.0)
    finally:
        other.kill()
        other.wait()
    assert study.trials()[0].curve == [(0.25, 0.4)]
    assert [trial.state for trial in work(study)] == ["complete"] * 3
