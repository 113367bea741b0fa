"""A training process that was killed and started again ends with the bytes of one that was not."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import killed_training
import pytest

PATIENCE_SECONDS = 90


@pytest.fixture(params=[False, True], ids=["answers", "own samples"])
def own(request: pytest.FixtureRequest) -> bool:
    """Whether the student learns from its own samples, some of which wait for their update when it is killed."""
    return bool(request.param)


@pytest.fixture
def killed_work(own: bool, tiny_model: Path, tmp_path: Path) -> Path:
    """What a process leaves behind that is killed with SIGKILL in the middle of its 7th update."""
    target, work = tmp_path / "model", tmp_path / "work"
    command = [sys.executable, killed_training.__file__, *map(str, (tiny_model, target, work, 7)), *(["own"] if own else [])]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not (work / "checkpoint-6" / "complete").is_file():
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                assert time.monotonic() < deadline, "no checkpoint in time"
                time.sleep(0.05)
        finally:
            process.kill()
    assert not target.exists()
    return work


def test_the_same_call_goes_on_to_the_same_bytes(killed_work: Path, own: bool, tiny_model: Path, tmp_path: Path) -> None:
    half_written = killed_work / "checkpoint-7"
    half_written.mkdir()
    (half_written / "trainer_state.json").write_text("{")

    killed_training.train(tiny_model, tmp_path / "model", killed_work, own=own)
    killed_training.train(tiny_model, tmp_path / "whole", tmp_path / "whole-work", own=own)
    resumed, whole = (tmp_path / name / "model.safetensors" for name in ("model", "whole"))
    assert resumed.read_bytes() == whole.read_bytes()
