"""Label noise, seen where several teachers or annotators answered the same question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Agreement:
    """How far several answers to the same questions agree.

    Args:
        questions: Questions with at least two answers.
        unanimous: Those on which all agree.
        pairwise: Share of equal answers among all pairs of answers to a question; ``None`` without such questions.
        alpha: Krippendorff's alpha for nominal answers: 1 is perfect, 0 is what chance gives; ``None`` where all are one.
        confused: Pairs of answers given to one question, with how often; the most frequent first.
    """

    questions: int
    unanimous: int
    pairwise: float | None
    alpha: float | None
    confused: tuple[tuple[str, str, int], ...]


def agreement(answers: Mapping[str, Sequence[str]]) -> Agreement:
    """Compare the answers to each question; what may differ in form must be in its normal form.

    Args:
        answers: Question to its answers, one for each teacher.
    """
    several = [given for given in answers.values() if len(given) > 1]
    pairs = [pair for given in several for pair in combinations(given, 2)]
    confused = Counter(tuple(sorted(pair)) for pair in pairs if pair[0] != pair[1])
    return Agreement(
        questions=len(several),
        unanimous=sum(len(set(given)) == 1 for given in several),
        pairwise=sum(one == other for one, other in pairs) / len(pairs) if pairs else None,
        alpha=_alpha(several),
        confused=tuple((one, other, count) for (one, other), count in confused.most_common(20)),
    )


def majority(answers: Sequence[str]) -> tuple[str, float] | None:
    """The answer most often given and its share; ``None`` where no single answer leads."""
    ranked = Counter(answers).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0], ranked[0][1] / len(answers)


def _alpha(several: Sequence[Sequence[str]]) -> float | None:
    """1 - observed / expected disagreement (Krippendorff 2011, section on nominal data)."""
    totals: Counter[str] = Counter(answer for given in several for answer in given)
    n = sum(totals.values())
    expected = n * n - sum(count * count for count in totals.values())
    if not expected:
        return None
    observed = 0.0
    for given in several:
        counts = Counter(given)
        observed += (len(given) ** 2 - sum(count * count for count in counts.values())) / (len(given) - 1)
    return 1 - (n - 1) * observed / expected
