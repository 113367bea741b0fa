"""From what the harness says to scores with intervals and paired differences, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist, fmean
from typing import Any

from slmops.evaluation.stats import Interval, mean_interval, paired
from slmops.evaluation.tally import Tally

_SAME = 1e-9


@dataclass(frozen=True)
class Score:
    """One metric of a task on one model.

    Args:
        model: Name of the model.
        engine: What answered.
        task: Name in the harness.
        metric: As the harness calls it.
        filter: Which way the answer was taken from the text, ``none`` where there is one only.
        value: The metric.
        stderr: Its standard error by the harness, where it gives one.
        interval: Of the value: from the rows where it is their mean, else from the standard error.
        higher_is_better: As the task says.
        rows: Questions asked.
        of: Questions there are.
        cut: Whether prompts that did not fit into the context lost their beginning.
        shots: Examples before each question.
        task_version: As the task's definition states.
        samples: File with the questions and answers, relative to the folder of results.
        by_row: Question to the metric of it alone, where the value is the mean of these.
    """

    model: str
    engine: str
    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    interval: Interval | None
    higher_is_better: bool | None
    rows: int
    of: int
    cut: bool
    shots: int
    task_version: str
    samples: str
    by_row: Mapping[str, float] | None

    def as_dict(self) -> dict[str, Any]:
        """As ``benchmark.json`` has it."""
        return {name: value for name, value in asdict(self).items() if name != "by_row"}


@dataclass(frozen=True)
class Lead:
    """How a model differs from the first one on the same questions; ``word`` takes the metric's direction into account."""

    model: str
    against: str
    task: str
    metric: str
    filter: str
    value: float
    interval: Interval
    word: str
    rows: int


def scores_of(result: Mapping[str, Any], asked: Sequence[Mapping[str, Any]], confidence: float, **of: Any) -> list[Score]:
    """The scores of a task on a model.

    Args:
        result: ``values``, ``higher_is_better``, ``rows``, ``of`` and ``cut`` of the harness.
        asked: What was asked and answered.
        confidence: Of the intervals.
        of: The fields of :class:`Score` that say whose they are.
    """
    found = []
    for key, value in result["values"].items():
        metric, comma, name = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        stderr = result["values"].get(f"{metric}_stderr,{name}")
        error = float(stderr) if isinstance(stderr, int | float) else None
        by_row = _by_row(asked, metric, name, value)
        found.append(
            Score(
                metric=metric,
                filter=name,
                value=float(value),
                stderr=error,
                interval=mean_interval(list(by_row.values()), confidence) if by_row else _normal(value, error, confidence),
                higher_is_better=result["higher_is_better"].get(metric),
                rows=result["rows"],
                of=result["of"],
                cut=result["cut"],
                by_row=by_row,
                **of,
            )
        )
    return found


def leads(scores: Sequence[Score], confidence: float) -> list[Lead]:
    """The paired difference of each further model to the first, where both answered the same questions."""
    found = []
    for score in scores:
        first = next(one for one in scores if (one.task, one.metric, one.filter) == (score.task, score.metric, score.filter))
        if score is first or not score.by_row or not first.by_row or score.by_row.keys() != first.by_row.keys():
            continue
        difference = paired(
            Tally.mean([score.by_row[row] for row in first.by_row]), Tally.mean(list(first.by_row.values())), confidence
        )
        word: str = difference.word
        if score.higher_is_better is False:
            word = {"better": "worse", "worse": "better"}.get(word, word)
        found.append(
            Lead(
                score.model,
                first.model,
                score.task,
                score.metric,
                score.filter,
                difference.value,
                difference.interval,
                word,
                len(first.by_row),
            )
        )
    return found


def table(report: Mapping[str, Any]) -> str:
    """Scores and differences as text."""
    level = f"{100 * report['confidence']:g} %"
    head = ["task", "metric", "model", "value", "±stderr", level, "rows", "shots"]
    lines = [
        [
            one["task"],
            _named(one),
            one["model"],
            f"{one['value']:.4f}",
            "" if one["stderr"] is None else f"{one['stderr']:.4f}",
            _between(one["interval"]),
            f"{one['rows']:,}" + ("" if one["rows"] == one["of"] else f" of {one['of']:,}") + ("*" if one["cut"] else ""),
            str(one["shots"]),
        ]
        for one in report["scores"]
    ]
    text = _columns([head, *lines])
    if report["differences"]:
        head = ["task", "metric", "model", "against", "difference", level, ""]
        differences = [
            [
                one["task"],
                _named(one),
                one["model"],
                one["against"],
                f"{one['value']:+.4f}",
                _between(one["interval"]),
                one["word"],
            ]
            for one in report["differences"]
        ]
        text += "\n\n" + _columns([head, *differences])
    if any(one["cut"] for one in report["scores"]):
        text += "\n\n* Prompts that do not fit into the model's context lost their beginning."
    return f"{text}\n\nlm-eval {report['harness']['version']}, seed {report['settings']['seed']}"


def _by_row(asked: Sequence[Mapping[str, Any]], metric: str, name: str, value: float) -> dict[str, float] | None:
    """``None`` where the metric is no mean over rows."""
    chosen = [one for one in asked if one["filter"] == name and metric in one["metrics"]]
    rows = {f"{one['row']}:{one['row_hash']}": one["metrics"][metric] for one in chosen}
    if not rows or None in rows.values() or abs(fmean(rows.values()) - value) > _SAME:
        return None
    return rows


def _normal(value: float, stderr: float | None, confidence: float) -> Interval | None:
    if stderr is None:
        return None
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * stderr
    return (value - half, value + half)


def _named(one: Mapping[str, Any]) -> str:
    return str(one["metric"]) if one["filter"] == "none" else f"{one['metric']}, {one['filter']}"


def _between(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"[{interval[0]:.4f}, {interval[1]:.4f}]"


def _columns(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
