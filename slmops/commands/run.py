"""``slmops run``: run or resume a recipe, or a workflow of Olive's."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from slmops.commands import options as given
from slmops.commands.common import do, new_app, print_finetuned, print_plan
from slmops.commands.import_ import imported
from slmops.config import FinetuneRecipe, Recipe, build, is_finetuning
from slmops.errors import UsageError
from slmops.olive import is_workflow, missing
from slmops.progress import say
from slmops.recipes import find_recipe
from slmops.values import read_values, with_overrides

app = new_app()


@app.command()
def run(
    recipe: Annotated[
        str | None, typer.Argument(help="Path of a recipe, the name of one that comes with the package, or a workflow of Olive's")
    ] = None,
    overrides: given.RecipeValues = None,
    config: Annotated[str | None, typer.Option("--config", "--run-config", help="The same as RECIPE")] = None,
    setup: Annotated[bool, typer.Option("--setup", help="Say what is missing to run it, and stop")] = False,
    output_path: given.OutputOfRun = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be done and why, and stop")] = False,
    as_json: given.AsJson = False,
) -> None:
    """Run a recipe, or go on with it: what is done already is not done again."""
    if (config is None) == (recipe is None):
        if config is None or recipe is None or "=" not in recipe:
            raise UsageError("name one recipe", fix="slmops run RECIPE, or slmops run --config RECIPE")
        overrides, recipe = [recipe, *(overrides or [])], None
    path = find_recipe(str(recipe or config))
    changed = [*(overrides or []), *([f"output_path={output_path}"] if output_path else [])]
    values = read_values(path)
    if is_workflow(values):
        values = imported(path, values)
    values = with_overrides(values, changed)
    if setup:
        _setup(values, as_json)
        return
    if is_finetuning(values):
        _finetune(build(FinetuneRecipe, values, where=str(path)), plan=plan, as_json=as_json)
        return
    loaded = build(Recipe, values, where=str(path))
    if plan:
        from slmops.pipeline import plan as plan_run

        steps = plan_run(loaded)
        print(json.dumps([asdict(step) for step in steps])) if as_json else print_plan(steps)
        return
    do(loaded, as_json=as_json)


def _finetune(recipe: FinetuneRecipe, *, plan: bool, as_json: bool) -> None:
    from slmops import finetuning

    if plan:
        steps = finetuning.plan(recipe)
        print(json.dumps([asdict(step) for step in steps])) if as_json else print_plan(steps)
        return
    print_finetuned(finetuning.finetune(recipe), as_json)


def _setup(values: dict[str, Any], as_json: bool) -> None:
    """What is missing to run a recipe.

    Raises:
        UsageError: Something is.
    """
    from slmops.models.resolve import Pending, find

    absent = missing(values)
    for role in ("model", "teacher"):
        reference = values.get(role) if role == "model" else (values.get(role) or {}).get("model")
        if isinstance(reference, str):
            found = find(reference)
            if isinstance(found, Pending):
                say(f"{role} {reference}: not on this machine yet, fetched when it is run")
    if absent:
        raise UsageError("this cannot run yet:\n  " + "\n  ".join(absent), fix="get these, and ask again")
    print(json.dumps({"missing": []}) if as_json else "nothing is missing")
