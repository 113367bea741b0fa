"""A search over a fine-tuning on the tiny model: what it leaves, that it goes on where it was killed, what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from slmops.files import read_json, read_jsonl
from tests.commands import Call
from tests.pipeline.conftest import slmops

LABELS = ("delivery", "refund", "account")
SPACE = """
search_strategy: {type: random_search, num_trials: 3}
search_space:
  learning_rate: {type: float, low: 1e-6, high: 1e-2, log: true}
  lora_r: {type: int, low: 2, high: 8}
  per_device_train_batch_size: {type: choice, values: [4, 8]}
"""
NAMES = ["training.learning_rate", "training.lora.r", "training.batch_size"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """As ``slmops finetune`` writes it."""
    folder = tmp_path_factory.mktemp("search-tuning")
    rows = [{"phrase": f"please {LABELS[n % 3]} number {n}", "tone": LABELS[n % 3]} for n in range(60)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "search.yaml").write_text(SPACE)
    source = {"name": "files", "train": str(folder / "train.jsonl"), "text_template": "{phrase} => {tone}"}
    values = {
        "name": "out",
        "task_type": "classification",
        "output_path": str(folder / "out"),
        "model": str(tiny_model),
        "data": {"source": source, "test_share": 0, "quality": {"language": "any", "near_duplicates": None}},
        "training": {"lora": {}, "max_steps": 8, "learning_rate": 5e-3, "precision": "float32", "checkpoint_seconds": 0.05},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return folder / "recipe.yaml"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMOPS_CACHE", str(tmp_path / "cache"))


def command(recipe: Path, *more: object) -> list[str]:
    return ["search", str(recipe), "--config", str(recipe.parent / "search.yaml"), "--prune", "none", *map(str, more)]


def study_of(recipe: Path, output: str = "out") -> Path:
    return recipe.parent / output / "search" / "tuned"


def outcome(folder: Path) -> list[Any]:
    return [(line["values"], line["goals"], line["curve"]) for line in read_jsonl(folder / "trials.jsonl")]


def begun(text: str, stage: str) -> int:
    return sum(line.startswith(f"[{stage}] ") and "done in" not in line for line in text.splitlines())


@pytest.fixture(scope="module")
def said(recipe: Path) -> str:
    """What an undisturbed search says."""
    done = slmops(*command(recipe))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_the_plan_says_how_much_there_is_to_do(recipe: Path, tmp_path: Path, call: Call) -> None:
    planned = json.loads(call(*command(recipe), "-o", tmp_path / "new", "--plan", "--json").out)
    assert (planned["trials"], planned["left"], planned["strategy"], planned["row"]) == (3, 3, "random", "tuned")
    assert planned["seconds"] is not None
    assert not (tmp_path / "new").exists()


def test_the_best_recipe_is_one_that_runs_and_is_trained_already(recipe: Path, said: str, call: Call) -> None:
    assert (begun(said, "data"), begun(said, "tuned")) == (1, 3)
    folder = study_of(recipe)
    lines, best = read_jsonl(folder / "trials.jsonl"), read_json(folder / "search.json")["best"]
    assert [list(line["values"]) for line in lines] == [NAMES] * 3
    assert lines[0]["values"]["training.learning_rate"] == 5e-3  # the recipe as it was
    assert best["goals"]["validation_loss"] == min(line["goals"]["validation_loss"] for line in lines)
    assert len({line["goals"]["validation_loss"] for line in lines}) == 3
    assert len(list((recipe.parent / "out" / "artifacts").glob("tuned-*"))) == 1
    run = call("run", folder / "best.yaml", "--json")
    assert run.code == 0, run.err
    assert begun(run.err, "tuned") == 0
    facts = json.loads(run.out)
    curve = [point["validation"] for point in facts["curve"]]
    assert best["goals"]["validation_loss"] == pytest.approx(min(curve), rel=1e-3)  # all nine rows are looked at on the way
    assert (recipe.parent / "out" / "adapter").is_dir()


@pytest.mark.slow
def test_a_killed_search_and_two_processes_end_as_one_undisturbed(recipe: Path, said: str) -> None:
    again = [sys.executable, "-m", "slmops", *command(recipe, "-o", recipe.parent / "again")]
    first = subprocess.Popen(again, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True)
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("[tuned] start"):
            os.killpg(first.pid, signal.SIGKILL)
            break
    first.wait()
    both = [subprocess.Popen(again, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert sum(begun(text, "tuned") for text in errors) == 3
    assert outcome(study_of(recipe, "again")) == outcome(study_of(recipe))


def test_a_measure_of_the_task_is_that_of_the_answers_to_the_validation_rows(recipe: Path, call: Call) -> None:
    space = ("--space", "lora_r=2,4", "--space", "learning_rate=5e-3", "--strategy", "grid", "--goal", "accuracy", "--study", "acc")
    done = call("search", recipe, *space, "-o", recipe.parent / "measured", "--json")
    assert done.code == 0, done.err[-3000:]
    facts = json.loads(done.out)
    assert (facts["rows"], facts["trials"]["complete"]) == (9, 2)
    assert facts["goals"][0]["name"] == "accuracy"
    low, high = facts["best"]["intervals"]["accuracy"]
    assert low <= facts["best"]["goals"]["accuracy"] <= high


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (("--goal", "latency_p50_ms"), "latency_p50_ms cannot be a goal of a fine-tuning"),
        (("--goal", "ece"), "ece"),
        (("--row", "control"), "a fine-tuning has no student 'control'"),
        (("--space", "merge=true,false"), "merge must be the same in every trial"),
        (("--space", "learningrate=1e-4..1e-3"), "did you mean 'learning_rate'"),
        (("--space", "epochs=-1,2"), "training.epochs=-1"),
        (("--strategy", "guess"), "'random', 'grid' or 'tpe'"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_a_trial(
    recipe: Path, tmp_path: Path, call: Call, more: tuple[str, ...], problem: str
) -> None:
    done = call(*command(recipe, "-o", tmp_path / "none", *more))
    assert done.code == 2
    assert problem in done.err
    assert not (tmp_path / "none" / "search").exists()
