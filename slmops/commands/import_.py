"""``slmops import``: a workflow of Olive's as a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from slmops.commands.common import new_app, run_name
from slmops.config import FinetuneRecipe, build
from slmops.errors import ConfigError
from slmops.files import write_text
from slmops.olive import is_workflow, to_recipe
from slmops.progress import say
from slmops.values import read_values

app = new_app()


@app.command(name="import")
def import_(
    workflow: Annotated[Path, typer.Argument(help="A file of Olive's, YAML or JSON, whose pass trains an adapter")],
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="The recipe")] = Path("recipe.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the recipe as one JSON object too")] = False,
) -> None:
    """Write the recipe that does what a workflow of Olive's does; what is not carried over is said."""
    values = read_values(workflow)
    if not is_workflow(values):
        raise ConfigError("this is no workflow of Olive's", where=str(workflow), fix="such a file has input_model and passes")
    recipe = imported(workflow, values)
    build(FinetuneRecipe, recipe, where=str(workflow))
    write_text(output_path, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    print(json.dumps(recipe, ensure_ascii=False) if as_json else f"recipe  {output_path}\nrun     slmops run {output_path}")


def imported(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a workflow; what is understood otherwise is said."""
    found = to_recipe(values, run_name(path.with_suffix("")), str(path))
    for note in found.notes:
        say(f"  {note}")
    return found.values
