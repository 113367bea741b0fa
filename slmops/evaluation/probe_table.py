"""A probe's figures, for ``probe.json`` and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slmops.evaluation.formats import inside, number, score
from slmops.evaluation.measures import MEASURES
from slmops.evaluation.probe import Evidence, Finding, extrapolate
from slmops.evaluation.stats import Difference, mean_interval, paired
from slmops.evaluation.systems import System
from slmops.evaluation.tally import Tally
from slmops.progress import duration

_TITLES = {
    "tfidf": "TF-IDF + logistic regression",
    "untuned": "student untuned",
    "teacher": "teacher",
    "distilled": "student distilled for a trial",
}
EXTRAPOLATED = "extrapolated"


def figures(
    systems: Mapping[str, System],
    curve: Mapping[str, int],
    evidence: Evidence,
    finding: Finding,
    *,
    confidence: float,
    margin: float,
) -> dict[str, Any]:
    """All that was found, with intervals, for JSON.

    Args:
        systems: What was measured, by name.
        curve: Labelled rows by name of a fine-tuned student.
        evidence: The scores.
        finding: What the rule says.
        confidence: Of the intervals.
        margin: As the rule took it.
    """
    trained = {"tfidf": max(curve.values()), "untuned": 0, "distilled": max(curve.values()), **curve}
    models = [
        {
            "name": name,
            "title": _TITLES.get(name, f"student fine-tuned on {trained.get(name)} rows"),
            "labelled_rows": trained.get(name, max(curve.values()) if evidence.tuned else 0),
            **_scored(system.tallies[system.primary_measure].each.tolist(), evidence, confidence, itself=name == "teacher"),
            "latency_p50_ms": system.measures.get("latency_p50_ms"),
        }
        for name, system in sorted(systems.items(), key=lambda item: _place(item[0], trained))
    ]
    reached = None
    if len(evidence.fine_tuned) > 1 and evidence.labelled > max(evidence.fine_tuned):
        scores = extrapolate(evidence.fine_tuned, evidence.labelled)
        reached = {"labelled_rows": evidence.labelled, **_scored(scores.tolist(), evidence, confidence)}
    return {
        "verdict": finding.word,
        "why": finding.why,
        "more_test_rows": finding.more_rows,
        "measure": systems["teacher"].primary_measure,
        "confidence": confidence,
        "margin": margin,
        "test_rows": len(evidence.teacher),
        "labelled_rows": evidence.labelled,
        "pool_rows": evidence.unlabelled,
        "teacher_tuned": evidence.tuned,
        "models": models,
        "plain_fine_tuning_would_reach": reached,
        "leads": {name: _difference(lead) for name, lead in finding.leads.items()},
        "trial": {name: _difference(gain) for name, gain in finding.gains.items()},
    }


def render_table(found: Mapping[str, Any]) -> str:
    """The figures as plain text: a line a model, what plain fine-tuning would reach, what distilling costs, the verdict."""
    measure = inside(MEASURES[found["measure"]].title)
    rows = [(model["title"], model) for model in found["models"]]
    reached = found["plain_fine_tuning_would_reach"]
    if reached:
        rows.insert(len(rows) - 1, (f"fine-tuned on all {reached['labelled_rows']:,} rows, extrapolated", reached))
    width = max(len(title) for title, _ in rows)
    head = f"{'':<{width}}  {measure + ' ' + _percent(found['confidence']):<22}  the teacher's lead, points"
    lines = [head, *(f"{title:<{width}}  {_score(row):<22}  {_lead(row)}".rstrip() for title, row in rows)]
    cost = found["distillation"]
    lines += ["", f"on {found['test_rows']:,} test rows. Intervals hold for other test rows, not for other seeds of the training."]
    lines.append(
        f"To distill: {cost['rows']:,} rows, about {cost['prompt_tokens']:,} tokens in and {cost['completion_tokens']:,} out, "
        f"{duration(cost['seconds'])} and {number(cost['machine_cost'])} of machine-hours{_paid(cost['requests'])}."
    )
    if found["trial"]:
        gains = ", ".join(f"{name} {_points(gain)}" for name, gain in found["trial"].items())
        lines.append(f"Trial: points that the distilled student is ahead of {gains}.")
    lines += ["", f"{found['verdict']}: {found['why']}."]
    if found["verdict"] == "no" and found["pool_rows"] and not found["trial"]:
        lines.append("A student that learns from many unlabelled rows may pass its teacher: --pool_rows 300 tries it.")
    if found["more_test_rows"]:
        more = found["more_test_rows"]
        lines.append(
            f"About {more:,} more labelled rows to test on (--test_data, --rows {found['test_rows'] + more}) would settle it."
        )
    return "\n".join(lines)


def _place(name: str, trained: Mapping[str, int]) -> tuple[int, int]:
    """TF-IDF, untuned, fine-tuned on more and more, the trial, the teacher."""
    order = {"tfidf": 0, "untuned": 1, "distilled": 3, "teacher": 4}
    return order.get(name, 2), trained.get(name, 0)


def _scored(scores: Sequence[float], evidence: Evidence, confidence: float, *, itself: bool = False) -> dict[str, Any]:
    low, high = mean_interval(scores, confidence)
    most = 1.0 if max(evidence.teacher) <= 1 else float("inf")  # an extrapolation may pass what there is
    value = min(most, float(np.mean(scores)))
    lead = None if itself else _difference(paired(Tally.mean(evidence.teacher), Tally.mean(scores), confidence))
    return {"value": value, "interval": [min(most, low), min(most, high)], "lead": lead}


def _difference(difference: Difference) -> dict[str, Any]:
    return {"value": difference.value, "interval": list(difference.interval), "word": difference.word}


def _percent(confidence: float) -> str:
    return f"({100 * confidence:g} %)"


def _score(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return f"{score(row['value'])} ({score(low)}–{score(high)})"


def _lead(row: Mapping[str, Any]) -> str:
    return _points(row["lead"]) if row["lead"] else ""


def _points(difference: Mapping[str, Any]) -> str:
    value, (low, high) = difference["value"], difference["interval"]
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _paid(requests: Mapping[str, Any] | None) -> str:
    if requests is None:
        return ""
    if requests["cost"] is None:
        return ", and the teacher's answers, at a price nobody has given"
    return f", and ${requests['cost']:,.2f} (at most ${requests['most_cost']:,.2f}) to the teacher"
