"""What the tests of this folder share: one finished run of the whole line on the tiny model, and a quick way to run others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from slmops.export import onnx as converting
from slmops.export.onnx import FACTS, export_onnx
from slmops.files import read_json, write_json
from slmops.testing.tiny import save_tiny_model
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
        env={**os.environ, **environment},
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


@pytest.fixture(scope="session")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with room for real texts."""
    return save_tiny_model(tmp_path_factory.mktemp("long-model"), context=2048)


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """A conversion that is made once for each number of layers and length: what it makes of weights is another test's matter."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / "converted"  # one for all processes of xdist
    folder.mkdir(exist_ok=True)

    def convert(source: Path, target: Path, scheme: str, *, max_length: int) -> None:
        known = folder / f"{read_json(source / 'config.json')['num_hidden_layers']}-{max_length}"
        with FileLock(known.with_suffix(".lock")):
            if not known.is_dir():
                export_onnx(source, known, scheme, max_length=max_length)
        shutil.copytree(known, target, dirs_exist_ok=True)
        for file in (*source.glob("tokenizer*"), *source.glob("chat_template*")):
            shutil.copy(file, target / file.name)
        write_json(target / FACTS, {**read_json(target / FACTS), "scheme": scheme})

    return convert


@pytest.fixture
def quick(measured_here: None, converted: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Besides, convert once."""
    monkeypatch.setattr(converting, "export_onnx", converted)
