"""Slices of the test rows: where a model does worse than on the other rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from slmops.data.rows import Row
from slmops.evaluation.proportions import Interval, fisher, mover, wilson
from slmops.evaluation.resampling import WIDE_RESAMPLES, drawn_rows, ends, student_p
from slmops.evaluation.stats import Word, estimate, holm, right_scores
from slmops.evaluation.tally import Tally
from slmops.tasks.base import Task, closed_labels, rejection

LEAST_ROWS = 10
"""Smaller slices are left out: they would be the best and the worst by chance."""

Column = Sequence[str | None]
"""The value of each test row; ``None`` where it has none."""

_PLACE = re.compile(r"(:\d+)?(, field .*)?$")


@dataclass(frozen=True)
class Slice:
    """Test rows that have one value in one column.

    Args:
        column: Such as ``label``.
        value: Such as ``refund``.
        rows: How many.
        score: The measure of these rows.
        interval: Its interval.
        difference: The score less that of all other rows.
        of_difference: Its interval, not widened for how many slices there are.
        p_value: Two-sided, that these rows are as the others.
        adjusted: The same for all slices together (Holm 1979).
        word: By the adjusted p-value: ``better`` or ``worse`` than the other rows, else ``INCONCLUSIVE``.
    """

    column: str
    value: str
    rows: int
    score: float
    interval: Interval
    difference: float
    of_difference: Interval
    p_value: float
    adjusted: float
    word: Word


@dataclass(frozen=True)
class Slices:
    """What was found.

    Args:
        found: The worst first: those that are certainly worse, then by their difference.
        left_out: Column, value and rows of what has fewer than :data:`LEAST_ROWS` rows, or leaves fewer others.
    """

    found: tuple[Slice, ...]
    left_out: tuple[tuple[str, str, int], ...]


def slices(
    tally: Tally, columns: Mapping[str, Column], confidence: float, *, better: Literal["higher", "lower"] = "higher"
) -> Slices:
    """A measure of each slice, against the rows that are not in it.

    Where each row is right or wrong: Newcombe's interval for two groups (1998, Statistics in Medicine 17, 873) and Fisher's
    exact test. Else one bootstrap over all rows, and Student's test by its standard error. The p-values are adjusted for all
    slices of all columns.

    Args:
        tally: The measure by rows.
        columns: Values of the rows by column, such as :func:`columns_of` gives.
        confidence: Of the intervals; one less it is the level of the words.
        better: Which way the measure is better.
    """
    members, left_out = _members(columns, len(tally.rows))
    right = right_scores(tally)
    compared = _by_bootstrap(tally, members, confidence) if right is None else _by_shares(right, members, confidence)
    found = list(compared)
    adjusted = holm([one.p_value for one in found])
    sign = 1 if better == "higher" else -1
    told = [
        replace(one, adjusted=p, word=_word(p, sign * one.difference, confidence)) for one, p in zip(found, adjusted, strict=True)
    ]
    return Slices(tuple(sorted(told, key=lambda one: (one.word != "worse", sign * one.difference))), tuple(left_out))


def columns_of(rows: Sequence[Row], task: Task, given: Mapping[str, Column] | None = None) -> dict[str, Column]:
    """What test rows are cut by: ``label`` where answers are labels, ``length`` of the question in thirds, ``source``, and more.

    Args:
        rows: The test rows.
        task: Tells labels.
        given: Further columns, with a value for each row.
    """
    columns: dict[str, Column] = {}
    if closed_labels(task) is not None:
        columns["label"] = [_label(task, row) for row in rows]
    columns["length"] = _thirds([len(row.question) for row in rows])
    columns["source"] = [_PLACE.sub("", row.origin) or None for row in rows]
    return {**columns, **(given or {})}


def _label(task: Task, row: Row) -> str | None:
    return task.parse(row.answer) if row.answer is not None and rejection(task, row.answer) is None else None


def _thirds(lengths: Sequence[int]) -> Column:
    """Shortest, middle and longest third in words, with their bounds; ends that are the same make fewer parts."""
    if not lengths:
        return []
    short, middle = (int(end) for end in np.quantile(lengths, [1 / 3, 2 / 3], method="inverted_cdf"))

    def third(length: int) -> str:
        if length <= short:
            return f"short, up to {short:,} characters"
        return f"middle, {short + 1:,} to {middle:,} characters" if length <= middle else f"long, over {middle:,} characters"

    return [third(length) for length in lengths]


def _members(columns: Mapping[str, Column], total: int) -> tuple[dict[tuple[str, str], np.ndarray], list[tuple[str, str, int]]]:
    """Which rows are in each slice that is large enough and leaves enough others, and what is too small."""
    members: dict[tuple[str, str], np.ndarray] = {}
    left_out = []
    for column, values in columns.items():
        by_value: dict[str, list[int]] = {}
        for index, value in enumerate(values):
            if value is not None:
                by_value.setdefault(value, []).append(index)
        for value, chosen in by_value.items():
            if min(len(chosen), total - len(chosen)) >= LEAST_ROWS:
                members[column, value] = np.array(chosen)
            elif len(chosen) < total:
                left_out.append((column, value, len(chosen)))
    return members, left_out


def _by_shares(right: np.ndarray, members: Mapping[tuple[str, str], np.ndarray], confidence: float) -> Iterator[Slice]:
    for (column, value), chosen in members.items():
        rows, hits = len(chosen), int(right[chosen].sum())
        others, other_hits = len(right) - rows, int(right.sum()) - hits
        own, rest = wilson(hits, rows, confidence), wilson(other_hits, others, confidence)
        score, base = hits / rows, other_hits / others
        p = fisher(hits, rows, other_hits, others)
        yield Slice(column, value, rows, score, own, score - base, mover(score, own, base, rest), p, p, "INCONCLUSIVE")


def _by_bootstrap(tally: Tally, members: Mapping[tuple[str, str], np.ndarray], confidence: float) -> Iterator[Slice]:
    drawn: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = {key: [] for key in members}
    for weights in drawn_rows(len(tally.rows), WIDE_RESAMPLES):
        sums, by_row = weights @ tally.rows, np.ascontiguousarray(weights.T)
        for key, chosen in members.items():
            own = by_row[chosen].T @ tally.rows[chosen]
            drawn[key].append((_told(tally, own), _told(tally, sums - own)))
    whole = tally.rows.sum(axis=0)
    for (column, value), chosen in members.items():
        own, rest = (np.concatenate(parts) for parts in zip(*drawn[column, value], strict=True))
        part = tally.take(chosen.tolist())
        difference = part.value - float(tally.of(whole - part.rows.sum(axis=0)))
        if not np.isfinite(difference):
            continue
        spread = float(np.nanstd(own - rest)) if np.isfinite(own - rest).any() else 0.0
        p = student_p(difference / spread, len(chosen) - 1) if spread > 0 else 1.0
        varies = np.nanmax(own) > np.nanmin(own) if np.isfinite(own).any() else False
        interval = ends(own, len(chosen), confidence) if varies else estimate(part, confidence).interval
        of_difference = ends(own - rest, len(chosen), confidence)
        yield Slice(column, value, len(chosen), part.value, interval, difference, of_difference, p, p, "INCONCLUSIVE")


def _told(tally: Tally, sums: np.ndarray) -> np.ndarray:
    values = tally.of(sums)
    return np.where(np.isfinite(values), values, np.nan)


def _word(adjusted: float, difference: float, confidence: float) -> Word:
    if adjusted > 1 - confidence or difference == 0:
        return "INCONCLUSIVE"
    return "better" if difference > 0 else "worse"
