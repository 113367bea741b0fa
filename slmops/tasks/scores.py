"""Scores of free text against references; all are shares from 0 to 1 but for BLEU, which is written from 0 to 100."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

from slmops.errors import MissingExtraError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}


def plain(text: str) -> str:
    """A text as SQuAD compares it (Rajpurkar et al. 2016): lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def same_text(answer: str, reference: str) -> bool:
    """Whether two texts are one after :func:`plain`; where nothing is left of them, as they stand."""
    left, right = plain(answer), plain(reference)
    return left == right if left or right else answer.split() == reference.split()


def token_f1(answer: str, reference: str) -> float:
    """F1 of the words two texts share after :func:`plain`, as SQuAD defines it; where either has none, whether both have none."""
    left, right = plain(answer).split(), plain(reference).split()
    if not left or not right:
        return float(same_text(answer, reference))
    common = (Counter(left) & Counter(right)).total()
    return 2 * common / (len(left) + len(right))


def mean_token_f1(answers: Sequence[str], references: Sequence[str]) -> float:
    """The mean of :func:`token_f1` over pairs."""
    scores = [token_f1(answer, reference) for answer, reference in zip(answers, references, strict=True)]
    return sum(scores) / max(len(scores), 1)


def exact_match(answers: Sequence[str], references: Sequence[str]) -> float:
    """Share of pairs that are the :func:`same_text`."""
    hits = [same_text(answer, reference) for answer, reference in zip(answers, references, strict=True)]
    return sum(hits) / max(len(hits), 1)


def rouge(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean F of ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004) with stemming.

    Raises:
        MissingExtraError: rouge-score is not installed.
    """
    found = rouge_of_rows(answers, references, tuple(_ROUGE))
    return {name: sum(scores) / max(len(scores), 1) for name, scores in found.items()}


def rouge_of_rows(answers: Sequence[str], references: Sequence[str], names: Sequence[str]) -> dict[str, list[float]]:
    """F of each pair by the names of measures: ``rouge_1``, ``rouge_2``, ``rouge_l``.

    Raises:
        MissingExtraError: rouge-score is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError as error:
        raise MissingExtraError("rouge-score", "evaluate") from error
    scorer = RougeScorer([_ROUGE[name] for name in names], use_stemmer=True)
    found = [scorer.score(reference, answer) for answer, reference in zip(answers, references, strict=True)]
    return {name: [score[_ROUGE[name]].fmeasure for score in found] for name in names}


def translation_scores(answers: Sequence[str], references: Sequence[str], *, tokenizer: str) -> dict[str, float]:
    """Of the whole corpus: chrF (Popović 2015) from 0 to 1, and BLEU (Papineni et al. 2002) from 0 to 100.

    Args:
        answers: Translations.
        references: One for each.
        tokenizer: sacrebleu's name of how BLEU splits words: ``13a``, ``zh``, ``char``, ``intl``, ...

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """
    bleu = bleu_metric(tokenizer)
    from sacrebleu.metrics.chrf import CHRF

    if not answers:
        return {"chrf": 0.0, "bleu": 0.0}
    return {
        "chrf": CHRF().corpus_score(list(answers), [list(references)]).score / 100,
        "bleu": bleu.corpus_score(list(answers), [list(references)]).score,
    }


def bleu_metric(tokenizer: str) -> Any:
    """The ``BLEU`` of sacrebleu as this package uses it.

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ModuleNotFoundError as error:
        raise MissingExtraError("sacrebleu", "evaluate") from error
    # Without effective order, a perfect corpus of texts under four words would have a BLEU of 0.
    return BLEU(tokenize=tokenizer, effective_order=True)
