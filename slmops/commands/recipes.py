"""``slmops recipes``: what comes with the package."""

from __future__ import annotations

from typing import Annotated

import typer

from slmops.commands.common import new_app
from slmops.recipes import find_recipe, shipped

app = new_app()


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(help="Print this recipe")] = None) -> None:
    """List the recipes that come with the package, or print one."""
    if name is not None:
        print(find_recipe(name).read_text(encoding="utf-8"), end="")
        return
    for known, file in shipped().items():
        first = file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        print(f"{known:<20} {first}\n{'':<20} {file}")
