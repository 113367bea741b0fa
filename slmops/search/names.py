"""The values of a recipe by name: dotted paths, and short names where they are unique.

A short name is the end of a path, its parts joined by dots or underscores: ``learning_rate``, ``lora_r``, ``forward_kl.weight``.
An item of a list of plug-ins counts by its name as well as by its number. The sections ``training`` and ``student`` are looked
through first, then ``signals``, ``answers``, ``teacher`` and ``export``; where the name is found first it must be unique.
Sections that a recipe leaves out come after all that it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from slmops.config import FinetuneRecipe, Recipe
from slmops.errors import UsageError, nearest
from slmops.sections import PluginSpec, Section

SECTIONS = ("training", "student", "signals", "answers", "teacher", "export")
_IN_ORDER = (SECTIONS[:2], *((one,) for one in SECTIONS[2:]))
_OBJECTIVES = ("training", "objectives")
_ALSO_CALLED = {
    "warmup_ratio": "warmup_share",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "train_batch_size": "batch_size",
    "lora_rank": "lora_r",
}
"""What transformers, PEFT and guides call a value."""

Path = tuple[str, ...]
Named = dict[Path, Path]
"""Paths of values, and the same with names of plug-ins in place of their numbers in a list."""


def find_path(name: str, recipe: Recipe | FinetuneRecipe) -> str:
    """The dotted path of a value that a search may vary.

    Args:
        name: A dotted path or a short name.
        recipe: With its defaults; what a section that is left out could have counts too.

    Raises:
        UsageError: Unknown, ambiguous, or a value that every trial must share.
    """
    known: Named = {}
    for more in (_said, _possible_of, _options):
        known |= more(recipe)
        if found := _find(name, known) or _find(_ALSO_CALLED.get(name, name), known):
            break
    if not found:
        varied = [names for path in known if path[0] in SECTIONS for names in (path, known[path])]
        names = {".".join(path) for path in varied} if "." in name else {path[-1] for path in varied}
        raise UsageError(f"no value {name!r} in the recipe", where=_WHERE, fix=nearest(name, names))
    if len(found) > 1:
        said = " or ".join(".".join(known[path][-2:]) for path in found)
        raise UsageError(f"{name!r} may be any of {', '.join('.'.join(path) for path in found)}", where=_WHERE, fix=f"write {said}")
    if found[0][0] not in SECTIONS:
        raise UsageError(
            f"{'.'.join(found[0])} must be the same in every trial, or they could not be compared",
            where=_WHERE,
            fix=f"vary what stands under {', '.join(name for name in SECTIONS if name in type(recipe).model_fields)}",
        )
    return ".".join(found[0])


_WHERE = "search.space"


def _find(name: str, known: Named) -> list[Path]:
    exact = [path for path in known if name in (".".join(path), ".".join(known[path]))]
    if exact:
        return exact
    others = {path[0] for path in known} - set(SECTIONS)
    for sections in (*_IN_ORDER, others):
        found = [path for path in known if path[0] in sections and name in _short_names(path, known[path])]
        if found:
            return found
    return []


def _said(recipe: Recipe | FinetuneRecipe) -> Named:
    """What a recipe has a value for."""
    weights: Named = {
        (*_OBJECTIVES, str(index), "weight"): (*_OBJECTIVES, str(spec.get("name")), "weight")
        for index, spec in enumerate(recipe.training.objectives)
    }
    return {**dict(_given(recipe.model_dump(mode="json"), (), ())), **weights}


def _possible_of(recipe: Recipe | FinetuneRecipe) -> Named:
    """What it leaves out and could have; a value that it has goes before one of the same name."""
    return dict(_possible(type(recipe), recipe.model_dump(mode="json"), ()))


def _given(values: Any, path: Path, names: Path) -> Iterator[tuple[Path, Path]]:
    """Every value of a recipe, sections and lists too."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield (*path, key), (*names, key)
            yield from _given(value, (*path, key), (*names, key))
    elif isinstance(values, list) and all(isinstance(value, Mapping) and "name" in value for value in values):
        for index, value in enumerate(values):
            yield from _given(value, (*path, str(index)), (*names, str(value["name"])))


def _possible(model: type[Section], values: Any, path: Path) -> Iterator[tuple[Path, Path]]:
    """What the sections that a recipe leaves out could have."""
    for name, field in model.model_fields.items():
        given = values.get(name) if isinstance(values, Mapping) else None
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if _is_section(kind)]
        for kind in kinds:
            yield from _possible(kind, given, (*path, name))
        if given is None:
            yield (*path, name), (*path, name)


def _options(recipe: Recipe | FinetuneRecipe) -> Named:
    """Options of objectives that a recipe leaves at their defaults; this loads the objectives."""
    return {
        (*_OBJECTIVES, str(index), option): (*_OBJECTIVES, str(spec["name"]), option)
        for index, spec in enumerate(recipe.training.objectives)
        for option in objective_defaults(spec)
    }


def objective_defaults(spec: PluginSpec) -> dict[str, Any]:
    """The options of an objective with their defaults; of one that is not registered, the weight alone."""
    from slmops.training.registry import OBJECTIVES

    fields = OBJECTIVES.get(spec["name"]).model_fields if spec.get("name") in OBJECTIVES.names() else {}
    return {"weight": 1.0, **{name: field.default for name, field in fields.items() if not field.is_required()}}


def _short_names(path: Path, names: Path) -> set[str]:
    """Ends of a path, joined by dots or underscores."""
    ends = [whole[start:] for whole in (path, names) for start in range(len(path))]
    return {joint.join(end) for end in ends for joint in "._"}


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)
