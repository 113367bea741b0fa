"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from slmops.data.templates import Template

# The tests' models are tiny: a second thread would only wait. It is read when torch is imported, here and in subprocesses.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_REPOSITORY = Path(__file__).parents[1]


_SHARED = "finished"  # a fixture of minutes, made in one process only


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests run in one process, and what takes longest begins first."""
    for item in items:
        shares = _SHARED in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group(_SHARED if shares else str(item.path)))
    items.sort(key=_place)


def _place(item: pytest.Item) -> tuple[bool, bool]:
    return _SHARED not in getattr(item, "fixturenames", ()), item.path.parent.name != "pipeline"


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data sets beside the repository, which is no part of it."""
    folder = _REPOSITORY / ".." / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data sets beside the repository ({folder})")
    return folder.resolve()


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
