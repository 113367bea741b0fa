"""The loop of a search: trial after trial, each written down before the next begins; and what a search would need."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.config import FinetuneRecipe
from slmops.errors import ConfigError, DataError, MissingExtraError, ModelError, TrainingError, UsageError
from slmops.estimate import estimate_trial, estimate_tuning, matmul_rate
from slmops.evaluation.measures import COSTS
from slmops.evaluation.outputs import Outputs
from slmops.evaluation.quality import tally
from slmops.models.sizes import parameters_after_cut
from slmops.pipeline import here, models_of, references
from slmops.preflight import check_extras, check_machine, check_names, check_objectives, check_teacher
from slmops.progress import duration, say
from slmops.search.page import said, shown
from slmops.search.settings import LOSSES, Search
from slmops.stages.context import DataContext, rows_of
from slmops.stages.preparing import open_source
from slmops.workspace import Abandoned, Workspace

if TYPE_CHECKING:
    from slmops.search.results import Standing
    from slmops.search.study import Running
    from slmops.stages.learning import Lesson

_FOLDER = "search"


@dataclass(frozen=True)
class SearchPlan:
    """What a search would do: trials that are left, and about how many seconds; ``None`` where a model is not here yet."""

    trials: int
    left: int
    shared_seconds: float | None
    trial_seconds: float | None
    facts: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For ``--plan --json``."""
        known = self.shared_seconds is not None and self.trial_seconds is not None
        seconds = round((self.shared_seconds or 0) + self.left * (self.trial_seconds or 0)) if known else None
        times = {"shared_seconds": self.shared_seconds, "trial_seconds": self.trial_seconds, "seconds": seconds}
        return {"trials": self.trials, "left": self.left, **times, **self.facts}


def folder_of(search: Search, name: str | None) -> Path:
    """Where a study lies: beside the run's artifacts, which its trials share."""
    return search.recipe.output_path / _FOLDER / (name or search.row)


def plan_search(search: Search, folder: Path) -> SearchPlan:
    """What :func:`run_search` would do; nothing is written and no model is fetched."""
    shared, trial = _expected(search)
    ended = _lines(folder)
    if ended:
        shared, trial = 0.0, sum(line["seconds"] for line in ended) / len(ended)
    facts = {
        "strategy": search.section.strategy.type,
        "row": search.row,
        "goals": list(search.goals),
        "prune": search.section.prune,
        "space": {path: dimension.describe() for path, dimension in search.space.items()},
        "folder": str(folder),
    }
    return SearchPlan(search.trials, max(0, search.trials - len(ended)), shared, trial, facts)


def run_search(search: Search, folder: Path) -> Standing:
    """Run a search, or go on with it; several processes may do so at once.

    Args:
        search: What it does.
        folder: Of the study.

    Raises:
        MissingExtraError: Optuna is not installed.
        UsageError: The study in this folder is another, or a goal is no measure of the task.
        TrainingError: No trial is complete, and the message has the reason of the first; or the recipe's own values would train
            on nothing.
    """
    if find_spec("optuna") is None:
        raise MissingExtraError("optuna", "search")
    from slmops.search.results import write_results
    from slmops.search.study import Study

    goals, rows = _ready(search, folder)
    study = Study.open(folder, search, goals)
    while True:
        with study.next() as trial:
            if trial is None:
                break
            _run(trial)
            with study.locked():
                standing = write_results(study, rows)
            _say_state(standing, trial)
        # A trainer and its model hold each other: without this, trials would add up in memory.
        gc.collect()
    with study.locked():
        standing = write_results(study, rows)
    if running := [trial for trial in standing.trials if trial.state == "running"]:
        say(f"[search] {len(running)} trials are under way in other processes, which write the results again")
    elif standing.best is None:
        raise TrainingError("no trial is complete", where=str(folder), fix=f"trial 0: {standing.trials[0].why}")
    return standing


def _expected(search: Search) -> tuple[float | None, float | None]:
    """Seconds of what trials share, and of one; ``None`` where the model is not here yet."""
    recipe = search.recipe
    rows = open_source(DataContext(recipe, Workspace(recipe.output_path, planning=True))).read()
    if isinstance(recipe, FinetuneRecipe):
        model, answered = here(recipe.model), any(goal not in LOSSES for goal in search.goals)
        if model is None:
            return None, None
        return 0.0, estimate_tuning(recipe, rows, model.parameters, matmul_rate(), answered=answered)
    check_teacher(recipe)
    teacher, student = (here(reference) for reference in references(recipe))
    if student is None:
        return None, None
    sizes = (teacher.parameters if teacher else 0, parameters_after_cut(student, recipe.student.layers))
    return estimate_trial(recipe, rows, *sizes, matmul_rate(), packaged=search.packaged)


def _ready(search: Search, folder: Path) -> tuple[tuple[str, ...], int]:
    """The goals and the number of validation rows, once everything is checked and what trials share is made."""
    recipe = search.recipe
    if isinstance(recipe, FinetuneRecipe):
        from slmops.search.tuning import goals_of

        return goals_of(search, begun=folder.is_dir())
    check_names(recipe)
    check_teacher(recipe)
    check_extras(recipe)
    check_objectives(recipe)
    if not folder.is_dir():
        check_machine(recipe, *models_of(recipe))
    from slmops.search.trying import learn

    lesson, _ = learn(recipe)
    goals = _goals(search, lesson)
    if search.row == "distilled":
        lesson.rehearse(search.trials)
    return goals, len(rows_of(lesson.data, "validation"))


def _goals(search: Search, lesson: Lesson) -> tuple[str, ...]:
    """The goals, each of which can be measured of this task."""
    if search.row == "control" and not lesson.gold.training:
        raise ConfigError("no training row is labelled, so there is no control", where="search.row", fix="search for distilled")
    task, rows = lesson.context.task(lesson.data), rows_of(lesson.data, "validation")
    if not rows:
        raise DataError("there are no validation rows to compare trials on", where="data", fix="give some: data.validation_share")
    goals = search.goals or (task.primary_measure,)
    for goal in goals:
        if goal not in (*COSTS, *LOSSES):
            tally(goal, Outputs(task, rows, [str(row.answer) for row in rows]))
    return goals


def _run(trial: Running) -> None:
    from slmops.search.trying import try_values
    from slmops.search.tuning import try_tuning

    attempt = try_tuning if isinstance(trial.study.search.recipe, FinetuneRecipe) else try_values
    study = trial.study
    values = ", ".join(f"{path}={said(value)}" for path, value in trial.values.items())
    say(f"[search] trial {trial.number} of {study.search.trials}: {values}")
    started = time.monotonic()
    if (same := trial.same) is not None:
        trial.finish(same.found, 0.0)
        return
    try:
        found = attempt(study.search, study.goals, trial.values, trial.watch)
    except Abandoned as reason:
        trial.give_up("pruned", str(reason), _since(started))
    except (ConfigError, UsageError, TrainingError, ModelError) as error:
        trial.give_up("failed", str(error).replace("\n", " "), _since(started))
    else:
        unknown = [goal for goal in study.goals if found.goals[goal] != found.goals[goal]]
        if unknown:
            trial.give_up("failed", f"{unknown[0]} says nothing of its answers", _since(started))
        else:
            trial.finish(found, _since(started))


def _since(started: float) -> float:
    return round(time.monotonic() - started, 1)


def _say_state(standing: Standing, trial: Running) -> None:
    own, best, goals = standing.trials[trial.number], standing.best, standing.study.goals
    what = ", ".join(f"{goal} {shown(goal, own.goals[goal])}" for goal in goals) if own.goals else f"{own.state}: {own.why}"
    lead = f"; best so far trial {best.number}: {goals[0]} {shown(goals[0], best.goals[goals[0]])}" if best else ""
    ended = [known.seconds or 0.0 for known in standing.trials if known.state != "running"]
    working = max(1, sum(known.state == "running" for known in standing.trials) + 1)
    left = (standing.study.search.trials - len(ended)) * sum(ended) / len(ended) / working
    say(f"[search] trial {trial.number}: {what} in {duration(own.seconds or 0)}{lead}{f'; ETA {duration(left)}' if left else ''}")


def _lines(folder: Path) -> Sequence[dict[str, Any]]:
    from slmops.files import read_jsonl
    from slmops.search.results import TRIALS

    file = folder / TRIALS
    return [line for line in read_jsonl(file) if line["state"] != "running"] if file.is_file() else []
