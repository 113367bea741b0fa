"""What a search does: the recipe, what varies, how, towards what."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

from slmops.config import FinetuneRecipe, Recipe, build
from slmops.errors import UsageError
from slmops.evaluation.measures import COSTS, MEASURES, measure_name
from slmops.preflight import check_names
from slmops.search.names import find_path, objective_defaults
from slmops.search.space import Choice, FloatRange, IntRange, read_dimension
from slmops.sections import ComparisonSection, SearchSection
from slmops.values import read_values, set_value

TUNED = "tuned"
"""The model that a fine-tuning trains, and the stage in which it does."""

LOSSES = ("validation_loss", "perplexity")
"""Goals that are the validation loss in nats, and its exponential."""

_TRIALS = 20
_LARGEST_GRID = 10_000
_UNREAD = {"control": ("training.objectives", "signals"), "answers-only": ("training.objectives", "signals")}
"""What a student does not learn from, so that varying it changes nothing."""


@dataclass(frozen=True)
class Search:
    """A checked search.

    Args:
        recipe: Whose values are varied; without its own section ``search``.
        section: How they are.
        space: What is varied, by dotted path.
        goals: Names in the table of measures; empty: the task's own measure.
    """

    recipe: Recipe | FinetuneRecipe
    section: SearchSection
    space: Mapping[str, FloatRange | IntRange | Choice]
    goals: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, recipe: Recipe | FinetuneRecipe, section: SearchSection) -> Search:
        """Check a search against its recipe; names of values become dotted paths.

        Raises:
            UsageError: Nothing varies, a name is unknown or ambiguous, a goal is no measure, or a value has no effect.
            ConfigError: A range is none, or the recipe refuses one of its ends.
        """
        if not section.space:
            fix = "write a space into the recipe or a file, or --space learning_rate=1e-5..1e-3:log"
            raise UsageError("nothing varies", where="search.space", fix=fix)
        plain = recipe.model_copy(update={"search": None})
        space: dict[str, FloatRange | IntRange | Choice] = {}
        for name, spec in section.space.items():
            path = find_path(name, plain)
            if path in space:
                raise UsageError(f"{path} is named twice", where=f"search.space.{name}")
            space[path] = read_dimension(name, spec)
        made = cls(plain, section, space, tuple(dict.fromkeys(measure_name(goal) for goal in section.goals)))
        made._check()
        return made

    @property
    def row(self) -> str:
        """Which student is trained in a trial; of a fine-tuning there is one, ``tuned``."""
        return TUNED if isinstance(self.recipe, FinetuneRecipe) else self.section.row

    @property
    def confidence(self) -> float:
        """Of the intervals over the validation rows."""
        return (self.recipe.evaluation if isinstance(self.recipe, Recipe) else ComparisonSection()).confidence

    @property
    def packaged(self) -> bool:
        """Whether a goal is what the packaged model costs, so that every trial is converted and measured."""
        return any(goal in COSTS and goal != "parameters" for goal in self.goals)

    @property
    def trials(self) -> int:
        """How many trials there will be."""
        most = math.prod(len(values) for values in self._grid_values) if self.section.strategy.type == "grid" else _TRIALS
        wanted = self.section.strategy.num_trials or most
        return min(wanted, most) if self.section.strategy.type == "grid" else wanted

    @cached_property
    def combinations(self) -> list[tuple[Any, ...]]:
        """Every combination of a grid, the last value changing fastest."""
        return list(product(*self._grid_values))

    @property
    def _grid_values(self) -> list[list[Any]]:
        return [dimension.grid() for dimension in self.space.values()]

    @property
    def facts(self) -> dict[str, Any]:
        """What a study is bound to; the number of trials may grow."""
        return {
            "recipe": self.recipe.model_dump(mode="json", exclude={"output_path", "evaluation", "gates", "name"}),
            "space": {path: dimension.model_dump(mode="json") for path, dimension in self.space.items()},
            "strategy": self.section.strategy.type,
            "goals": list(self.goals),
            "row": self.row,
            "prune": self.section.prune,
        }

    def values_of(self, recipe: Recipe | FinetuneRecipe) -> dict[str, Any]:
        """What a recipe has for the values that vary, by its defaults too; ``None`` where its section is left out."""
        whole = recipe.model_dump(mode="json")
        for spec in whole["training"]["objectives"]:
            spec.update({**objective_defaults(spec), **spec})
        return {path: _get(whole, path) for path in self.space}

    def recipe_with(self, values: Mapping[str, Any]) -> Recipe | FinetuneRecipe:
        """The recipe with some of its values, checked as any other.

        Raises:
            ConfigError: It refuses one.
            UsageError: A value names what there is not.
        """
        whole = copy.deepcopy(self.recipe.model_dump(mode="json"))
        for path, value in values.items():
            set_value(whole, path, value)
        said = ", ".join(f"{path}={value}" for path, value in values.items())
        recipe = build(type(self.recipe), whole, where=f"with {said}")
        if isinstance(recipe, Recipe):
            check_names(recipe)
        return recipe

    def _check(self) -> None:
        if isinstance(self.recipe, FinetuneRecipe):
            self._check_tuning()
        for path, dimension in self.space.items():
            for top in _UNREAD.get(self.row, ()):
                if path == top or path.startswith(f"{top}."):
                    raise UsageError(
                        f"{path} changes nothing: the student {self.row} learns by cross-entropy alone",
                        where="search.space",
                        fix="leave it out, or search for --row distilled",
                    )
            if path.startswith("export.") and not self.packaged:
                raise UsageError(
                    f"{path} changes nothing: no goal is measured of the converted model",
                    where="search.space",
                    fix="add a goal such as --goal size_mb, or leave it out",
                )
            ends = dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)
            for value in ends:
                self.recipe_with({path: value})
        if self.section.strategy.type == "grid" and math.prod(map(len, self._grid_values)) > _LARGEST_GRID:
            raise UsageError(f"a grid of more than {_LARGEST_GRID:,} combinations", where="search.space", fix="give fewer points")

    def _check_tuning(self) -> None:
        if self.section.row != "distilled":
            raise UsageError(
                f"a fine-tuning has no student {self.section.row!r}", where="search.row", fix="leave it out: one model is trained"
            )
        if costs := [goal for goal in self.goals if goal in COSTS]:
            raise UsageError(
                f"{', '.join(costs)} cannot be a goal of a fine-tuning, which converts and times no model",
                where="search.goals",
                fix="take validation_loss, or a measure of the task",
            )


def read_search(
    recipe: Recipe | FinetuneRecipe, file: Path | None, given: Mapping[str, Any], flags: Mapping[str, Mapping[str, Any]]
) -> Search:
    """A search as the recipe, a file of its own and the command line say it; what comes later in this order wins.

    Args:
        recipe: Its section ``search`` counts.
        file: A YAML file with the keys of that section (``search_space``, ``search_strategy``, ...).
        given: Values of the section from the command line; ``None`` is not given.
        flags: Dimensions from the command line, beside those of the section.

    Raises:
        SlmopsError: As :meth:`Search.of`.
    """
    values: dict[str, Any] = recipe.search.model_dump(mode="json") if recipe.search else {}
    if file is not None:
        read = read_values(file)
        values |= build(SearchSection, read.get("search", read), where=str(file)).model_dump(mode="json", exclude_unset=True)
    strategy = {key: given[key] for key in ("type", "num_trials") if given.get(key) is not None}
    values["strategy"] = {**values.get("strategy", {}), **strategy}
    values |= {key: value for key, value in given.items() if key not in ("type", "num_trials") and value}
    values["space"] = {**values.get("space", {}), **flags}
    return Search.of(recipe, build(SearchSection, values, where="search"))


def goal_direction(goal: str) -> Literal["maximize", "minimize"]:
    """``maximize`` or ``minimize``, as the table of measures says."""
    return "maximize" if MEASURES[goal].better == "higher" else "minimize"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Sequence[str]:
    """Which parts of :attr:`Search.facts` are not the same."""
    return [key for key in now if before.get(key) != now[key]]


def _get(values: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(values, list):
            values = values[int(part)] if part.isdecimal() and int(part) < len(values) else None
        else:
            values = values.get(part) if isinstance(values, Mapping) else None
    return values
