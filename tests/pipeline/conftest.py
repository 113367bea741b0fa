"""One finished run of the whole line on the tiny model, shared by the tests of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pipeline.tiny_line import write_recipe

REFUSE_SOCKETS = """
import os, socket

_connect, _lookup = socket.socket.connect, socket.getaddrinfo
_LOOPBACK = ("127.0.0.1", "::1", "localhost", None)

def _note(address):
    with open(os.environ["SLMOPS_TEST_SOCKETS"], "a") as file:
        file.write(f"{address}\\n")
    raise OSError(f"refused by the test: {address}")

def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in _LOOPBACK:
        _note(address)
    return _connect(self, address)

def getaddrinfo(host, *rest, **options):
    if host not in _LOOPBACK:
        _note(host)
    return _lookup(host, *rest, **options)

socket.socket.connect, socket.getaddrinfo = connect, getaddrinfo
"""


@dataclass(frozen=True)
class Run:
    """A run of the command line: its recipe, what it printed, and addresses it tried to reach."""

    recipe: Path
    stdout: str
    stderr: str
    sockets: Path

    @property
    def output(self) -> Path:
        return self.recipe.parent / "out"


def slmops(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "slmops", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2", **environment},
        check=False,
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    folder = tmp_path_factory.mktemp("line")
    guard = folder / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(REFUSE_SOCKETS)
    recipe = write_recipe(folder, tiny_model)
    sockets = folder / "sockets.txt"
    done = slmops("run", recipe, PYTHONPATH=str(guard), SLMOPS_TEST_SOCKETS=str(sockets))
    assert done.returncode == 0, done.stderr[-3000:]
    return Run(recipe, done.stdout, done.stderr, sockets)
