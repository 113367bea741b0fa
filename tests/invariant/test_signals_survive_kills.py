"""Signals whose taking was killed with SIGKILL: finished chunks are reused, and the files are those of an uninterrupted run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import killed_signals
import pytest

from slmops.errors import FingerprintError
from slmops.signals.store import INDEX, SignalStore

PATIENCE_SECONDS = 90
NEVER = "1000"


def take(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, killed_signals.__file__, *arguments], stderr=subprocess.PIPE, text=True)


def kill_when(process: subprocess.Popen[str], done: Callable[[], bool]) -> None:
    """SIGKILL as soon as ``done()`` is true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        while not done():
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline, "it never came so far"
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.suffix in (".npy", ".json")}


@pytest.mark.parametrize("form", ["sampled", *(pytest.param(name, marks=pytest.mark.slow) for name in ("topk", "layers"))])
def test_killed_in_a_chunk_and_while_writing(form: str, tiny_model: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    ended = take(str(tiny_model), str(whole), form, "row", NEVER)
    assert ended.wait(PATIENCE_SECONDS) == 0, ended.communicate()[1]

    def chunks() -> list[Path]:
        found = sorted((killed / "work").glob("chunk-*.npz"))
        return [file for file in found if ".layers" not in file.name]

    kill_when(take(str(tiny_model), str(killed), form, "chunk", "2"), lambda: len(chunks()) == 2)
    before = {file: file.stat().st_mtime_ns for file in chunks()}
    kill_when(take(str(tiny_model), str(killed), form, "row", "10"), (killed / "reached").exists)
    assert len(chunks()) == (5 if form == "layers" else 4)  # the distributions of all chunks are written by then
    assert not (killed / INDEX).exists()
    assert list(killed.glob(".*.tmp")), "it was not killed while writing"

    again = take(str(tiny_model), str(killed), form, "row", NEVER)
    assert again.wait(PATIENCE_SECONDS) == 0, again.communicate()[1]
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert contents(killed) == contents(whole)
    assert len(contents(whole)) == {"topk": 6, "sampled": 7, "layers": 10}[form]
    store = SignalStore.open(killed, killed_signals.FINGERPRINTS)
    assert all(len(store.get(row)) for row in killed_signals.ROWS)
    with pytest.raises(FingerprintError, match="another teacher"):
        SignalStore.open(killed, {"teacher": "u"})
