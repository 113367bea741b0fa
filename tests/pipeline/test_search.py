"""A search on the tiny line: shared stages, a killed process, two at once, several goals, the control."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from slmops.config import load_recipe
from slmops.files import read_json, read_jsonl
from tests.commands import Call
from tests.pipeline.conftest import slmops
from tests.pipeline.tiny_line import write_recipe

PARITY = {"rows": 4, "min_agreement": 0, "max_drop": 1}
SPACE = ("--space", "learning_rate=1e-4..1e-2:log", "--space", "forward_kl.weight=0.3..0.9", "--space", "kd_temperature=1.0..3.0")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("search")
    recipe = write_recipe(folder, tiny_model)
    values = yaml.safe_load(recipe.read_text())
    values["training"] |= {"epochs": 2, "checkpoint_seconds": 0.1}
    values["data"]["quality"] = {"language": "any", "near_duplicates": None}
    recipe.write_text(yaml.safe_dump(values))
    return recipe


def command(recipe: Path, *more: object) -> list[str]:
    return ["search", str(recipe), *SPACE, "--strategy", "random", "--num_trials", "3", "--prune", "none", *map(str, more)]


@pytest.fixture(scope="module")
def searched(recipe: Path) -> subprocess.CompletedProcess[str]:
    done = slmops(*command(recipe))
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def study_of(recipe: Path, output: str = "out") -> Path:
    return recipe.parent / output / "search" / "distilled"


def begun(text: str, stage: str) -> int:
    return sum(line.startswith(f"[{stage}] ") and "done in" not in line for line in text.splitlines())


def test_trials_share_data_teacher_answers_and_signals(searched: subprocess.CompletedProcess[str]) -> None:
    shared = ("data", "teacher", "answers", "signals", "untuned", "pre-flight")
    assert {stage: begun(searched.stderr, stage) for stage in shared} == dict.fromkeys(shared, 1)
    assert begun(searched.stderr, "distilled") == begun(searched.stderr, "validation.distilled") == 3
    assert "ETA" in searched.stderr


def test_the_best_recipe_is_written_out_and_its_model_is_kept(recipe: Path, searched: subprocess.CompletedProcess[str]) -> None:
    folder = study_of(recipe)
    facts, lines = read_json(folder / "search.json"), read_jsonl(folder / "trials.jsonl")
    best = facts["best"]
    assert [line["number"] for line in lines] == [0, 1, 2]
    assert best["goals"]["accuracy"] == max(line["goals"]["accuracy"] for line in lines)
    assert lines[0]["values"]["training.learning_rate"] == 0.003  # the recipe as it was
    made = load_recipe(folder / "best.yaml")
    assert made.training.learning_rate == best["values"]["training.learning_rate"]
    assert made.training.objectives[1]["kd_temperature"] == best["values"]["training.objectives.1.kd_temperature"]
    assert f"* {best['number']}" in searched.stdout
    planned = slmops("run", folder / "best.yaml", "--plan", "--json")
    steps = {step["stage"]: step["state"] for step in json.loads(planned.stdout)}
    assert {steps[stage] for stage in ("data", "teacher", "answers", "signals", "distilled")} == {"done"}
    assert len(list((recipe.parent / "out" / "artifacts").glob("distilled-*"))) == 1


def test_quality_is_that_of_the_validation_rows(recipe: Path, searched: subprocess.CompletedProcess[str]) -> None:
    assert read_json(study_of(recipe) / "search.json")["rows"] == 12
    artifacts = [folder.name for folder in (recipe.parent / "out" / "artifacts").iterdir()]
    assert not [name for name in artifacts if name.startswith("measure")]


def test_a_killed_search_and_two_processes_end_as_one_undisturbed(recipe: Path, searched: subprocess.CompletedProcess[str]) -> None:
    output = recipe.parent / "again"
    for folder in (recipe.parent / "out" / "artifacts").iterdir():
        if folder.name.partition("-")[0] in ("data", "teacher", "answers", "signals", "untuned"):
            shutil.copytree(folder, output / "artifacts" / folder.name)
    again = [sys.executable, "-m", "slmops", *command(recipe, "-o", output)]
    first = subprocess.Popen(again, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True)
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("[distilled] start"):
            os.killpg(first.pid, signal.SIGKILL)
            break
    first.wait()
    both = [subprocess.Popen(again, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert all("[search] trial" in text for text in said)
    assert sum(begun(text, "distilled") for text in said) == 3

    def outcome(folder: Path) -> list[Any]:
        lines = [(line["values"], line["goals"], line["curve"]) for line in read_jsonl(folder / "trials.jsonl")]
        return [*lines, read_json(folder / "search.json")["best"]["number"]]

    assert outcome(study_of(recipe, "again")) == outcome(study_of(recipe))


def test_the_package_is_measured_where_a_goal_is_what_it_costs(
    recipe: Path, searched: subprocess.CompletedProcess[str], quick: None, call: Call
) -> None:
    goals = ("--goal", "accuracy", "--goal", "latency_p50_ms", "--goal", "size_mb")
    export = (f"export.parity={json.dumps(PARITY)}", "export.schemes=[int4]")
    space = ("--space", "learning_rate=1e-3,3e-3", "--strategy", "grid", "--study", "costs")
    done = call("search", recipe, *export, *space, *goals, "--json")
    assert done.code == 0, done.err[-3000:]
    folder = recipe.parent / "out" / "search" / "costs"
    lines = read_jsonl(folder / "trials.jsonl")
    assert [line["values"]["training.learning_rate"] for line in lines] == [0.001, 0.003]
    assert all(line["goals"]["latency_p50_ms"] > 0 and line["goals"]["size_mb"] > 0 for line in lines)
    front = json.loads(done.out)["front"]
    assert {file.name for file in (folder / "front").iterdir()} == {f"trial-{number}.yaml" for number in front}
    assert 'class="front"' in (folder / "search.html").read_text()


def test_the_control_has_the_same_search(recipe: Path, searched: subprocess.CompletedProcess[str], call: Call) -> None:
    done = call("search", recipe, "--row", "control", "--space", "learning_rate=3e-3,", "--strategy", "grid", "--json")
    assert done.code == 0, done.err[-3000:]
    assert json.loads(done.out)["trials"]["complete"] == 1
    (kept,) = (recipe.parent / "out" / "artifacts").glob("control-*")
    (distilled,) = list((recipe.parent / "out" / "artifacts").glob("distilled-*"))[:1]
    assert read_json(kept / "manifest.json")["facts"]["steps"] == read_json(distilled / "manifest.json")["facts"]["steps"]


def test_the_plan_says_how_much_there_is_to_do(recipe: Path, tmp_path: Path, call: Call) -> None:
    done = call(*command(recipe, "-o", tmp_path / "new"), "--plan", "--json")
    facts = json.loads(done.out)
    assert (facts["trials"], facts["left"], facts["strategy"]) == (3, 3, "random")
    assert facts["space"]["training.learning_rate"] == "0.0001 to 0.01, by logarithm"
    assert facts["seconds"] is not None
    assert not (tmp_path / "new").exists()
