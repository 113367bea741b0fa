"""Labels: precision, recall and F1 of all labels together and of each, and which label is taken for which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from slmops.errors import ConfigError
from slmops.evaluation.outputs import Outputs
from slmops.evaluation.tally import Tally
from slmops.tasks.base import closed_labels

Kind = Literal["precision", "recall", "f1"]
Average = Literal["macro", "micro", "weighted"]

INVALID = "(invalid)"
"""Column of the confusion matrix for answers that are no label."""


@dataclass(frozen=True)
class ClassScore:
    """How well one label is found; a share is NaN where it has no rows, or nothing claims the label."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int


@dataclass(frozen=True)
class Confusion:
    """Which label is answered where another is right.

    Args:
        labels: Of the references, in the order of the matrix's rows.
        answered: The same and others that were answered, and last :data:`INVALID` if it was: the matrix's columns.
        counts: Test rows, shape (labels, answered).
    """

    labels: tuple[str, ...]
    answered: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def label_tally(outputs: Outputs, average: Average, kind: Kind) -> Tally:
    """Precision, recall or F1 over labels: ``micro`` of all answers together, else averaged over the labels of the references.

    ``macro`` counts every label the same, ``weighted`` by its rows. Precision is 0 for a label that is never answered.

    Raises:
        ConfigError: The task's answers are no labels.
    """
    _, rows = _counts(outputs)
    of_one = _SHARES[kind]

    def of(sums: np.ndarray) -> np.ndarray:
        hits, claimed, actual = np.split(sums, 3, axis=-1)
        if average == "micro":
            return of_one(hits.sum(-1), claimed.sum(-1), actual.sum(-1))
        present = actual > 0
        weights = np.where(present, actual if average == "weighted" else 1.0, 0.0)
        scores = np.nan_to_num(np.where(present, of_one(hits, claimed, actual), 0.0))
        return _over((scores * weights).sum(-1), weights.sum(-1))

    return Tally(rows, of)


def class_scores(outputs: Outputs) -> list[ClassScore]:
    """The labels of references and answers with their shares, in alphabetical order."""
    labels, rows = _counts(outputs)
    hits, claimed, actual = np.split(rows.sum(axis=0), 3)
    precision, recall, f1 = (_SHARES[kind](hits, claimed, actual).tolist() for kind in ("precision", "recall", "f1"))
    return [
        ClassScore(label, precision[place], recall[place], f1[place], rows=int(actual[place])) for place, label in enumerate(labels)
    ]


def confusion(outputs: Outputs) -> Confusion:
    """Which label is answered for which.

    Raises:
        ConfigError: The task's answers are no labels.
    """
    _check_labels(outputs)
    labels = sorted(set(outputs.expected))
    others = sorted({answer for answer in outputs.read if answer is not None} - set(labels))
    answered = [*labels, *others, *([INVALID] if None in outputs.read else [])]
    counts = np.zeros((len(labels), len(answered)), dtype=int)
    for expected, answer in zip(outputs.expected, outputs.read, strict=True):
        counts[labels.index(expected), answered.index(INVALID if answer is None else answer)] += 1
    return Confusion(tuple(labels), tuple(answered), tuple(tuple(row) for row in counts.tolist()))


def _counts(outputs: Outputs) -> tuple[list[str], np.ndarray]:
    """Labels, and of each row whether it is a hit, a claim and a case of each: shape (rows, 3 * labels)."""
    _check_labels(outputs)
    labels = sorted({*outputs.expected, *(answer for answer in outputs.read if answer is not None)})
    claimed, actual = _one_hot(outputs.read, labels), _one_hot(outputs.expected, labels)
    return labels, np.concatenate([claimed * actual, claimed, actual], axis=1)


def _one_hot(values: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    places = {label: place for place, label in enumerate(labels)}
    marks = np.zeros((len(values), len(labels)))
    for number, value in enumerate(values):
        if value is not None:
            marks[number, places[value]] = 1
    return marks


def _check_labels(outputs: Outputs) -> None:
    if closed_labels(outputs.task) is None:
        raise ConfigError(
            "precision, recall and F1 of labels need a task whose answers are labels",
            fix="use classification, nli or qa with choices",
        )


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _precision(hits: np.ndarray, claimed: np.ndarray, actual: np.ndarray) -> np.ndarray:
    return np.where((claimed == 0) & (actual > 0), 0.0, _over(hits, claimed))


def _recall(hits: np.ndarray, claimed: np.ndarray, actual: np.ndarray) -> np.ndarray:
    return _over(hits, actual)


def _f1(hits: np.ndarray, claimed: np.ndarray, actual: np.ndarray) -> np.ndarray:
    return _over(2 * hits, claimed + actual)


_SHARES: dict[Kind, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
}
