"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import Call, Result

if TYPE_CHECKING:
    from slmops.data.templates import Template

# The tests' models are tiny: a second thread would only wait. It is read when torch is imported, here and in subprocesses.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_REPOSITORY = Path(__file__).parents[1]

# Files whose tests look at the same finished run, which takes minutes: one process makes it and runs them, before the others.
_LINE = tuple(f"tests/pipeline/test_{name}.py" for name in ("line", "killed", "own_teacher", "evaluate"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that all processes end at about the same time."""
    items.sort(key=lambda item: (not item.nodeid.startswith(_LINE), item.path.parent.name != "pipeline"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests run in one process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _LINE[0] if nodeid.startswith(_LINE) else nodeid.partition("::")[0]

    return ByFile(config, log)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data sets beside the repository, which is no part of it."""
    folder = _REPOSITORY / ".." / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data sets beside the repository ({folder})")
    return folder.resolve()


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process."""
    from slmops import cli

    def run(*words: object) -> Result:
        capsys.readouterr()
        code = 0
        try:
            cli.main([str(word) for word in words])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure in this process: a process a model takes most of the time."""
    from slmops.evaluation import measure as measuring
    from slmops.files import read_json, write_json

    def here(spec: measuring.MeasureSpec, folder: Path) -> Any:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "spec.json", spec.model_dump(mode="json"))
        measuring._run(spec, folder)
        return read_json(folder / measuring.RESULT)

    monkeypatch.setattr(measuring, "measure", here)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random language model with a tokenizer; not to be changed."""
    from slmops.testing.tiny import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def template(tiny_model: Path) -> Template:
    """The tiny model's tokenizer with the compact chat template."""
    from slmops.data.templates import choose_template
    from slmops.models.load import load_tokenizer

    return choose_template(load_tokenizer(tiny_model), "compact")
