"""``kill -9`` in every stage, the same command again: the result is byte for byte that of an uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from slmops.files import file_digest
from tests.commands import Call
from tests.pipeline.conftest import Run
from tests.pipeline.tiny_line import write_recipe

STAGES = (
    "data",
    "teacher",
    "answers",
    "signals",
    "untuned",
    "distilled",
    "answers-only",
    "control",
    "floor.torch",
    "measure.teacher",
    "export.teacher-quantized.int4",
    "report",
)
SOME = ("answers", "distilled", "control")
"""Those that keep something of an interrupted run; killing every stage takes minutes."""
_PATIENCE_SECONDS = 120


def kill_in(stage: str, recipe: Path, delay: float) -> bool:
    """Run until a stage says it started, wait a little, kill the whole process group; whether it got that far."""
    command = [sys.executable, "-m", "slmops", "run", str(recipe)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    watchdog = threading.Timer(_PATIENCE_SECONDS, lambda: os.killpg(process.pid, signal.SIGKILL))
    watchdog.start()
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(f"[{stage}] ") and "done in" not in line:
                time.sleep(delay)
                os.killpg(process.pid, signal.SIGKILL)
                return True
        return False
    finally:
        process.wait()
        watchdog.cancel()


def contents(output: Path) -> dict[str, str]:
    """Digests of what training reads and makes, in the order in which one follows from the other."""
    digests = {}
    for stage, pattern in (
        ("teacher", "model/model.safetensors"),
        ("answers", "raw.json"),
        ("signals", "*.npy"),
        ("untuned", "model/model.safetensors"),
        ("distilled", "model/model.safetensors"),
        ("answers-only", "model/model.safetensors"),
        ("control", "model/model.safetensors"),
    ):
        (folder,) = (output / "artifacts").glob(f"{stage}-[0-9a-f]*")
        for file in sorted(folder.glob(pattern)):
            digests[f"{stage}/{file.name}"] = file_digest(file)
    return digests


@pytest.mark.parametrize("stages", [SOME, pytest.param(STAGES, marks=pytest.mark.slow)], ids=["some", "all"])
def test_a_run_killed_in_its_stages_ends_with_the_same_weights(
    finished: Run, tmp_path: Path, tiny_model: Path, quick: None, call: Call, stages: tuple[str, ...]
) -> None:
    recipe = write_recipe(tmp_path, tiny_model)
    for number, stage in enumerate(stages):
        assert kill_in(stage, recipe, delay=0.0 if number % 2 else 0.4), f"the run ended before {stage}"
    last = call("run", recipe)
    assert last.code == 0, last.err[-2000:]
    output = tmp_path / "out"
    killed, whole = contents(output), contents(finished.output)
    assert len(whole) == 11
    assert [name for name in whole if killed[name] != whole[name]] == []
    answers = [next((folder / "artifacts").glob("answers-[0-9a-f]*")) / "answers.jsonl" for folder in (output, finished.output)]
    lines = [[line.split('"origin"')[0] for line in file.read_text().splitlines()] for file in answers]
    assert lines[0] == lines[1]
