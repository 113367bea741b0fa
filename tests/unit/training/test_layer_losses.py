"""Losses on layers against a plain computation in float64, by value and gradient, for heads and widths that differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from slmops.errors import ConfigError
from slmops.models.watching import Attended
from slmops.training.objectives.base import Answers, Matched
from slmops.training.objectives.hidden import HiddenStates
from slmops.training.objectives.matching import Matching
from slmops.training.registry import OBJECTIVES

ROWS, TOKENS, PADS = 2, 7, (0, 2)
COLUMNS = (3, 4, 5)
ANSWERS = ((0, 3), (0, 4), (1, 4), (1, 5))  # row and column
Vector = torch.Tensor


def attended(heads: int, shared: int, head: int, seed: int) -> Attended:
    generator = torch.Generator().manual_seed(seed)
    return Attended(*(torch.randn(ROWS, TOKENS, count, head, generator=generator) for count in (heads, shared, shared)))


def matched(student: tuple[int, int, int], teacher: tuple[int, int, int], pairs: int = 2) -> Matched:
    generator = torch.Generator().manual_seed(5)
    states = [tuple(torch.randn(len(ANSWERS), 5, generator=generator) for _ in range(2)) for _ in range(pairs)]
    layers = [(attended(*student, seed=10 + number), attended(*teacher, seed=20 + number)) for number in range(pairs)]
    read = torch.tensor([[column >= pad for column in range(TOKENS)] for pad in PADS])
    places = torch.tensor([row * len(COLUMNS) + COLUMNS.index(column) for row, column in ANSWERS])
    return Matched(tuple(states), tuple(layers), torch.tensor(COLUMNS), places, read)


def loss_of(objective: Matching, given: Matched) -> torch.Tensor:
    return objective(Answers(torch.zeros(len(ANSWERS), 0), torch.zeros(len(ANSWERS), dtype=torch.int64), matched=given))


def softmax(scores: Sequence[Vector]) -> Vector:
    whole = torch.stack(list(scores))
    exponentials = (whole - whole.max()).exp()
    return exponentials / exponentials.sum()


def kl(teacher: Vector, student: Vector) -> Vector:
    return sum((p * (p.log() - q.log()) for p, q in zip(teacher, student, strict=True)), torch.zeros((), dtype=torch.float64))


def mean(values: Sequence[Vector]) -> Vector:
    return sum(values, torch.zeros((), dtype=torch.float64)) / len(values)


def squares(teacher: Vector, student: Vector) -> Vector:
    return sum(((p - q) ** 2 for p, q in zip(teacher, student, strict=True)), torch.zeros((), dtype=torch.float64))


def relation(one: Attended, left: str, right: str, heads: int, row: int, column: int) -> list[Vector]:
    """Of each relation head the distribution at a column over the positions from the first token to it."""

    def side(name: str, position: int) -> Vector:
        vectors = getattr(one, name)[row, position]
        if {left, right} == {"queries", "keys"} and name == "keys":
            group = one.queries.shape[2] // one.keys.shape[2]
            vectors = torch.cat([vectors[number // group].unsqueeze(0) for number in range(one.queries.shape[2])])
        return vectors.flatten()

    found = []
    for head in range(heads):
        width = len(side(left, 0)) // heads
        part = slice(head * width, (head + 1) * width)
        earlier = range(PADS[row], column + 1)
        found.append(softmax([side(left, column)[part] @ side(right, other)[part] / math.sqrt(width) for other in earlier]))
    return found


SIDES = {
    "query-query": ("queries", "queries"),
    "key-key": ("keys", "keys"),
    "value-value": ("values", "values"),
    "query-key": ("queries", "keys"),
}


def expected_attention(given: Matched, names: Sequence[str], heads: int, between: Callable[[Vector, Vector], Vector]) -> Vector:
    losses = []
    for row, column in ANSWERS:
        terms = []
        for student, teacher in given.attention:
            for name in names:
                sides = [relation(one, *SIDES[name], heads, row, column) for one in (teacher, student)]
                terms.append(mean([between(p, q) for p, q in zip(*sides, strict=True)]))
        losses.append(mean(terms))
    return torch.stack(losses)


def expected_hidden(given: Matched, measure: str) -> Vector:
    def distance(own: Vector, theirs: Vector) -> Vector:
        if measure == "mse":
            return squares(own, theirs) / len(own)
        if measure == "relative":
            return squares(own, theirs) / (theirs @ theirs)
        return 1 - own @ theirs / (own @ own).sqrt() / (theirs @ theirs).sqrt()

    return torch.stack([mean([distance(own[n], theirs[n]) for own, theirs in given.hidden]) for n in range(len(ANSWERS))])


SAME, OTHER = ((4, 2, 3), (4, 2, 3)), ((2, 1, 6), (6, 3, 4))  # heads, heads that have keys of their own, width of a head
ALL = ("query-query", "key-key", "value-value")
CASES: list[tuple[str, dict[str, Any], Any, Callable[[Matched], Vector]]] = [
    *(
        ("hidden_states", {"measure": name}, SAME, lambda given, name=name: expected_hidden(given, name))
        for name in ("mse", "relative", "cosine")
    ),
    ("attention_relations", {}, SAME, lambda given: expected_attention(given, ALL, 3, kl)),
    ("attention_relations", {}, OTHER, lambda given: expected_attention(given, ALL, 2, kl)),
    ("attention_relations", {"heads": 6}, OTHER, lambda given: expected_attention(given, ALL, 6, kl)),
    (
        "attention_relations",
        {"relations": ["query-key", "value-value"], "heads": 1},
        OTHER,
        lambda given: expected_attention(given, ("query-key", "value-value"), 1, kl),
    ),
    ("attention_maps", {}, SAME, lambda given: expected_attention(given, ("query-key",), 4, kl)),
    ("attention_maps", {"measure": "mse"}, SAME, lambda given: expected_attention(given, ("query-key",), 4, squares)),
]


@pytest.mark.parametrize(("name", "options", "shapes", "expected"), CASES)
def test_value_and_gradient_are_those_of_a_plain_computation(
    name: str, options: dict[str, Any], shapes: Any, expected: Callable[[Matched], Vector]
) -> None:
    def followed(dtype: torch.dtype) -> tuple[Matched, list[torch.Tensor]]:
        given = matched(*shapes)
        leaves: list[torch.Tensor] = []

        def follow(tensor: torch.Tensor) -> torch.Tensor:
            leaves.append(tensor.to(dtype).requires_grad_(True))
            return leaves[-1]

        hidden = tuple((follow(own), theirs.to(dtype)) for own, theirs in given.hidden)
        attention = tuple(
            (Attended(*map(follow, vars(own).values())), Attended(*(side.to(dtype) for side in vars(theirs).values())))
            for own, theirs in given.attention
        )
        return Matched(hidden, attention, given.columns, given.places, given.read), leaves

    exact, exact_leaves = followed(torch.float64)
    wanted = expected(exact)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    gradients = torch.autograd.grad((weights * wanted).sum(), exact_leaves, allow_unused=True)
    given, leaves = followed(torch.float32)
    found = loss_of(OBJECTIVES.get(name)(**options), given)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    own = torch.autograd.grad((weights.float() * found).sum(), leaves, allow_unused=True)
    for gradient, one in zip(gradients, own, strict=True):
        assert (gradient is None) == (one is None or not one.any())
        if gradient is not None and one is not None:
            torch.testing.assert_close(one.double(), gradient, rtol=1e-4, atol=1e-6)


def test_maps_of_other_numbers_of_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"the teacher has 6 attention heads and the student 2.*\n.*take attention_relations"):
        loss_of(OBJECTIVES.get("attention_maps")(), matched(*OTHER))


def test_relation_heads_that_do_not_divide_the_widths_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"5 relation heads do not divide the widths 6, 12, 24\n.*take 1, 2, or leave it out"):
        loss_of(OBJECTIVES.get("attention_relations")(heads=5), matched(*OTHER))


def test_a_projection_is_learned_where_widths_differ_or_always() -> None:
    assert [HiddenStates().projects(4, width) for width in (4, 6)] == [False, True]
    assert HiddenStates(projection=True).projects(4, 4)
    assert not OBJECTIVES.get("attention_relations")().projects(4, 6)
