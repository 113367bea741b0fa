"""Whether a converted model is still the model it was made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_SHOWN = 3


@dataclass(frozen=True)
class Side:
    """What one of two models made of the same rows.

    Args:
        prompts: The rendered template of each row.
        tokens: Token ids of each prompt, by this side's own tokenizer.
        answers: Greedy answer to each prompt.
    """

    prompts: Sequence[str]
    tokens: Sequence[Sequence[int]]
    answers: Sequence[str]


@dataclass(frozen=True)
class Parity:
    """How far two models agree.

    Args:
        rows: Rows compared.
        template_equal: Whether every prompt is rendered to the same bytes.
        tokens_equal: Whether every prompt has the same token ids.
        agreement: Share of equal answers; of free answers, how alike they are on average.
        mismatches: A few rows that differ: prompt, reference's answer, candidate's answer.
    """

    rows: int
    template_equal: bool
    tokens_equal: bool
    agreement: float
    mismatches: tuple[tuple[str, str, str], ...]


def compare(reference: Side, candidate: Side, likeness: Callable[[str, str], float] = lambda left, right: 0.0) -> Parity:
    """Compare two models on the same rows; answers are compared without outer white space.

    Args:
        reference: The model before its conversion.
        candidate: The converted one.
        likeness: How alike two answers are that are not equal, from 0 to 1.
    """
    rows = len(reference.answers)
    different = [
        (prompt, left.strip(), right.strip())
        for prompt, left, right in zip(reference.prompts, reference.answers, candidate.answers, strict=True)
        if left.strip() != right.strip()
    ]
    alike = rows - len(different) + sum(likeness(left, right) for _, left, right in different)
    return Parity(
        rows=rows,
        template_equal=list(reference.prompts) == list(candidate.prompts),
        tokens_equal=[list(ids) for ids in reference.tokens] == [list(ids) for ids in candidate.tokens],
        agreement=alike / rows if rows else 1.0,
        mismatches=tuple(different[:_SHOWN]),
    )
