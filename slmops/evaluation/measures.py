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
    "macro_f1": Measure(
        "Macro F1", "", "higher", "F1 of each label, averaged over the labels of the test set.", ("f1", "f1_score", "macro-f1")
    ),
    "exact_match": Measure(
        "Exact match",
        "",
        "higher",
        "Share of test rows whose answer is the reference but for case, punctuation and articles.",
        ("em", "exact"),
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
    "macro_precision": Measure(
        "Macro precision", "", "higher", "Precision of each label, averaged over the labels of the test set.", ("precision",)
    ),
    "macro_recall": Measure(
        "Macro recall", "", "higher", "Recall of each label, averaged over the labels of the test set.", ("recall",)
    ),
    "micro_f1": Measure(
        "Micro F1", "", "higher", "F1 of all labels together; it is the accuracy where every answer is a label.", ("micro-f1",)
    ),
    "micro_precision": Measure("Micro precision", "", "higher", "Share of the answers that are labels that are right."),
    "micro_recall": Measure("Micro recall", "", "higher", "Share of the test rows whose label is found."),
    "weighted_f1": Measure(
        "Weighted F1", "", "higher", "F1 of each label, averaged by the rows that the label has.", ("weighted-f1",)
    ),
    "weighted_precision": Measure(
        "Weighted precision", "", "higher", "Precision of each label, averaged by the rows that the label has."
    ),
    "weighted_recall": Measure("Weighted recall", "", "higher", "Recall of each label, averaged by the rows that the label has."),
    "entity_precision": Measure(
        "Entity precision", "", "higher", "Share of the answers' pairs of field and value that are the reference's."
    ),
    "entity_recall": Measure("Entity recall", "", "higher", "Share of the references' pairs of field and value that are found."),
    "schema_valid": Measure(
        "Follows the schema",
        "",
        "higher",
        "Share of answers that follow the task's JSON schema as they stand, nothing repaired.",
        ("schema_validity",),
    ),
    "assertion_rate": Measure(
        "Assertions hold", "", "higher", "Share of answers for which all that the user asserts holds.", ("pass_rate", "assertions")
    ),
    "agreement": Measure(
        "Agreement with the teacher", "", "higher", "Share of test rows whose answer is the teacher's.", ("teacher_agreement",)
    ),
    "validation_loss": Measure(
        "Validation loss",
        "nats",
        "lower",
        "Mean loss of the answers' tokens, their end included, over the validation rows; depends on the tokenizer.",
        ("eval_loss", "val_loss"),
    ),
    "perplexity": Measure(
        "Perplexity",
        "",
        "lower",
        "Exponential of the mean loss of the references' tokens; depends on the tokenizer.",
        ("ppl",),
    ),
    "byte_perplexity": Measure(
        "Perplexity per byte", "", "lower", "Exponential of the loss of the reference texts over their bytes; tokenizers compare."
    ),
    "bits_per_byte": Measure(
        "Bits per byte", "", "lower", "Loss of the reference texts in bits over their UTF-8 bytes; tokenizers compare.", ("bpb",)
    ),
    "ece": Measure(
        "Calibration error",
        "",
        "lower",
        "Gap between confidence and accuracy in 15 bins of confidence, averaged by rows (ECE).",
        ("calibration", "calibration_error"),
    ),
    "similarity": Measure(
        "Similarity",
        "",
        "higher",
        "Cosine of the embeddings of answer and reference, averaged.",
        ("embedding_similarity",),
    ),
    "rubric_score": Measure(
        "Rubric", "", "higher", "Grade from 1 to 5 that a judge gives an answer by a rubric, averaged over rows.", ("rubric",)
    ),
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
        "Latency p50",
        "ms",
        "lower",
        "Median time of a request, one at a time, from text to answer.",
        ("inference_time_ms", "inference_time", "latency_ms"),
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
    # What answering costs besides (evaluation.running, evaluation.memory, evaluation.energy).
    "latency_p99_ms": Measure(
        "Latency p99",
        "ms",
        "lower",
        "Time that 99 % of the requests stay below, one at a time; of fewer than 100 requests about the slowest.",
        ("p99_latency_ms",),
    ),
    "ttft_p50_ms": Measure(
        "First token p50",
        "ms",
        "lower",
        "Median time from a request to the first text of its answer, one at a time.",
        ("time_to_first_token_ms", "ttft_ms"),
    ),
    "ms_per_token": Measure(
        "Time per token",
        "ms",
        "lower",
        "Mean time of a token after the first, the one that ends an answer included, one request at a time.",
        ("time_per_token_ms",),
    ),
    "peak_memory_mb": Measure(
        "Peak memory",
        "MiB",
        "lower",
        "The process's peak less that of the engine with a tiny random model.",
        ("memory_peak_mb",),
    ),
    "peak_process_mb": Measure(
        "Peak of the process",
        "MiB",
        "lower",
        "Largest resident memory that the process ever had, loading the model and answering in batches included.",
        ("peak_rss_mb",),
    ),
    "cpu_cores_used": Measure(
        "CPU cores used", "cores", "lower", "CPU seconds a second while requests are answered one at a time.", ("cpu_cores",)
    ),
    "joules_per_request": Measure(
        "Energy",
        "J",
        "lower",
        "Energy of the whole processor for a request, one at a time, idle draw included; only where the machine counts it.",
        ("energy_j",),
    ),
}


COSTS = (
    *("parameters", "size_mb", "memory_mb", "process_mb"),
    *("latency_p50_ms", "latency_p95_ms", "requests_per_s", "cost_per_million"),
    *("latency_p99_ms", "ttft_p50_ms", "ms_per_token", "peak_memory_mb", "peak_process_mb"),
    *("cpu_cores_used", "joules_per_request"),
)
"""Measures of what a model costs; those of the answers are a task's own."""


_IN_SECONDS = ("inference_time",)
_WITHOUT_REFERENCE = ("valid_share", "share_of_teacher", "schema_valid", "assertion_rate", "agreement")


def against_teacher(name: str) -> Measure:
    """A measure of answers as it reads where the references are the teacher's answers and no gold."""
    known = MEASURES[name]
    if name in (*COSTS, *_WITHOUT_REFERENCE):
        return known
    title = "Agreement with the teacher" if known.of_rows == "right" else f"{known.title} against the teacher"
    return replace(known, title=title, help=f"The teacher's own answers stand for the right ones, there is no gold. {known.help}")


def unit_of(name: str) -> float:
    """What a name's unit is in that of the measure it stands for: ``inference_time`` is in seconds, ``latency_p50_ms`` is not."""
    return 1_000.0 if name in _IN_SECONDS else 1.0


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
