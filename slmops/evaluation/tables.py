"""What the tables and sentences of a report are made from, for the page, the terminal and the model card."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from slmops.evaluation.formats import figure, percent
from slmops.evaluation.parts import ClassScore, Difference, Slice, Throughput
from slmops.evaluation.schema import Report

_QUALITY = "quality"  # stands for the report's primary measure
_COLUMNS = (
    "parameters",
    "size_mb",
    "memory_mb",
    "latency_p50_ms",
    "latency_p95_ms",
    "requests_per_s",
    _QUALITY,
    "share_of_teacher",
    "cost_per_million",
)
_MOST_SLICES = 12
_ALIKE = 0.2
"""Texts that share less of their words are marked as a whole, which tells nothing: they are left as they are."""


def main_columns(report: Report) -> list[str]:
    """Measures of the first table, in their order; the others come in a second one."""
    keys = [report.primary_measure if key == _QUALITY else key for key in _COLUMNS]
    return [key for key in keys if key in report.measures]


@dataclass(frozen=True)
class ClassLine:
    """A label in the table of labels: the scores of the row that is shown, and F1 of the others (None: not known)."""

    score: ClassScore
    others: Sequence[float | None]


@dataclass(frozen=True)
class ClassTable:
    """Scores by label, the worst F1 first.

    Args:
        row: Name of the row that is shown.
        others: Names of the rows that are compared with it.
        lines: One a label.
    """

    row: str
    others: Sequence[str]
    lines: Sequence[ClassLine]


def class_table(report: Report) -> ClassTable | None:
    """The labels of the row that is shown by itself, else of the first that has any."""
    if not report.classes:
        return None
    names = list(dict.fromkeys(item.row for item in report.classes))
    asked = report.shown.name if report.shown else report.confusion.row if report.confusion else names[0]
    row = asked if asked in names else names[0]
    others = [name for name in names if name != row]
    known = {(item.row, item.label): item.f1 for item in report.classes}
    own = sorted((item for item in report.classes if item.row == row), key=lambda item: item.f1)
    return ClassTable(row, others, [ClassLine(item, [known.get((name, item.label)) for name in others]) for item in own])


def worst_slices(report: Report) -> list[Slice]:
    """Slices that score below the other test rows; those whose interval says so first, then by how much."""
    signs = {key: 1 if measure.better == "higher" else -1 for key, measure in report.measures.items()}
    below = [item for item in report.slices if item.word != "better" and item.difference * signs[item.measure] < 0]
    return sorted(below, key=lambda item: (item.word != "worse", item.difference * signs[item.measure]))[:_MOST_SLICES]


def loads(report: Report) -> tuple[list[int], list[tuple[str, list[Throughput | None]]]]:
    """All numbers of requests at once, and for each row that was put under load what came of them."""
    counts = sorted({load.concurrency for row in report.rows for load in row.throughput})
    lines = []
    for row in report.rows:
        if row.throughput:
            known = {load.concurrency: load for load in row.throughput}
            lines.append((row.name, [known.get(count) for count in counts]))
    return counts, lines


def leakage_sentence(report: Report) -> str | None:
    """What to know before all scores; None where no test row stands in training data, or nobody looked."""
    leakage = report.leakage
    if leakage is None or not leakage.rows:
        return None
    stand = "stands" if leakage.rows == 1 else "stand"
    return (
        f"{leakage.rows:,} of {report.test_rows:,} test rows ({percent(leakage.share)}) {stand} in {leakage.against}, too. "
        "A model that learned from it may know them by heart: the scores are flattered."
    )


def batch_sentences(report: Report) -> list[str]:
    """Which engines' answers depend on batching, so that numbers may differ from run to run."""
    sentences = []
    for depends, says in (
        (True, "depend on what else is in the batch: two runs with one seed may differ a little"),
        (False, "do not depend on batching: two runs with one seed give the same quality"),
        (None, "were not tried in batches of other sizes"),
    ):
        engines: dict[str, list[str]] = {}
        for row in report.rows:
            if row.batch_dependent is depends:
                engines.setdefault(row.runtime, []).append(row.title)
        sentences += [f"Answers of {engine} {says} ({', '.join(titles)})." for engine, titles in engines.items()]
    return sentences


def margin_words(report: Report, item: Difference) -> str | None:
    """Whether a row is not more than the stated margin worse than the other; None where no margin was stated."""
    if item.margin is None:
        return None
    measure = report.measures[item.measure]
    low, high = item.interval if measure.better == "higher" else (-item.interval[1], -item.interval[0])
    margin = figure(item.measure, item.margin, measure)
    if low > -item.margin:
        return f"not inferior: at most {margin} worse"
    return f"inferior: more than {margin} worse" if high < -item.margin else f"INCONCLUSIVE whether at most {margin} worse"


def marked(a: str, b: str) -> tuple[Markup, Markup]:
    """Two texts with the words marked in which they differ; texts with little in common are left as they are."""
    first, second = (re.findall(r"\s+|\w+|[^\w\s]", text) for text in (a, b))
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    kept = sum(_words(first[block.a : block.a + block.size]) for block in matcher.get_matching_blocks())
    if kept < _ALIKE * max(_words(first), _words(second)):
        return escape(a), escape(b)
    pieces: tuple[list[Markup], list[Markup]] = ([], [])
    for kind, start, end, start_b, end_b in matcher.get_opcodes():
        for texts, text in zip(pieces, ("".join(first[start:end]), "".join(second[start_b:end_b])), strict=True):
            plain = kind == "equal" or not text.strip()
            texts.append(escape(text) if plain else Markup("<mark>{}</mark>").format(text))
    return Markup().join(pieces[0]), Markup().join(pieces[1])


def _words(pieces: Sequence[str]) -> int:
    return sum(not piece.isspace() for piece in pieces)
