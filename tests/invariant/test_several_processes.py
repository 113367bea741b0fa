"""A fine-tuning by several processes is that by one: the same losses and weights, also when one of them was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import launched_command
import pytest
import torch
from safetensors.torch import load_file

from slmops.files import read_json
from tests.commands import Call

LABELS = ("delivery", "refund of the money", "account")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--main_process_port", "0")
FULL = ("--method", "full")
LORA = ("--method", "lora", "--lora_r", "4")

LOSSES = 1e-5
"""Losses of several processes and of one differ by no more, in nats."""

WEIGHTS = 1e-4
"""Nor do weights: Adam makes much of a gradient that is nearly zero, so a few differ by some hundredths of the learning rate."""


@pytest.fixture
def words(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A fine-tuning with batches of five rows, two an update, but for method and folder."""
    monkeypatch.setenv("SLMOPS_CACHE", str(tmp_path / "cache"))
    rows = [{"phrase": f"please {LABELS[n % 3]}" + " now" * (n % 4) + f" {n}", "tone": LABELS[n % 3]} for n in range(36)]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["--data_name", str(file), "--text_template", "{phrase} => {tone}"]
    steps = ["--max_steps", "6", "--batch_size", "5", "--gradient_accumulation_steps", "2", "--learning_rate", "5e-3"]
    exact = ["data.quality.language=any", "data.quality.near_duplicates=null", "training.precision=float32"]
    return ["finetune", "--model_name_or_path", str(tiny_model), *data, *steps, *exact, "training.checkpoint_seconds=0"]


def launch(launcher: tuple[str, ...], *words: object, processes: int = 2) -> subprocess.CompletedProcess[str]:
    count = ("--num_processes" if launcher is ACCELERATE else "--nproc_per_node", str(processes))
    command = [*launcher, *count, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)


def result(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    adapter = folder / "adapter/adapter_model.safetensors"
    return read_json(folder / "finetune.json"), load_file(adapter if adapter.is_file() else folder / "model/model.safetensors")


def assert_same(several: Path, one: Path) -> None:
    (facts, weights), (expected, whole) = result(several), result(one)
    for name in ("rows", "steps", "kept", "answer_tokens"):
        assert facts[name] == expected[name]
    assert [point["step"] for point in facts["curve"]] == [point["step"] for point in expected["curve"]]
    for name in ("loss", "validation"):
        losses = [point[name] for point in facts["curve"]]
        assert losses == pytest.approx([point[name] for point in expected["curve"]], abs=LOSSES)
    assert losses[-1] < losses[0]
    assert weights.keys() == whole.keys()
    for name in whole:
        torch.testing.assert_close(weights[name], whole[name], atol=WEIGHTS, rtol=0)


def test_torchrun_leaves_what_one_process_does(words: list[str], tmp_path: Path, call: Call) -> None:
    assert call(*words, *LORA, "--output_path", tmp_path / "one").code == 0
    done = launch(TORCHRUN, "-m", "slmops", *words, *LORA, "--output_path", tmp_path / "two")
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(tmp_path / "two", tmp_path / "one")
    assert done.stderr.count("[tuned] start") == done.stdout.count("method    lora") == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", [FULL, LORA], ids=["full", "lora"])
def test_one_that_is_killed_ends_all_and_the_same_command_goes_on(
    words: list[str], tmp_path: Path, call: Call, method: tuple[str, ...]
) -> None:
    assert call(*words, *method, "--output_path", tmp_path / "one").code == 0
    out = ["--output_path", tmp_path / "two"]
    killed = launch(TORCHRUN, launched_command.__file__, 3, "whole", *words, *method, *out)
    assert killed.returncode != 0
    assert "Signal 9" in killed.stderr, killed.stderr[-3000:]
    (checkpoints,) = (tmp_path / "two/artifacts").glob("tuned-*/work")
    assert (checkpoints / "checkpoint-3/complete").is_file()
    assert not (tmp_path / "two/finetune.json").exists()
    done = launch(TORCHRUN, "-m", "slmops", *words, *method, *out)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "[tuned] going on" in done.stderr
    assert_same(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_what_several_began_one_ends(words: list[str], tmp_path: Path, call: Call) -> None:
    assert call(*words, *FULL, "--output_path", tmp_path / "one").code == 0
    out = ["--output_path", tmp_path / "two"]
    assert launch(TORCHRUN, launched_command.__file__, 3, "whole", *words, *FULL, *out).returncode != 0
    assert call(*words, *FULL, *out).code == 0
    assert_same(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_accelerate_does_too_with_more_processes_than_the_last_batch_has_rows(words: list[str], tmp_path: Path, call: Call) -> None:
    few = [*words, "--batch_size", "2"]
    assert call(*few, *FULL, "--output_path", tmp_path / "one").code == 0
    done = launch(ACCELERATE, "-m", "slmops", *few, *FULL, "--output_path", tmp_path / "three", processes=3)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(tmp_path / "three", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("method", [FULL, LORA], ids=["full", "lora"])
def test_weights_that_are_spread_become_one_model_again(
    words: list[str], tmp_path: Path, call: Call, method: tuple[str, ...]
) -> None:
    """FSDP on processors, killed and resumed."""
    assert call(*words, *method, "--output_path", tmp_path / "one").code == 0
    out = ["--output_path", tmp_path / "two"]
    assert launch(TORCHRUN, launched_command.__file__, 3, "spread", *words, *method, *out).returncode != 0
    done = launch(TORCHRUN, launched_command.__file__, 0, "spread", *words, *method, *out)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "[tuned] going on" in done.stderr
    assert_same(tmp_path / "two", tmp_path / "one")
