"""Values of a recipe before they are validated: read, overridden from the command line, and where each comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from slmops.errors import ConfigError


def read_values(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The values of a recipe file with ``key=value`` overrides applied, not validated yet.

    Raises:
        ConfigError: No such file, not valid YAML, not a mapping, or an override that is no ``key=value``.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"the recipe cannot be read: {error.strerror}", where=str(path), fix="'slmops recipes' lists those shipped"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"not valid YAML: {error}", where=str(path)) from error
    if not isinstance(values, dict):
        raise ConfigError("a recipe is a mapping of keys to values", where=str(path))
    return with_overrides(values, overrides)


def with_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply ``key=value`` overrides, whose values are YAML, in place.

    Raises:
        ConfigError: An override that is no ``key=value``.
    """
    for override in overrides:
        _set(values, override)
    return values


def explain(complete: Mapping[str, Any], values: Mapping[str, Any], overrides: Sequence[str]) -> list[tuple[str, Any, str]]:
    """Every value as ``(dotted key, value, origin)``; origin is default, recipe or command line.

    Args:
        complete: With the defaults.
        values: As the recipe and the command line have them.
        overrides: ``key=value`` of the command line.
    """
    from_command_line = {override.partition("=")[0] for override in overrides}
    rows = []
    for key, value in _leaves(complete):
        if not _has(values, key):
            origin = "default"
        else:
            given = any(key == name or key.startswith(name + ".") for name in from_command_line)
            origin = "command line" if given else "recipe"
        rows.append((key, value, origin))
    return rows


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            rows += _leaves(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


def _has(values: Any, dotted: str) -> bool:
    for key in dotted.split("."):
        if not isinstance(values, Mapping) or key not in values:
            return False
        values = values[key]
    return True


def _set(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r} is not key=value", where="command line", fix="write for example training.epochs=2")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of {key} is not valid YAML: {error}", where="command line") from error
    set_value(values, key, value)


def set_value(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a value in place; sections on the way that are not there are made, a number counts into a list.

    Raises:
        ConfigError: A list has no such item.
    """
    *path, last = dotted.split(".")
    here: Any = values
    for part in path:
        key = _key(here, part, dotted)
        if isinstance(here, dict) and not isinstance(here.get(key), dict | list):
            here[key] = {}
        here = here[key]
    here[_key(here, last, dotted)] = value


def _key(values: Any, part: str, dotted: str) -> str | int:
    if isinstance(values, dict):
        return part
    if isinstance(values, list) and part.isdecimal() and int(part) < len(values):
        return int(part)
    known = f"the list has {len(values)} items, counted from 0" if isinstance(values, list) else f"{values!r} has no parts"
    raise ConfigError(f"no item {part!r}", where=dotted, fix=known)
