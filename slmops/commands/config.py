"""``slmops config explain``: each value of a recipe and where it comes from."""

from __future__ import annotations

import json

from slmops.commands import options as given
from slmops.commands.common import new_app
from slmops.config import Recipe, build
from slmops.recipes import find_recipe
from slmops.values import explain as explain_values
from slmops.values import read_values

app = new_app()


@app.callback()
def config() -> None:
    """Look into recipes."""


@app.command()
def explain(
    recipe: given.RecipeName,
    overrides: given.RecipeValues = None,
    as_json: given.AsJson = False,
) -> None:
    """Print each value of a recipe and its origin: default, recipe or command line."""
    file = find_recipe(recipe)
    values = read_values(file, overrides or [])
    rows = explain_values(build(Recipe, values, where=str(file)).model_dump(mode="json"), values, overrides or [])
    if as_json:
        print(json.dumps([{"key": key, "value": value, "origin": origin} for key, value, origin in rows]))
        return
    width = max(len(key) for key, _, _ in rows)
    for key, value, origin in rows:
        print(f"{key:<{width}}  {json.dumps(value, ensure_ascii=False)}  ({origin})")
