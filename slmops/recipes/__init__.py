"""Complete recipes that come with the package."""

from __future__ import annotations

from pathlib import Path

from slmops.errors import ConfigError, nearest


def shipped() -> dict[str, Path]:
    """Name to file of the recipes that come with the package."""
    return {file.stem: file for file in sorted(Path(__file__).parent.glob("*.yaml"))}


def find_recipe(reference: str) -> Path:
    """The file of a recipe: a path, or the name of one that comes with the package.

    Raises:
        ConfigError: Neither.
    """
    file = Path(reference)
    if file.is_file():
        return file
    known = shipped()
    name = file.stem if file.suffix == ".yaml" else reference
    if name in known:
        return known[name]
    raise ConfigError(f"no recipe {reference!r}", where="recipe", fix=f"give the path of a file, or a name; {nearest(name, known)}")
