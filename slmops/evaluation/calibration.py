"""Calibration: whether answers given with 80 % confidence are right in 80 % of the cases (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from slmops.errors import ConfigError
from slmops.evaluation.outputs import Outputs
from slmops.evaluation.tally import Tally

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from slmops.data.rows import Row
    from slmops.data.templates import Template

BINS = 15
"""Bins of equal width that Guo et al. use."""


@dataclass(frozen=True)
class Bin:
    """Rows of like confidence, above ``low`` and up to ``high``; means are NaN where it has no rows."""

    low: float
    high: float
    confidence: float
    accuracy: float
    rows: int


def ece_tally(outputs: Outputs, bins: int = BINS) -> Tally:
    """Expected calibration error: the gap between confidence and accuracy of each bin, averaged by rows.

    A row has, for its bin, its confidence, whether it is right, and 1. Few rows in many bins make it too large, and resampling
    adds to that.

    Raises:
        ConfigError: The confidences are not there, or not between 0 and 1.
    """
    confidences, places = _places(outputs, bins)
    rows = np.zeros((len(places), 3, bins))
    for number, place in enumerate(places):
        if place >= 0:
            rows[number, :, place] = (confidences[number], outputs.correct[number], 1)

    def of(sums: np.ndarray) -> np.ndarray:
        confident, right, counts = (sums[..., start : start + bins] for start in (0, bins, 2 * bins))
        with np.errstate(invalid="ignore", divide="ignore"):
            found: np.ndarray = np.abs(confident - right).sum(-1) / counts.sum(-1)
        return found

    return Tally(rows.reshape(len(rows), -1), of)


def reliability(outputs: Outputs, bins: int = BINS) -> list[Bin]:
    """The bins of a reliability diagram, from low to high confidence."""
    confidences, places = _places(outputs, bins)
    edges, correct = np.linspace(0, 1, bins + 1), np.asarray(outputs.correct, dtype=np.float64)
    found = []
    for place in range(bins):
        chosen = places == place
        count = int(chosen.sum())
        confidence, accuracy = (float(values[chosen].mean()) if count else float("nan") for values in (confidences, correct))
        found.append(Bin(float(edges[place]), float(edges[place + 1]), confidence, accuracy, count))
    return found


def label_confidences(
    model: PreTrainedModel,
    template: Template,
    rows: Sequence[Row],
    labels: Sequence[str],
    answers: Sequence[str | None],
    *,
    batch_tokens: int = 2048,
) -> list[float]:
    """Probability of each row's answer among all labels.

    A label's weight is the model's probability of all its tokens and the end token, behind the prompt.

    Args:
        model: A causal language model.
        template: Renders the rows.
        rows: As the model was asked.
        labels: All that the task has.
        answers: The label that each row got; ``None``, of an answer that is none, gives NaN.
        batch_tokens: Tokens of a batch, padding included.

    Raises:
        MissingExtraError: torch is not installed.
    """
    from slmops.evaluation.likelihood import losses_of

    places = {label: place for place, label in enumerate(labels)}
    encoded = [template.encode(row.with_answer(label)) for row in rows for label in labels]
    losses = np.array(losses_of(model, encoded, batch_tokens)).reshape(len(rows), len(labels))
    weights = np.exp(losses.min(axis=1, keepdims=True) - losses)
    shares = weights / weights.sum(axis=1, keepdims=True)
    return [float("nan") if answer is None else float(shares[number, places[answer]]) for number, answer in enumerate(answers)]


def _places(outputs: Outputs, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences and the bin of each, -1 where it is not known."""
    if outputs.confidences is None:
        raise ConfigError(
            "calibration needs the confidence of each answer",
            fix="measure it with the torch runtime on a task whose answers are labels, or leave ece out",
        )
    confidences = np.asarray(outputs.confidences, dtype=np.float64)
    known = np.isfinite(confidences)
    if ((confidences[known] < 0) | (confidences[known] > 1)).any():
        raise ConfigError("a confidence is not between 0 and 1", where="confidences")
    edges = np.linspace(0, 1, bins + 1)
    return confidences, np.where(known, np.digitize(confidences, edges[1:-1], right=True), -1)
