"""Which layers of teacher and student are paired."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from slmops.config import build
from slmops.errors import ConfigError
from slmops.models.layers import Depths, choose_pairs, describe_pairs, linear_cka, most_alike, uniform_map
from slmops.training.objectives.hidden import HiddenStates


def depths(teacher: int = 12, student: int = 4, kept: tuple[int, ...] | None = None, alike: Any = None) -> Depths:
    def similarity() -> np.ndarray:
        assert alike is not None, "nothing is measured that is not needed"
        return np.asarray(alike)

    return Depths(teacher, student, kept, similarity)


@pytest.mark.parametrize(
    ("choice", "count", "kept", "theirs"),
    [
        ("uniform", None, (0, 1, 2, 3), {0: 1, 1: 4, 2: 7, 3: 10}),
        ("auto", None, None, {0: 1, 1: 4, 2: 7, 3: 10}),
        ("last", None, None, {0: 8, 1: 9, 2: 10, 3: 11}),
        # What comes out of a kept layer goes to the next kept one, as what the teacher's layer before that hands on does.
        ("auto", None, (0, 4, 7, 11), {0: 3, 1: 6, 2: 10, 3: 11}),
        ("auto", None, (0, 1, 2, 3), {0: 0, 1: 1, 2: 2, 3: 11}),
        ("auto", 2, (0, 4, 7, 11), {1: 6, 3: 11}),
        ("last", 1, None, {3: 11}),
        ("uniform", 9, None, {0: 1, 1: 4, 2: 7, 3: 10}),
        (((3, 11), (0, 0)), None, None, {3: 11, 0: 0}),
    ],
)
def test_a_rule_pairs_them(choice: Any, count: int | None, kept: tuple[int, ...] | None, theirs: dict[int, int]) -> None:
    assert choose_pairs(choice, count, depths(kept=kept)) == tuple(theirs.items())


def test_a_student_as_deep_as_its_teacher_is_paired_layer_by_layer() -> None:
    for choice in ("uniform", "last", "auto"):
        assert choose_pairs(choice, None, depths(3, 3)) == ((0, 0), (1, 1), (2, 2))


def test_similarity_takes_the_map_without_a_way_back_that_is_most_alike() -> None:
    alike = [[0.5, 0.1, 0.6, 0.0], [0.8, 0.3, 0.5, 0.1], [0.1, 0.9, 0.2, 0.5]]
    assert most_alike(np.array(alike)) == (0, 0, 1)  # the best of each row would be 2, 0, 1
    assert choose_pairs("similarity", None, depths(4, 3, alike=alike)) == ((0, 0), (1, 0), (2, 1))


def test_the_similarity_of_layers_does_not_know_rotation_scale_and_shift() -> None:
    generator = np.random.default_rng(0)
    vectors, others = generator.standard_normal((2, 40, 6))
    turn, _ = np.linalg.qr(generator.standard_normal((6, 6)))
    found = linear_cka([vectors, others], [3 * vectors @ turn + 1, others[:, :4]])
    assert found[0, 0] == pytest.approx(1)
    assert found[1, 1] > 0.6
    assert found[0, 1] < 0.4
    left, right = (values - values.mean(0) for values in (vectors, others[:, :4]))
    norm = np.linalg.norm
    assert found[0, 1] == pytest.approx(norm(right.T @ left) ** 2 / norm(left.T @ left) / norm(right.T @ right))


@pytest.mark.parametrize("pair", [(4, 0), (0, 12), (-1, 0)])
def test_pairs_of_layers_that_there_are_not_are_refused(pair: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"no pair of layers.*\n.*the student's are 0 to 3, the teacher's 0 to 11"):
        choose_pairs((pair,), None, depths())


def test_a_recipe_gives_a_rule_or_pairs() -> None:
    assert build(HiddenStates, {"layers": [[0, 3], [1, 7]]}, where="test").layers == ((0, 3), (1, 7))
    assert build(HiddenStates, {"layers": "similarity"}, where="test").layers == "similarity"
    with pytest.raises(ConfigError, match="layers"):
        build(HiddenStates, {"layers": "first"}, where="test")


def test_they_are_described_in_one_line() -> None:
    assert describe_pairs(tuple(enumerate(uniform_map(6, 3)))) == "0←1 1←3 2←5"
    assert describe_pairs(tuple(enumerate(uniform_map(30, 30)))) == "0←0 1←1 2←2 3←3 … 27←27 28←28 29←29"
