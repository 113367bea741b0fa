"""``slmops search``: try values of a recipe and keep the best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from slmops.commands import options as given
from slmops.commands.common import new_app
from slmops.config import load_any_recipe
from slmops.progress import duration
from slmops.recipes import find_recipe

app = new_app()


@app.command()
def search(
    recipe: given.RecipeName,
    overrides: given.RecipeValues = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            help="What varies: learning_rate=1e-5..1e-3:log, lora_r=8..64:step=8, batch_size=8,16,32; may be given again",
        ),
    ] = None,
    search_space: Annotated[
        Path | None, typer.Option("--search_space", "--config", exists=True, help="YAML file with search_space and search_strategy")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option("--strategy", help="random, grid or tpe (bayesian, optuna); left out: tpe")
    ] = None,
    num_trials: Annotated[
        int | None, typer.Option("--num_trials", help="Trials in all; left out: 20, of a grid every combination")
    ] = None,
    goal: Annotated[
        list[str] | None,
        typer.Option(
            "--goal",
            help="Measure to make better; left out: the task's own, of a fine-tuning validation_loss; several: a Pareto front",
        ),
    ] = None,
    row: Annotated[
        str | None, typer.Option("--row", help="Student that is trained: distilled, answers-only or control; left out: distilled")
    ] = None,
    prune: Annotated[
        str | None, typer.Option("--prune", help="How bad trials are stopped early: median, halving or none; left out: median")
    ] = None,
    study: Annotated[str | None, typer.Option("--study", help="Name of the study; left out: that of the row")] = None,
    output_path: given.OutputOfRun = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say how many trials, what varies and about how long, and stop")] = False,
    as_json: given.AsJson = False,
) -> None:
    """Try values of a recipe, measured on the validation rows, and write the best recipe; the same command continues.

    The recipe is one of a distillation or of a fine-tuning, such as "slmops finetune" leaves in its folder. Several processes may
    run the same command at once. A value is named by its dotted path, or by the end of it where that
    is unique: training and student are looked through first, then signals, answers, teacher and export.
    """
    from slmops.search.running import folder_of, plan_search, run_search
    from slmops.search.settings import read_search
    from slmops.search.space import read_flag

    values = [*(overrides or []), *([f"output_path={output_path}"] if output_path else [])]
    loaded = load_any_recipe(find_recipe(recipe), values)
    given: dict[str, Any] = {"type": strategy, "num_trials": num_trials, "goals": goal, "row": row, "prune": prune}
    wanted = read_search(loaded, search_space, given, dict(read_flag(text) for text in space or []))
    folder = folder_of(wanted, study)
    if plan:
        planned = plan_search(wanted, folder).as_dict()
        print(json.dumps(planned, ensure_ascii=False) if as_json else _plan_lines(planned))
        return
    standing = run_search(wanted, folder)
    if as_json:
        print(json.dumps(standing.as_dict(), ensure_ascii=False))
        return
    from slmops.search.page import render_table
    from slmops.search.results import BEST, PAGE

    print(render_table(standing))
    print(f"report  {folder / PAGE}\nbest    {folder / BEST}\nrun     slmops run {folder / BEST}")


def _plan_lines(planned: dict[str, Any]) -> str:
    from slmops.search.settings import TUNED

    width = max(len(path) for path in planned["space"])
    is_tuning = planned["row"] == TUNED
    goals = ", ".join(planned["goals"]) or ("validation_loss" if is_tuning else "the task's own measure")
    what = "the fine-tuning" if is_tuning else f"the student {planned['row']}"
    lines = [f"{planned['trials']} trials of {what} by {planned['strategy']}, towards {goals}"]
    lines += [f"  {path:<{width}}  {range}" for path, range in planned["space"].items()]
    if planned["seconds"] is None:
        lines.append("how long is known once the models are here")
    else:
        shared, trial = duration(planned["shared_seconds"]), duration(planned["trial_seconds"])
        whole = duration(planned["seconds"])
        lines.append(f"about {whole}: {shared} once, {trial} a trial that is not pruned, {planned['left']} to go")
    return "\n".join([*lines, f"study  {planned['folder']}"])
