"""The benchmarks run from end to end; what they measure is no matter here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slmops.testing.tiny import save_tiny_model

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_generation_prints_a_ratio_for_each_comparison(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "tiny", seed=3)
    command = [sys.executable, str(ROOT / "benchmarks" / "generation.py"), "--model", str(tmp_path / "tiny"), "--json"]
    command += ["--prompts", "8", "--tokens", "8", "--rounds", "1", "--slow", "2", "--output_path", str(tmp_path / "runs")]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    compared = {row["against"]: row["speedup"] for row in result["results"]}
    assert {"one at a time, without OpenVINO", "engine driven bare"} <= set(compared)
    assert all(speedup > 0 for speedup in compared.values())
    assert result["agreement"]["with the slow loop"]["prompts"] == 2


@pytest.mark.slow
def test_signals_prints_bytes_and_distances_of_each_form(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "tiny", seed=3)
    command = [sys.executable, str(ROOT / "benchmarks" / "signals.py"), "--model", str(tmp_path / "tiny"), "--json"]
    command += ["--layers", "2", "--tokens", "400", "--validation_tokens", "60", "--steps", "2", "--gradient_batches", "1"]
    found = subprocess.run(
        [*command, "--output_path", str(tmp_path / "runs")], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    forms = {row["form"]: row for row in result["forms"]}
    assert {"dense", "top-32", "top-32 renormalised", "spaced 32", "independent 50"} <= set(forms)
    assert forms["dense"]["untrained"]["off"] == 0 < forms["dense"]["untrained"]["kl"]
    assert forms["top-12"]["untrained"]["off"] < forms["top-128"]["untrained"]["off"] < 0
    assert forms["top-12"]["bytes_per_token"] < forms["top-32"]["bytes_per_token"] < 2 * 384
    assert 0 < forms["spaced 32"]["gradient_cosine"]["all"] < forms["dense"]["gradient_cosine"]["all"] == pytest.approx(1)
    assert forms["spaced 32"]["validation_kl"]["kl"] > 0


@pytest.mark.slow
def test_distill_prints_a_ratio_for_each_comparison(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the extra 'benchmarks' is not installed")
    save_tiny_model(tmp_path / "tiny", seed=3)
    command = [sys.executable, str(ROOT / "benchmarks" / "distill.py"), "--model", str(tmp_path / "tiny"), "--json"]
    command += ["--layers", "2", "--rows", "64", "--steps", "2", "--rounds", "1", "--k", "8"]
    command += ["--output_path", str(tmp_path / "runs")]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    assert result["ours"]["computed"] < 1 <= result["ours"]["computed_padded"]
    compared = {row["what"]: row["value"] for row in result["results"]}
    assert set(compared) == {"speedup_training", "speedup", "memory", "loss"}
    assert compared["loss"] < 1e-5  # the same formula, mask and shift as TRL's
    assert compared["speedup"] < compared["speedup_training"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "compared"), [("lora", {"speedup", "memory", "loss"}), ("qlora", {"memory_qlora_8", "memory_qlora_4"})]
)
def test_finetune_prints_a_ratio_for_each_comparison(tmp_path: Path, method: str, compared: set[str]) -> None:
    pytest.importorskip("trl", reason="the extra 'benchmarks' is not installed")
    save_tiny_model(tmp_path / "tiny", seed=3)
    command = [sys.executable, str(ROOT / "benchmarks" / "finetune.py"), "--model", str(tmp_path / "tiny"), "--json"]
    command += ["--method", method, "--rows", "32", "--steps", "2", "--rounds", "1", "--batch_size", "4"]
    command += ["--olive", str(tmp_path / "none"), "--output_path", str(tmp_path / "runs")]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)["methods"][method]
    values = {row["what"]: row["value"] for row in result["results"]}
    assert set(values) == compared
    assert all(value > 0 for value in values.values())
    if method == "lora":
        assert "olive: not installed" in found.stderr
        # After five updates of a random model: no side has left out the answers, or trained on the prompts instead.
        assert values["loss"] == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_finetune_tasks_prints_a_row_for_each_method(tmp_path: Path, shared_data: Path) -> None:
    save_tiny_model(tmp_path / "tiny", seed=3, context=2048)
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "finetune_tasks.py"),
        "--data",
        str(shared_data),
        "--set",
        "tone",
        "--json",
    ]
    command += ["--model", str(tmp_path / "tiny"), "--method", "untuned", "--method", "qlora", "--rows", "24", "--test", "12"]
    command += ["--steps", "2", "--output_path", str(tmp_path / "runs")]
    environment = {**os.environ, "SLMOPS_CACHE": str(tmp_path / "cache")}
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    assert (result["set"], result["measure"], list(result["rows"])) == ("tone", "accuracy", ["untuned", "qlora"])
    tuned = result["rows"]["qlora"]
    assert tuned["interval"][0] <= tuned["score"] <= tuned["interval"][1]
    assert 0 < tuned["trainable"] < tuned["parameters"]
    assert (tuned["updates"], tuned["training_rows"]) == (2, 24)
    splits = [
        {json.loads(line)["question"].lower() for line in (tmp_path / f"runs/tone/data/{split}.jsonl").read_text().splitlines()}
        for split in ("train", "validation", "test")
    ]
    assert [len(split) for split in splits] == [24, 4, 12]
    assert len(set.union(*splits)) == 40
    again = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert again.stdout == found.stdout
    assert "start" not in again.stderr  # every stage is there


@pytest.mark.slow
def test_kept_layers_prints_the_losses_of_each_way_to_cut(tmp_path: Path, shared_data: Path) -> None:
    save_tiny_model(tmp_path / "tiny", seed=3, layers=4, context=2048)
    command = [sys.executable, str(ROOT / "benchmarks" / "kept_layers.py"), "--data", str(shared_data), "--set", "slots", "--json"]
    command += ["--model", str(tmp_path / "tiny"), "--layers", "3", "--rows", "40", "--steps", "8"]
    found = subprocess.run(
        [*command, "--output_path", str(tmp_path / "runs")], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    assert (result["set"], result["layers"]) == ("slots", 3)
    ways = result["ways"]
    assert [(way, len(row["layers"])) for way, row in ways.items()] == [
        ("first", 3),
        ("uniform", 3),
        ("importance", 3),
        ("copying", 3),
    ]
    assert ways["first"]["layers"] == [0, 1, 2]
    assert all(list(row["curve"]) == ["2", "4", "6", "8"] for row in ways.values())
    assert ways["first"]["curve"] != ways["uniform"]["curve"]


@pytest.mark.slow
def test_real_sets_prints_a_table_for_a_set(tmp_path: Path, shared_data: Path) -> None:
    save_tiny_model(tmp_path / "tiny", seed=3, context=2048)
    command = [sys.executable, str(ROOT / "benchmarks" / "real_sets.py"), "--data", str(shared_data), "--set", "nli", "--json"]
    command += ["--labelled", "24", "--pool", "24", "--test", "16", "--output_path", str(tmp_path / "runs")]
    command += [f"teacher.model={tmp_path / 'tiny'}", "student.layers=2", "teacher.tune.max_steps=2", "training.max_steps=2"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    assert (result["set"], result["measure"]) == ("nli", "accuracy")
    assert {"teacher", "control", "distilled"} <= set(result["rows"])


@pytest.mark.slow
def test_experiments_compares_students_of_several_seeds(tmp_path: Path, shared_data: Path) -> None:
    save_tiny_model(tmp_path / "tiny", seed=3, context=2048)
    command = [sys.executable, str(ROOT / "benchmarks" / "experiments.py"), "--data", str(shared_data), "--set", "nli", "--json"]
    command += ["--share", "0.06", "--seeds", "2", "--rates", "1e-3", "--size", "small", "--variant", "jsd"]
    command += ["--output_path", str(tmp_path / "runs"), f"teacher.model={tmp_path / 'tiny'}", "student.layers=2"]
    command += ["student.vocabulary=all", "teacher.tune.max_steps=2", "training.max_steps=2", "answers.min_success=0"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    assert list(result["rows"]) == ["untuned", "teacher", "control", "answers-only", "distilled", "jsd"]
    assert len(result["rows"]["control"]["seeds"]) == 2
    assert {(one["a"], one["b"]) for one in result["differences"]} >= {("distilled", "control"), ("jsd", "distilled")}
