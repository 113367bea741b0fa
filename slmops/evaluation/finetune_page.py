"""The page of a fine-tuning, and the same in a few lines for a terminal: what became of it, what it took, what it answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from slmops.evaluation.charts import Dot, interval_chart
from slmops.evaluation.formats import DASH, figure, inside, printable
from slmops.evaluation.lines import Curve, Mark, curve_chart
from slmops.evaluation.measures import MEASURES
from slmops.evaluation.page import Figure, render_page
from slmops.progress import duration

PAGE = "finetune.html"

_TRAINING, _VALIDATION, _BEFORE, _SAME = "series-8", "series-5", "series-1", "series-9"
_CHIPS = {"good": "good", "still learning": "open", "hardly learned": "open", "unknown": "open"}
_BLOCKS = "▁▂▃▄▅▆▇█"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def render_html(name: str, facts: Mapping[str, Any]) -> str:
    """One HTML file with everything in it: no script, no outside resource; texts of the data are escaped.

    Args:
        name: Of the run.
        facts: As ``finetune.json`` has them.
    """
    return render_page(
        "finetune.html.j2",
        name=name,
        facts=facts,
        chip=_CHIPS.get(facts["diagnosis"]["kind"], "bad"),
        tiles=tiles(facts),
        figures=[one for one in (_losses(facts), _scores(facts), _rates(facts)) if one is not None],
        settings=[(one["name"], _said(one["value"]), one["origin"], one["reason"]) for one in facts["settings"]],
        compared=compared(facts),
        scores=facts.get("scores"),
    )


def terminal_lines(facts: Mapping[str, Any]) -> list[str]:
    """Loss, score, time and memory, a line each."""
    looks = [point["validation"] for point in facts["curve"] if point["validation"] is not None]
    lines = []
    for title, values in (("training", [point["loss"] for point in facts["curve"]]), ("validation", looks)):
        if len(values) > 1:
            lines.append(
                f"{'loss' if title == 'training' else '':<9} {title:<10} {_blocks(values)} {values[0]:.3f} → {values[-1]:.3f}"
            )
    if looks and facts.get("kept"):
        lines.append(f"{'kept':<9} update {facts['kept']:,}, validation loss {min(looks):.3f} nats a token")
    if scores := facts.get("scores"):
        lines.append(f"{'score':<9} {score_sentence(scores)}")
    if compared(facts):
        lines.append(f"{'estimate':<9} " + "; ".join(f"{what} {told}, was {took}" for what, told, took, _ in compared(facts)))
    return [printable(line) for line in lines]


def score_sentence(scores: Mapping[str, Any]) -> str:
    """Scores before and after with their intervals, and whether the rows can tell them apart."""
    measure = scores["measure"]
    title = inside(MEASURES[measure].title) if measure in MEASURES else measure
    word = {"better": "better", "worse": "worse", "INCONCLUSIVE": "too few rows to tell apart"}[scores["difference"]["word"]]
    rows = f"{scores['rows']:,} of {scores['of']:,}" if scores["rows"] < scores["of"] else f"{scores['rows']:,}"
    ends = " → ".join(_with_interval(measure, scores[side]) for side in ("before", "after"))
    return f"{title} {ends} on {rows} validation rows: {word}"


def compared(facts: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Estimate and truth: what, estimated, was, and a remark; of a training that stopped early for the updates it made."""
    told = facts.get("estimate")
    if told is None:
        return []
    share = facts["steps"] / told["updates"]
    early = f"for {facts['steps']:,} of {told['updates']:,} updates" if share < 1 else f"{told['updates']:,} updates"
    last = "the training was resumed: of its last part alone"
    rows = [("time", duration(told["seconds"] * share), duration(facts["seconds"]), last if facts.get("resumed") else early)]
    if "peak_mb" in facts:
        room = f"{_gb(told['available_mb'])} were available"
        rows.append(("memory", _gb(told["peak_mb"]), _gb(facts["peak_mb"]), last if facts.get("resumed") else room))
    return rows


def tiles(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Figures that stand at the top."""
    looks = [point["validation"] for point in facts["curve"] if point["validation"] is not None]
    found = [("method", facts["method"]), ("rows", f"{facts['rows']:,}"), ("updates", f"{facts['steps']:,}")]
    if looks:
        found.append(("validation loss", f"{looks[0]:.3f} → {min(looks):.3f}"))
    if scores := facts.get("scores"):
        measure = scores["measure"]
        title = inside(MEASURES[measure].title) if measure in MEASURES else measure
        found.append((title, " → ".join(_value(measure, scores[side]["value"]) for side in ("before", "after"))))
    return [*found, ("time", duration(facts["seconds"]))]


def _losses(facts: Mapping[str, Any]) -> Figure | None:
    """Training and validation loss, the update whose weights were kept, and where overfitting began."""
    training = [(float(point["step"]), float(point["loss"])) for point in facts["curve"]]
    looks = [(float(point["step"]), float(point["validation"])) for point in facts["curve"] if point["validation"] is not None]
    if not training:
        return None
    curves = [Curve("training", _TRAINING, training, [])]
    if looks:
        curves.append(Curve("validation", _VALIDATION, looks, []))
    kept, found = facts.get("kept"), facts["diagnosis"]
    mark = Mark(kept, f"kept: update {kept:,}") if kept else None
    if found["kind"] == "overfitting":
        mark = Mark(found["since"], f"{'kept here, then ' if kept == found['since'] else ''}overfitting", shaded=True)
    elif found["since"] is not None:
        mark = Mark(found["since"], found["kind"], shaded=True)
    least = min(looks, key=lambda look: look[1]) if looks else training[-1]
    what = "validation" if looks else "training"
    title = f"The {what} loss fell from {(looks or training)[0][1]:.3f} to {least[1]:.3f}, after update {least[0]:,.0f}"
    if least[1] >= (looks or training)[0][1]:
        title = f"The {what} loss did not fall"
    described = "; ".join(
        f"{curve.label}: " + ", ".join(f"{loss:.3f} after {step:.0f}" for step, loss in curve.training) for curve in curves
    )
    caption = "Cross-entropy in nats a token. The training loss is the mean since the point before, so it lags behind."
    return Figure.drawn(
        "losses", title, caption, described, lambda frame: curve_chart(curves, frame, x_axis="Update", y_axis="Loss", mark=mark)
    )


def _rates(facts: Mapping[str, Any]) -> Figure | None:
    """The learning rate: from zero up to its peak, where it is warmed up, and as it was reported."""
    rates = facts.get("rates") or []
    values = {one["name"]: one["value"] for one in facts["settings"]}
    peak, warm = values.get("learning_rate"), values.get("warmup_share")
    if not rates or not isinstance(peak, float) or not isinstance(warm, int | float):
        return None
    risen = int(facts["planned"] * warm)
    points = [(0.0, 0.0), (float(risen), peak)] if risen else [(0.0, peak)]
    points += [(float(point["step"]), rate) for point, rate in zip(facts["curve"], rates, strict=True) if point["step"] > risen]
    power = math.floor(math.log10(peak))
    curve = Curve("rate", _TRAINING, [(step, rate / 10.0**power) for step, rate in points], [])
    title = (
        f"The learning rate rises to {peak:g} in {risen:,} updates, then falls"
        if risen
        else f"The learning rate begins at {peak:g}"
    )
    return Figure.drawn(
        "rates",
        title,
        "As it was after the updates at which the loss was reported.",
        ", ".join(f"{rate:.3g} after {step:.0f}" for step, rate in points),
        lambda frame: curve_chart(
            [curve], frame, x_axis="Update", y_axis=f"Learning rate, 10{str(power).translate(_SUPERSCRIPTS)}"
        ),
    )


def _scores(facts: Mapping[str, Any]) -> Figure | None:
    """The score before and after beside one answer to every row."""
    scores = facts.get("scores")
    if not scores:
        return None
    measure = scores["measure"]
    rows = (("before", _BEFORE, "before"), ("after", _TRAINING, "after"), ("one answer to all", _SAME, "constant"))
    dots = [
        Dot(
            label,
            colour,
            scores[key]["value"],
            tuple(scores[key]["interval"]) if scores[key]["interval"] else None,
            _value(measure, scores[key]["value"]),
            key == "after",
        )
        for label, colour, key in rows
    ]
    sentence = score_sentence(scores)
    known = MEASURES.get(measure)
    return Figure.drawn(
        "scores",
        sentence[:1].upper() + sentence[1:],
        f"Greedy answers. Lines are {100 * scores['confidence']:g}\u00a0% intervals over the rows; other seeds would add to them.",
        "; ".join(f"{dot.label}: {dot.text}" for dot in dots),
        lambda frame: interval_chart(dots, frame, axis=known.title if known else measure),
    )


def _with_interval(measure: str, found: Mapping[str, Any]) -> str:
    if not found["interval"]:
        return _value(measure, found["value"])
    low, high = (_value(measure, end) for end in found["interval"])
    return f"{_value(measure, found['value'])} [{low}, {high}]"


def _value(measure: str, value: float | None) -> str:
    return figure(measure, value, MEASURES.get(measure))


def _said(value: float | int | str | None) -> str:
    return DASH if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _blocks(values: Sequence[float]) -> str:
    """A line of blocks as high as the values."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BLOCKS[round((value - low) / span * (len(_BLOCKS) - 1))] for value in values)


def _gb(mb: float) -> str:
    return f"{mb / 1e3:,.2f} GB"
