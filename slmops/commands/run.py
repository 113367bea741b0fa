"""``slmops run``: run or resume a recipe."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from slmops.commands.common import do, new_app, print_plan
from slmops.config import load_recipe
from slmops.recipes import find_recipe

app = new_app()


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="Path of a recipe, or the name of one that comes with the package")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values that replace the recipe's")
    ] = None,
    output_path: Annotated[Path | None, typer.Option("--output_path", "-o", help="Where everything of the run goes")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be done and why, and stop")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Run a recipe, or go on with it: what is done already is not done again."""
    values = [*(overrides or []), *([f"output_path={output_path}"] if output_path else [])]
    loaded = load_recipe(find_recipe(recipe), values)
    if plan:
        from slmops.pipeline import plan as plan_run

        steps = plan_run(loaded)
        print(json.dumps([asdict(step) for step in steps])) if as_json else print_plan(steps)
        return
    do(loaded, as_json=as_json)
