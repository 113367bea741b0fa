"""What a study leaves behind: ``trials.jsonl``, ``best.yaml``, ``front/``, ``search.json`` and ``search.html``.

``search.json`` has these keys:

- ``schema_version``, ``name`` (of the recipe), ``row`` (which student), ``strategy``, ``prune``;
- ``goals``: ``name``, ``title``, ``unit`` and ``better`` of each, the one that decides first;
- ``space``: what varied, by dotted path, as in a recipe; ``recipe``: the recipe's own values of these;
- ``rows``: validation rows; ``confidence``: of the intervals;
- ``trials``: how many are ``wanted``, ``complete``, ``pruned``, ``failed``, ``running``; ``seconds``: of all that ended;
- ``best``: the line of the best trial in ``trials.jsonl``, or null; ``front``: numbers of the trials that none beats;
- ``not_told_apart``: trials whose first goal lies within the best one's interval, the best left out;
- ``importance``: share of the first goal's differences by path (PED-ANOVA), or null.

A line of ``trials.jsonl`` has ``number``, ``state``, ``values``, ``goals``, ``intervals``, ``validation_loss``, ``seconds`` (of the
process that finished it), ``why`` and ``curve`` (share of the training, validation loss).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from slmops.artifact import MANIFEST
from slmops.config import save_recipe
from slmops.evaluation.measures import MEASURES
from slmops.files import read_json, write_json, write_jsonl, write_text
from slmops.search.settings import goal_direction
from slmops.search.study import Study
from slmops.search.trials import Trial
from slmops.workspace import remove_tree

SCHEMA_VERSION = 1
TRIALS, BEST, FRONT, RESULT, PAGE = "trials.jsonl", "best.yaml", "front", "search.json", "search.html"


@dataclass(frozen=True)
class Standing:
    """A study at a moment.

    Args:
        study: The study.
        trials: All of them.
        rows: Validation rows.
    """

    study: Study
    trials: Sequence[Trial]
    rows: int

    @cached_property
    def front(self) -> list[Trial]:
        """Complete trials that no other one beats, the best first."""
        goals = self.study.goals
        found = pareto([trial for trial in self.trials if trial.state == "complete"], goals)
        return sorted(found, key=lambda trial: _rank(trial, goals))

    @cached_property
    def best(self) -> Trial | None:
        """The best by the first goal; of equals by the other goals, the validation loss, and the first."""
        front = self.front
        return front[0] if front else None

    @cached_property
    def importance(self) -> dict[str, float] | None:
        """As :meth:`Study.importance`."""
        return self.study.importance()

    @property
    def not_told_apart(self) -> list[int]:
        """Trials whose first goal lies within the best one's interval."""
        best, goal = self.best, self.study.goals[0]
        if best is None or goal not in best.intervals:
            return []
        low, high = best.intervals[goal]
        others = (trial for trial in self.trials if trial.state == "complete" and trial.number != best.number)
        return [trial.number for trial in others if low <= trial.goals[goal] <= high]

    def as_dict(self) -> dict[str, Any]:
        """The content of ``search.json``."""
        search, goals, best = self.study.search, self.study.goals, self.best
        counts = Counter(trial.state for trial in self.trials)
        return {
            "schema_version": SCHEMA_VERSION,
            "name": search.recipe.name,
            "row": search.row,
            "strategy": search.section.strategy.type,
            "prune": search.section.prune,
            "goals": [
                {"name": goal, "title": MEASURES[goal].title, "unit": MEASURES[goal].unit, "better": MEASURES[goal].better}
                for goal in goals
            ],
            "space": {path: dimension.model_dump(mode="json") for path, dimension in search.space.items()},
            "recipe": search.values_of(search.recipe),
            "rows": self.rows,
            "confidence": search.confidence,
            "trials": {"wanted": search.trials, **{state: counts[state] for state in ("complete", "pruned", "failed", "running")}},
            "seconds": round(sum(trial.seconds or 0.0 for trial in self.trials), 1),
            "best": best.as_dict() if best else None,
            "front": [trial.number for trial in self.front],
            "not_told_apart": self.not_told_apart,
            "importance": self.importance,
        }


def pareto(trials: Sequence[Trial], goals: Sequence[str]) -> list[Trial]:
    """The trials than which no other is at least as good in every goal and better in one; of equals all."""
    found = []
    for trial in trials:
        own = _costs(trial, goals)
        others = (_costs(other, goals) for other in trials)
        if not any(other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in others):
            found.append(trial)
    return found


def write_results(study: Study, rows: int) -> Standing:
    """Write everything as the study stands, and remove the models of trials that are beaten; the study must be locked."""
    from slmops.search.page import render_html

    standing = Standing(study, study.trials(), rows)
    search, best = study.search, standing.best
    write_jsonl(study.folder / TRIALS, [trial.as_dict() for trial in standing.trials])
    if best is not None:
        save_recipe(study.folder / BEST, search.recipe_with(best.values))
    if len(study.goals) > 1:
        wanted = {f"trial-{trial.number}.yaml": trial for trial in standing.front}
        for name, trial in wanted.items():
            save_recipe(study.folder / FRONT / name, search.recipe_with(trial.values))
        for file in (study.folder / FRONT).glob("*.yaml"):
            if file.name not in wanted:
                file.unlink()
    write_text(study.folder / PAGE, render_html(standing))
    write_json(study.folder / RESULT, standing.as_dict())
    _forget(standing)
    return standing


def _forget(standing: Standing) -> None:
    """Remove what beaten trials made: models are large, and the same values make the same ones again."""
    root = standing.study.search.recipe.output_path
    winners = standing.front if len(standing.study.goals) > 1 else standing.front[:1]
    kept = {name for trial in winners for name in trial.made}
    if (root / "run.json").is_file():
        kept |= set(read_json(root / "run.json")["stages"].values())
    under_way = [trial.values for trial in standing.trials if trial.state == "running"]
    beaten = [trial for trial in standing.trials if trial.state == "complete" and trial.values not in under_way]
    for name in {name for trial in beaten for name in trial.made} - kept:
        folder: Path = root / "artifacts" / name
        # Without its manifest it is no result any more, should this process be killed on the way.
        (folder / MANIFEST).unlink(missing_ok=True)
        remove_tree(folder)


def _rank(trial: Trial, goals: Sequence[str]) -> tuple[float, ...]:
    return (*_costs(trial, goals), trial.loss if trial.loss is not None else float("inf"), trial.number)


def _costs(trial: Trial, goals: Sequence[str]) -> tuple[float, ...]:
    """Goals as numbers of which less is better."""
    values: Mapping[str, float] = trial.goals
    return tuple(values[goal] if goal_direction(goal) == "minimize" else -values[goal] for goal in goals)
