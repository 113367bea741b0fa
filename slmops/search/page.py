"""A study for people: a page that opens offline, and a table for a terminal."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from slmops.evaluation.charts import Bar, Dot, bar_chart, interval_chart
from slmops.evaluation.formats import DASH, figure, inside, percent, printable
from slmops.evaluation.measures import COSTS, MEASURES, Measure
from slmops.evaluation.page import Figure, render_page
from slmops.evaluation.plots import Point, scatter_chart
from slmops.progress import duration
from slmops.search.trials import Trial

if TYPE_CHECKING:
    from slmops.search.results import Standing

_BEST, _FRONT, _OTHER = "series-8", "series-5", "series-9"
_MOST_ROWS = 40
_TERMINAL_WIDTH = 110


def render_html(standing: Standing) -> str:
    """One HTML file with everything in it; no script and no outside resource."""
    goals = standing.study.goals
    drawn = [*(_against(standing, goal) for goal in goals[1:]), _ranking(standing), _importance(standing)]
    return render_page(
        "search.html.j2",
        name=standing.study.search.recipe.name,
        headline=headline(standing),
        facts=standing.as_dict(),
        figures=[one for one in drawn if one is not None],
        varied=[(path, dimension.describe()) for path, dimension in standing.study.search.space.items()],
        columns=[*_short(standing).values(), *(_title(goal) for goal in goals), "Loss", "Time"],
        rows=[(trial, _mark(standing, trial), _cells(standing, trial)) for trial in _sorted(standing)],
    )


def render_table(standing: Standing) -> str:
    """The trials, the best first, as plain text."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("trial", *_short(standing).values(), *(_title(goal) for goal in standing.study.goals), "loss", "time"):
        table.add_column(title, justify="left" if title == "trial" else "right", overflow="fold")
    for trial in _sorted(standing):
        table.add_row(f"{_mark(standing, trial) or ' '} {trial.number}", *_cells(standing, trial))
    screen = io.StringIO()
    Console(file=screen, width=_TERMINAL_WIDTH, color_system=None, highlight=False, legacy_windows=False).print(table)
    notes = [f"* {headline(standing)}."]
    if len(standing.study.goals) > 1:
        notes.append("+ no other trial is as good in every goal and better in one.")
    failed = [f"trial {trial.number} failed: {printable(trial.why)}" for trial in standing.trials if trial.state == "failed"]
    lines = [line.rstrip() for line in screen.getvalue().splitlines()]
    return "\n".join([*lines, *notes, *failed]) + "\n"


def headline(standing: Standing) -> str:
    """What the study says in a sentence."""
    best, goals = standing.best, standing.study.goals
    if best is None:
        return "No trial is complete"
    reached = ", ".join(f"{inside(MEASURES[goal].title)} {shown(goal, best.goals[goal])}" for goal in goals)
    text = f"Best: trial {best.number}, {reached} on {standing.rows:,} validation rows"
    if goals[0] in best.intervals:
        low, high = best.intervals[goals[0]]
        close = len(standing.not_told_apart)
        others = f"; {close} other{'' if close == 1 else 's'} cannot be told from it" if close else ""
        text += f" (interval {shown(goals[0], low)} to {shown(goals[0], high)}{others})"
    return text


def said(value: Any) -> str:
    """A value of a recipe, short."""
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def shown(goal: str, value: float) -> str:
    """A goal's value without its unit."""
    return figure(goal, value, MEASURES[goal])


def _against(standing: Standing, goal: str) -> Figure | None:
    """The first goal against another one, with the Pareto front."""
    first = standing.study.goals[0]
    done = [trial for trial in standing.trials if trial.state == "complete"]
    log = goal in COSTS and all(trial.goals[goal] > 0 for trial in done)
    if len(done) < 2:
        return None
    points = [
        Point(
            str(trial.number),
            _colour(standing, trial),
            trial.goals[goal],
            trial.goals[first],
            f"trial {trial.number}: {shown(goal, trial.goals[goal])} {MEASURES[goal].unit}, {shown(first, trial.goals[first])}",
            trial is standing.best,
            trial.intervals.get(first),
        )
        for trial in done
    ]
    higher, x_higher = (MEASURES[name].better == "higher" for name in (first, goal))
    caption = f"{'Right' if x_higher else 'Left'} and {'up' if higher else 'down'} is better. "
    caption += "No trial beats those on the stepped line. Bars are intervals over the validation rows."
    x_axis, y_axis = _axis(MEASURES[goal]) + (", log scale" if log else ""), _axis(MEASURES[first])
    return Figure.drawn(
        f"front-{goal.replace('_', '-')}",
        f"{MEASURES[first].title} against {inside(MEASURES[goal].title)}: none beats {len(standing.front)} of {len(done)} trials",
        caption,
        "; ".join(point.tip for point in points),
        lambda frame: scatter_chart(points, frame, x_axis=x_axis, y_axis=y_axis, higher=higher, x_higher=x_higher, x_log=log),
    )


def _ranking(standing: Standing) -> Figure | None:
    """The first goal of every complete trial with its interval, the best first."""
    goal = standing.study.goals[0]
    done = [trial for trial in _sorted(standing) if trial.state == "complete"][:_MOST_ROWS]
    if not done:
        return None
    dots = [
        Dot(
            f"trial {trial.number}",
            _colour(standing, trial),
            trial.goals[goal],
            trial.intervals.get(goal),
            shown(goal, trial.goals[goal]),
            trial is standing.best,
        )
        for trial in done
    ]
    confidence = standing.study.search.confidence
    return Figure.drawn(
        "ranking",
        headline(standing),
        f"Lines are {100 * confidence:g}\u00a0% intervals over the validation rows; other seeds would add to them.",
        "; ".join(f"{dot.label}: {dot.text}" for dot in dots),
        lambda frame: interval_chart(dots, frame, axis=_axis(MEASURES[goal])),
    )


def _importance(standing: Standing) -> Figure | None:
    """How much each value explains."""
    shares = standing.importance
    if not shares:
        return None
    short = _short(standing)
    bars = [Bar(short[path], _OTHER, share, percent(share)) for path, share in shares.items()]
    done = sum(trial.state == "complete" for trial in standing.trials)
    return Figure.drawn(
        "importance",
        f"{bars[0].label} explains most of the differences in {inside(MEASURES[standing.study.goals[0]].title)}",
        f"PED-ANOVA over {done} complete trials; with few trials it is rough.",
        "; ".join(f"{bar.label}: {bar.text}" for bar in bars),
        lambda frame: bar_chart(bars, frame, axis="share"),
    )


def _sorted(standing: Standing) -> Sequence[Trial]:
    """Complete trials, the best first by the first goal, then the others in their order."""
    goal = standing.study.goals[0]
    sign = -1 if MEASURES[goal].better == "higher" else 1
    best = standing.best

    def rank(trial: Trial) -> tuple[float, ...]:
        loss = trial.loss if trial.loss is not None else 0.0
        return (0, trial is not best, sign * trial.goals[goal], loss) if trial.state == "complete" else (1, trial.number)

    return sorted(standing.trials, key=rank)


def _cells(standing: Standing, trial: Trial) -> list[str]:
    goals = standing.study.goals
    cells = [said(trial.values[path]) if path in trial.values else DASH for path in standing.study.search.space]
    cells += [shown(goal, trial.goals[goal]) if goal in trial.goals else trial.state if goal == goals[0] else "" for goal in goals]
    loss = trial.loss if trial.loss is not None else trial.curve[-1][1] if trial.curve else None
    return [*cells, DASH if loss is None else f"{loss:.3f}", DASH if trial.seconds is None else duration(trial.seconds)]


def _short(standing: Standing) -> dict[str, str]:
    """Paths as headings: the last part, with more in front where two end alike."""
    paths = list(standing.study.search.space)
    whole = {path: path.split(".") for path in paths}
    plugins = [spec.get("name", "") for spec in standing.study.search.recipe.training.objectives]
    for parts in whole.values():
        if parts[:2] == ["training", "objectives"] and len(parts) > 2:
            parts[2] = plugins[int(parts[2])]
    longest = max(map(len, whole.values()))
    ends = {count: Counter(".".join(parts[-count:]) for parts in whole.values()) for count in range(1, longest + 1)}

    def short(parts: list[str]) -> str:
        tails = {count: ".".join(parts[-count:]) for count in ends}
        return next(tail for count, tail in tails.items() if ends[count][tail] == 1)

    return {path: short(parts) for path, parts in whole.items()}


def _mark(standing: Standing, trial: Trial) -> str:
    if trial is standing.best:
        return "*"
    return "+" if len(standing.study.goals) > 1 and trial in standing.front else ""


def _colour(standing: Standing, trial: Trial) -> str:
    return {"*": _BEST, "+": _FRONT}.get(_mark(standing, trial), _OTHER)


def _title(goal: str) -> str:
    return _axis(MEASURES[goal])


def _axis(measure: Measure) -> str:
    return f"{measure.title} ({measure.unit})" if measure.unit else measure.title
