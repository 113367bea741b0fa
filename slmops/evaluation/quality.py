"""Measures of answers, each as numbers of rows that add up: the one way from outputs to a measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from slmops.errors import ConfigError
from slmops.evaluation import classes, overlap, validity
from slmops.evaluation.calibration import ece_tally
from slmops.evaluation.measures import measure_name
from slmops.evaluation.outputs import Outputs as Outputs
from slmops.evaluation.own_metric import own_tally, scored_by_task, task_tally
from slmops.evaluation.perplexity import perplexity_tally
from slmops.evaluation.tally import Tally
from slmops.tasks.base import closed_labels, names_file
from slmops.tasks.extraction import Extraction

_MAKERS: dict[str, Callable[[Outputs], Tally]] = {
    "accuracy": validity.right_tally,
    "exact_match": validity.right_tally,
    "numeric_match": validity.numeric_tally,
    "valid_share": validity.valid_tally,
    "schema_valid": validity.schema_tally,
    "assertion_rate": validity.assertion_tally,
    "agreement": validity.agreement_tally,
    "macro_f1": partial(classes.label_tally, average="macro", kind="f1"),
    "macro_precision": partial(classes.label_tally, average="macro", kind="precision"),
    "macro_recall": partial(classes.label_tally, average="macro", kind="recall"),
    "micro_f1": partial(classes.label_tally, average="micro", kind="f1"),
    "micro_precision": partial(classes.label_tally, average="micro", kind="precision"),
    "micro_recall": partial(classes.label_tally, average="micro", kind="recall"),
    "weighted_f1": partial(classes.label_tally, average="weighted", kind="f1"),
    "weighted_precision": partial(classes.label_tally, average="weighted", kind="precision"),
    "weighted_recall": partial(classes.label_tally, average="weighted", kind="recall"),
    "token_f1": overlap.token_f1_tally,
    "rouge_1": partial(overlap.rouge_tally, name="rouge_1"),
    "rouge_2": partial(overlap.rouge_tally, name="rouge_2"),
    "rouge_l": partial(overlap.rouge_tally, name="rouge_l"),
    "bleu": overlap.bleu_tally,
    "chrf": overlap.chrf_tally,
    "entity_f1": partial(overlap.entity_tally, kind="f1"),
    "entity_precision": partial(overlap.entity_tally, kind="precision"),
    "entity_recall": partial(overlap.entity_tally, kind="recall"),
    "perplexity": partial(perplexity_tally, kind="perplexity"),
    "byte_perplexity": partial(perplexity_tally, kind="byte_perplexity"),
    "bits_per_byte": partial(perplexity_tally, kind="bits_per_byte"),
    "ece": ece_tally,
}
_ELSEWHERE = {
    "win_rate": "ask a judge to compare the answers with the references",
    "rubric_score": "ask a judge for grades",
    "similarity": "name a model for the embeddings",
}
"""Measures whose scores come with the outputs, and how to get them."""

QUALITY = (*_MAKERS, *_ELSEWHERE)
"""The measures of answers by their names in the table."""

_BESIDE_LABELS = ("macro_precision", "macro_recall", "micro_f1", "weighted_f1")
_BESIDE_FIELDS = ("entity_precision", "entity_recall", "schema_valid")
LIKELIHOOD = ("perplexity", "byte_perplexity", "bits_per_byte")


def tally(measure: str, outputs: Outputs) -> Tally:
    """A measure of what a model made of the test rows.

    Args:
        measure: A name of the table or an alias, or the user's own: ``path/to/file.py`` or ``path/to/file.py:function``.
        outputs: Answers and what else is known of them.

    Raises:
        UsageError: No such measure.
        ConfigError: It is no measure of answers, does not fit the task, or needs what the outputs lack; the message says what.
        DataError: A row has no right answer to compare with.
        MissingExtraError: A package that it needs is not installed.
    """
    if names_file(measure):
        return own_tally(measure, outputs)
    name = measure_name(measure)
    if name in outputs.scores:
        return mean_where_known(outputs.scores[name])
    if name in _ELSEWHERE:
        raise ConfigError(f"there are no scores of the rows for {name}", fix=_ELSEWHERE[name])
    if name not in _MAKERS:
        raise ConfigError(f"{name} is no measure of answers", fix="those are: " + ", ".join(QUALITY))
    return task_tally(name, outputs) if name in scored_by_task(outputs) else _MAKERS[name](outputs)


def tallies(outputs: Outputs, measures: Sequence[str] | None = None) -> dict[str, Tally]:
    """Several measures, by the names they were asked with.

    Args:
        outputs: Answers and what else is known of them.
        measures: Which; left out: the task's own and those that fit it, as far as the outputs allow.

    Raises:
        SlmopsError: As :func:`tally`.
    """
    return {name: tally(name, outputs) for name in (fitting(outputs) if measures is None else measures)}


def fitting(outputs: Outputs) -> list[str]:
    """The measures that a task scores by itself, then those that fit its answers and for which the outputs have what they need."""
    names = list(outputs.scored)
    if closed_labels(outputs.task) is not None:
        names += [*_BESIDE_LABELS, *(["ece"] if outputs.confidences is not None else [])]
    if isinstance(outputs.task, Extraction):
        names += _BESIDE_FIELDS
    if validity.assertions_of(outputs.task):
        names.append("assertion_rate")
    names += ["agreement"] if outputs.teacher is not None else []
    names += LIKELIHOOD if outputs.losses is not None else ()
    return list(dict.fromkeys([*names, *outputs.scores]))


def mean_where_known(scores: Sequence[float]) -> Tally:
    """The mean of one score a row; a row with NaN does not count."""
    values = np.asarray(scores, dtype=np.float64)
    known = np.isfinite(values)
    return Tally.ratio(np.where(known, values, 0.0), known.astype(np.float64))
