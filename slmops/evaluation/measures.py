"""The one table of measures: what a number is called, its unit, which way is better, and how it is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from slmops.errors import UsageError, nearest


@dataclass(frozen=True)
class Measure:
    """A measure.

    Args:
        title: Heading in tables.
        unit: Behind the number; empty for shares and counts.
        better: Which way is better.
        help: How it is measured, in a sentence.
        aliases: Other names that gates accept.
        of_rows: What of each test row it is the mean of, which gives it an interval: whether the row is ``right``, or its
            ``score``; empty for a measure of the whole set.
    """

    title: str
    unit: str
    better: Literal["higher", "lower"]
    help: str
    aliases: tuple[str, ...] = ()
    of_rows: Literal["right", "score", ""] = ""


MEASURES: dict[str, Measure] = {
    "accuracy": Measure("Accuracy", "", "higher", "Share of test rows whose answer is the right label.", of_rows="right"),
    "macro_f1": Measure("Macro F1", "", "higher", "F1 of each label, averaged over the labels of the test set."),
    "exact_match": Measure(
        "Exact match",
        "",
        "higher",
        "Share of test rows whose answer is the reference but for case, punctuation and articles.",
        ("em",),
        "right",
    ),
    "numeric_match": Measure("Right numbers", "", "higher", "Share of test rows whose number is the right one.", of_rows="right"),
    "token_f1": Measure(
        "Token F1",
        "",
        "higher",
        "F1 of the words that answer and reference share (SQuAD), averaged over rows.",
        of_rows="score",
    ),
    "rouge_l": Measure(
        "ROUGE-L",
        "",
        "higher",
        "F of the longest common subsequence of words, averaged over rows.",
        ("rougel", "rouge"),
        "score",
    ),
    "rouge_1": Measure("ROUGE-1", "", "higher", "F of the words in common, averaged over rows.", ("rouge1",), "score"),
    "rouge_2": Measure("ROUGE-2", "", "higher", "F of the pairs of words in common, averaged over rows.", ("rouge2",), "score"),
    "chrf": Measure(
        "chrF", "", "higher", "F of the character n-grams in common over the whole test set, from 0 to 1.", ("chrf_score",)
    ),
    "bleu": Measure("BLEU", "", "higher", "BLEU over the whole test set, from 0 to 100.", ("bleu_score",)),
    "entity_f1": Measure(
        "Entity F1", "", "higher", "F1 over all pairs of field and value, of the whole test set.", ("slot_f1", "field_f1")
    ),
    "win_rate": Measure(
        "Win rate",
        "",
        "higher",
        "Share of test rows whose answer a judge prefers to the reference in both orders; ties count half, so 0.5 is as good as "
        "the references.",
        of_rows="score",
    ),
    "valid_share": Measure("Valid answers", "", "higher", "Share of answers that are valid at all; others count as wrong."),
    "share_of_teacher": Measure("Share of teacher", "", "higher", "Primary measure divided by the float32 teacher's.", ("kept",)),
    "parameters": Measure("Parameters", "", "lower", "Numbers in the model, tied ones counted once."),
    "size_mb": Measure("Size", "MB", "lower", "Files that are needed to run the model, in millions of bytes.", ("disk_mb",)),
    "memory_mb": Measure(
        "Memory",
        "MiB",
        "lower",
        "Resident memory that only this process holds, after warm-up requests, less that of the engine with a tiny random model.",
    ),
    "process_mb": Measure(
        "Process", "MiB", "lower", "Resident memory of a process that serves this model alone, after warm-up requests."
    ),
    "latency_p50_ms": Measure(
        "Latency p50", "ms", "lower", "Median time of a request, one at a time, from text to answer.", ("inference_time_ms",)
    ),
    "latency_p95_ms": Measure(
        "Latency p95", "ms", "lower", "Time that 95 % of the requests stay below, one at a time.", ("p95_latency_ms",)
    ),
    "requests_per_s": Measure(
        "Requests/s",
        "1/s",
        "higher",
        "Requests answered a second, one at a time or in batches, whichever is faster for the engine.",
    ),
    "cost_per_million": Measure(
        "Cost per million", "", "lower", "Price of the machine-hours that a million requests take at that rate."
    ),
}


COSTS = (
    *("parameters", "size_mb", "memory_mb", "process_mb"),
    *("latency_p50_ms", "latency_p95_ms", "requests_per_s", "cost_per_million"),
)
"""Measures of what a model costs; those of the answers are a task's own."""


def against_teacher(name: str) -> Measure:
    """A measure of answers as it reads where the references are the teacher's answers and no gold."""
    known = MEASURES[name]
    if name in (*COSTS, "valid_share", "share_of_teacher"):
        return known
    title = "Agreement with the teacher" if known.of_rows == "right" else f"{known.title} against the teacher"
    return replace(known, title=title, help=f"The teacher's own answers stand for the right ones, there is no gold. {known.help}")


def measure_name(name: str) -> str:
    """The table's name of a measure, given that or an alias.

    Raises:
        UsageError: No such measure; the message has the nearest.
    """
    if name in MEASURES:
        return name
    for known, measure in MEASURES.items():
        if name in measure.aliases:
            return known
    raise UsageError(f"unknown measure {name!r}", fix=nearest(name, MEASURES))
