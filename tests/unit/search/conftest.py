"""A recipe to search over, and searches over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slmops.config import Recipe
from slmops.search.settings import Search
from slmops.sections import SearchSection

MakeSearch = Callable[..., Search]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "task_type": "classification",
            "output_path": tmp_path / "out",
            "data": {"source": {"name": "files", "train": "rows.csv"}},
            "teacher": {"model": "smollm2-135m-instruct", "tune": {"epochs": 2}},
            "training": {"objectives": [{"name": "cross_entropy", "weight": 0.3}, {"name": "forward_kl", "weight": 0.7}]},
        }
    )


@pytest.fixture
def make_search(recipe: Recipe) -> MakeSearch:
    """A search over ``space``; what else is given goes into its section."""

    def make(space: dict[str, Any], kind: str = "random", trials: int | None = 6, **section: Any) -> Search:
        strategy = {"type": kind, "num_trials": trials}
        return Search.of(recipe, SearchSection.model_validate({"space": space, "strategy": strategy, **section}))

    return make
