"""What a loss curve says of a training, in words, and what to try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

_SAME = 0.02
"""Share of a loss by which it may move and count as where it was; the noise of a look at some hundred answer tokens."""

_HIGHER = 1.05
"""Times the lowest validation loss from which on a later one is overfitting and not noise."""

_WEAK = 0.9
"""Share of the first validation loss above which the lowest is hardly better than the base model."""

_NO_BETTER = 0.02
"""Most that a score may be above that of one answer to every row, where rows cannot tell the two apart, and count as no better."""

_FEWEST = 10
"""Validation rows with answers below which a score says nothing."""


@dataclass(frozen=True)
class Diagnosis:
    """What became of a training.

    Args:
        kind: ``good``, ``still learning``, ``overfitting``, ``diverged``, ``nothing learned``, ``hardly learned``, ``base too
            weak``, ``labels never seen`` or ``unknown``.
        sentence: What was seen.
        advice: What to try; empty where nothing is wrong.
        since: The update from which on it went wrong, where there is one.
    """

    kind: str
    sentence: str
    advice: str = ""
    since: int | None = None

    def as_dict(self) -> dict[str, str | int | None]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.kind}: {self.sentence}" + (f"; {self.advice}" if self.advice else "")


def diagnose(
    curve: Sequence[Mapping[str, float | None]],
    *,
    planned: int,
    labels: Mapping[str, Mapping[str, int]] | None = None,
    scores: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """Read a curve, and the answers to validation rows where there are some; the first thing that is wrong is what is said.

    Args:
        curve: ``step``, mean training ``loss`` since the point before, ``validation`` loss or ``None``; in order.
        planned: Updates that were to be made.
        labels: Rows by label and split, where answers are labels.
        scores: Of :func:`slmops.stages.before_after.compare`.
    """
    found = _by_curve(curve, planned, labels)
    if found.kind not in ("good", "hardly learned", "unknown") or not scores or scores["rows"] < _FEWEST:
        return found
    tuned, same = scores["after"]["value"], scores["constant"]
    no_better = tuned is not None and same["value"] is not None and tuned - same["value"] <= _NO_BETTER
    if not no_better or scores["against_constant"]["word"] == "better":
        return found
    return Diagnosis(
        "base too weak",
        f"after the training the answers are no better than {same['answer']!r} to every row "
        f"({tuned:.3f} against {same['value']:.3f} on {scores['rows']:,} validation rows), and {found.sentence}",
        "try a larger model, or look whether the answers follow from what is asked",
    )


def _by_curve(
    curve: Sequence[Mapping[str, float | None]], planned: int, labels: Mapping[str, Mapping[str, int]] | None
) -> Diagnosis:
    unseen = [name for name, count in (labels or {}).items() if not count.get("train") and count.get("validation")]
    if unseen:
        return Diagnosis(
            "labels never seen",
            f"no training row has the label {', '.join(unseen)}, and validation rows do",
            "give training rows of each label, or take these out of the validation rows",
        )
    losses = [float(point["loss"] or 0.0) for point in curve]
    looks = [(int(point["step"] or 0), float(point["validation"])) for point in curve if point["validation"] is not None]
    if len(losses) < 2:
        return Diagnosis("unknown", "there are too few points of the loss to say anything", "make more updates")
    if losses[-1] > 1.2 * losses[0] or (looks and looks[-1][1] > 1.5 * looks[0][1]):
        rises = next(
            (int(point["step"] or 0) for before, point in pairwise(curve) if (point["loss"] or 0) > (before["loss"] or 0)), None
        )
        return Diagnosis("diverged", f"the loss rose from {losses[0]:.3f} to {losses[-1]:.3f}", "lower the learning rate", rises)
    if abs(losses[-1] - losses[0]) <= _SAME * losses[0] and (not looks or abs(looks[-1][1] - looks[0][1]) <= _SAME * looks[0][1]):
        return Diagnosis(
            "nothing learned",
            f"the loss is {losses[-1]:.3f} where it was {losses[0]:.3f}",
            "raise the learning rate or make more updates",
        )
    return (
        _by_validation(looks, planned)
        if len(looks) > 1
        else Diagnosis(
            "unknown",
            f"the training loss fell from {losses[0]:.3f} to {losses[-1]:.3f}, and no validation row says whether that helps",
        )
    )


def _by_validation(looks: Sequence[tuple[int, float]], planned: int) -> Diagnosis:
    first, (last_step, last) = looks[0][1], looks[-1]
    lowest_step, lowest = min(looks, key=lambda look: look[1])
    if last > _HIGHER * lowest:
        return Diagnosis(
            "overfitting",
            f"the validation loss was lowest after update {lowest_step} ({lowest:.3f}) and is {last:.3f} after {last_step}",
            "make fewer updates, or give more rows; training.keep=best, finetune's default, keeps the weights of the lowest",
            lowest_step,
        )
    if lowest > _WEAK * first and len(looks) > 2:
        return Diagnosis(
            "hardly learned",
            f"the validation loss only fell from {first:.3f} to {lowest:.3f}",
            "the base model may be too weak for this task: try a larger one, more rows, or a higher learning rate",
        )
    before = looks[-2][1]
    if last_step >= planned and last < (1 - _SAME) * before:
        return Diagnosis(
            "still learning", f"the validation loss still fell at the end, from {before:.3f} to {last:.3f}", "make more updates"
        )
    return Diagnosis("good", f"the validation loss fell from {first:.3f} to {lowest:.3f} and then stayed")
