"""What answers and references have in common: words, n-grams, fields."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np

from slmops.errors import ConfigError
from slmops.evaluation.outputs import Outputs
from slmops.evaluation.tally import Tally
from slmops.tasks.extraction import Extraction
from slmops.tasks.scores import bleu_metric, rouge_of_rows, token_f1
from slmops.tasks.translation import Translation

_CHARACTERS = 6
_BETA = 2


def token_f1_tally(outputs: Outputs) -> Tally:
    """Mean token F1 (SQuAD)."""
    return Tally.mean([token_f1(text, reference) for text, reference in zip(outputs.texts, outputs.expected, strict=True)])


def rouge_tally(outputs: Outputs, name: str) -> Tally:
    """Mean F of ``rouge_1``, ``rouge_2`` or ``rouge_l``.

    Raises:
        MissingExtraError: rouge-score is not installed.
    """
    return Tally.mean(rouge_of_rows(outputs.texts, outputs.expected, (name,))[name])


def bleu_tally(outputs: Outputs) -> Tally:
    """BLEU of the corpus, from 0 to 100; a row has its lengths, its n-grams that match and all its n-grams.

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """
    metric = bleu_metric(outputs.task.bleu_tokenizer if isinstance(outputs.task, Translation) else "13a")
    pairs = zip(outputs.texts, outputs.expected, strict=True)
    found = [metric.sentence_score(text, [reference]) for text, reference in pairs]
    return Tally(np.array([[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in found], dtype=np.float64), _bleu)


def chrf_tally(outputs: Outputs) -> Tally:
    """ChrF of the corpus (Popović 2015), from 0 to 1, as sacrebleu has it: up to six characters, no white space, beta 2."""
    pairs = zip(outputs.texts, outputs.expected, strict=True)
    return Tally(np.array([_character_counts(text, reference) for text, reference in pairs], dtype=np.float64), _chrf)


def entity_tally(outputs: Outputs, kind: Literal["precision", "recall", "f1"]) -> Tally:
    """Precision, recall or F1 over all pairs of field and value; where there are none at all, whether every row is right.

    Raises:
        ConfigError: The task is no extraction.
    """
    task = outputs.task
    if not isinstance(task, Extraction):
        raise ConfigError("measures of entities need answers with fields", fix="use the task type extraction")
    pairs = zip(outputs.answers, outputs.references, strict=True)
    rows = np.array([[*task.counts(answer, reference), 1] for answer, reference in pairs], dtype=np.float64)

    def of(sums: np.ndarray) -> np.ndarray:
        hits, claimed, actual, right, count = np.moveaxis(sums, -1, 0)
        above = 2 * hits if kind == "f1" else hits
        below = {"precision": claimed, "recall": actual, "f1": claimed + actual}[kind]
        empty = np.where(claimed + actual > 0, 0.0, np.where(right == count, 1.0, 0.0))
        return np.where(below > 0, above / np.maximum(below, 1), empty)

    return Tally(rows, of)


def _character_counts(text: str, reference: str) -> list[int]:
    """Of each length the n-grams of the text, of the reference, and those in common."""
    given, expected = "".join(text.split()), "".join(reference.split())
    counts: list[int] = []
    for length in range(1, _CHARACTERS + 1):
        own, other = _grams(given, length), _grams(expected, length)
        # A length that the reference is too short for does not count against the text.
        counts += [own.total() if other else 0, other.total(), (own & other).total()]
    return counts


def _grams(text: str, length: int) -> Counter[str]:
    return Counter(text[start : start + length] for start in range(len(text) - length + 1))


def _bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU from sums, smoothed as mteval does (sacrebleu's ``exp``), over the orders that any answer is long enough for."""
    given, expected = sums[..., 0], sums[..., 1]
    common, grams = np.split(sums[..., 2:], 2, axis=-1)
    known = grams > 0
    # Every order without a match counts half as much as the one before.
    halved = 0.5 ** (known & (common == 0)).cumsum(-1)
    precision = np.where(common > 0, common, halved) / np.where(known, grams, 1)
    logs = np.where(known, np.log(precision), 0.0).sum(-1) / np.maximum(known.sum(-1), 1)
    brevity = np.minimum(0.0, 1 - expected / np.maximum(given, 1))
    return np.where((common > 0).any(-1), 100 * np.exp(brevity + logs), 0.0)


def _chrf(sums: np.ndarray) -> np.ndarray:
    given, expected, common = np.moveaxis(sums.reshape(*sums.shape[:-1], _CHARACTERS, 3), -1, 0)
    known = (given > 0) & (expected > 0)
    lengths = np.maximum(known.sum(-1), 1)
    precision = np.where(known, common / np.maximum(given, 1), 0.0).sum(-1) / lengths
    recall = np.where(known, common / np.maximum(expected, 1), 0.0).sum(-1) / lengths
    below = _BETA**2 * precision + recall
    return np.where(below > 0, (1 + _BETA**2) * precision * recall / np.where(below > 0, below, 1.0), 0.0)
