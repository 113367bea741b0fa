"""Which trials nothing beats, and what people are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slmops.artifact import MANIFEST
from slmops.config import load_recipe
from slmops.files import read_json, read_jsonl, write_json
from slmops.search.page import render_table
from slmops.search.results import BEST, PAGE, RESULT, TRIALS, pareto, write_results
from slmops.search.study import Study
from slmops.search.trials import Found, Trial
from tests.unit.search.conftest import MakeSearch

SPACE = {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}, "epochs": {"type": "int", "low": 1, "high": 9}}
REACHED = [(0.90, 50.0), (0.95, 80.0), (0.90, 60.0), (0.95, 80.0), (0.80, 20.0)]


def trial(number: int, **goals: float) -> Trial:
    return Trial(number, "complete", {}, goals, {}, None, [], 1.0, "", [])


def test_the_front_is_what_nothing_beats_in_every_goal() -> None:
    trials = [trial(number, accuracy=accuracy, size_mb=size) for number, (accuracy, size) in enumerate(REACHED)]
    assert [one.number for one in pareto(trials, ("accuracy", "size_mb"))] == [0, 1, 3, 4]
    assert [one.number for one in pareto(trials, ("accuracy",))] == [1, 3]
    assert [one.number for one in pareto(trials, ("size_mb",))] == [4]
    faster = [trial(0, accuracy=0.9, requests_per_s=5.0), trial(1, accuracy=0.9, requests_per_s=9.0)]
    assert [one.number for one in pareto(faster, ("accuracy", "requests_per_s"))] == [1]
    assert pareto([], ("accuracy",)) == []


@pytest.fixture
def study(make_search: MakeSearch, tmp_path: Path) -> Study:
    """Five complete trials of two goals, with a model each, and a failed one."""
    search = make_search(SPACE, goals=["accuracy", "size_mb"])
    study = Study.open(tmp_path / "study", search, search.goals)
    for number, (accuracy, size) in enumerate(REACHED):
        write_json(search.recipe.output_path / "artifacts" / f"distilled-{number}" / MANIFEST, {})
        with study.next() as running:
            goals = {"accuracy": accuracy, "size_mb": size}
            running.finish(Found(goals, {"accuracy": (accuracy - 0.06, 1.0)}, 0.5 - 0.1 * number, [f"distilled-{number}"]), 61.0)
    with study.next() as running:
        running.give_up("failed", "the loss is nan <b>", 1.0)
    return study


def test_everything_is_written(study: Study) -> None:
    standing = write_results(study, 200)
    facts: dict[str, Any] = read_json(study.folder / RESULT)
    assert facts == json.loads(json.dumps(standing.as_dict()))
    assert facts["best"]["number"] == 3  # of two equal ones the one with the lower validation loss
    assert (facts["front"], facts["not_told_apart"]) == ([3, 1, 0, 4], [0, 1, 2])
    assert facts["trials"] == {"wanted": 6, "complete": 5, "pruned": 0, "failed": 1, "running": 0}
    assert [line["state"] for line in read_jsonl(study.folder / TRIALS)] == ["complete"] * 5 + ["failed"]
    assert load_recipe(study.folder / BEST).training.learning_rate == facts["best"]["values"]["training.learning_rate"]
    assert {file.name for file in (study.folder / "front").iterdir()} == {f"trial-{number}.yaml" for number in (0, 1, 3, 4)}


def test_models_of_beaten_trials_are_removed_and_those_of_the_last_run_kept(study: Study) -> None:
    root = study.search.recipe.output_path
    write_json(root / "run.json", {"stages": {"other": "distilled-7"}})
    write_results(study, 200)
    assert {folder.name for folder in (root / "artifacts").iterdir()} == {f"distilled-{number}" for number in (0, 1, 3, 4)}


def test_a_model_that_the_last_run_has_is_kept(study: Study) -> None:
    root = study.search.recipe.output_path
    write_json(root / "run.json", {"stages": {"distilled": "distilled-2"}})
    write_results(study, 200)
    assert (root / "artifacts" / "distilled-2").is_dir()


def test_the_page_opens_offline_and_shows_texts_as_texts(study: Study) -> None:
    write_results(study, 200)
    page = (study.folder / PAGE).read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    for outside in ("http://", "https://", "<script", "<b>"):
        assert outside not in page.replace("http://www.w3.org", "")
    assert "Best: trial 3, accuracy 0.950, size 80.0 on 200 validation rows" in page
    assert 'class="front"' in page
    assert "No trial has seen the test rows" in page


def test_the_table_has_the_best_first_and_says_what_failed(study: Study) -> None:
    lines = render_table(write_results(study, 200)).splitlines()
    first = [line[1:4] for line in lines if line.endswith("1 min 01 s")]
    assert first == ["* 3", "+ 1", "  2", "+ 0", "+ 4"]
    assert "trial 5 failed: the loss is nan <b>" in lines
