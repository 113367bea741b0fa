"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data sets beside the repository, which is no part of it."""
    folder = _REPOSITORY / ".." / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data sets beside the repository ({folder})")
    return folder.resolve()
