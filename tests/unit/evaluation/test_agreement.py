"""Agreement of raters against published worked examples."""

from __future__ import annotations

import numpy as np
import pytest

from slmops.evaluation.agreement import cohen_kappa, krippendorff_alpha, percent_agreement


def items(*raters: str) -> list[list[str | None]]:
    """An item a line, from a line a rater; a dot is a missing rating."""
    return [[None if mark == "." else mark for mark in item] for item in zip(*raters, strict=True)]


@pytest.mark.parametrize(
    ("raters", "alpha"),
    [
        # Krippendorff (2011), Computing Krippendorff's alpha-reliability: two observers with two values, two with five,
        # and four observers of whom ratings are missing.
        (("0100000001", "1110010000"), 0.095),
        (("aabbdcccedda", "babbbccceddd"), 0.692),
        (("123321412...", "1233224125.3", ".3332342251.", "12332441251."), 0.743),
    ],
)
def test_alpha_is_the_published_one(raters: tuple[str, ...], alpha: float) -> None:
    assert krippendorff_alpha(items(*raters)) == pytest.approx(alpha, abs=5e-4)


def test_kappa_is_the_published_one() -> None:
    # Cohen (1960), A coefficient of agreement for nominal scales: 200 cases in three categories.
    table = {"11": 88, "12": 14, "13": 18, "21": 10, "22": 40, "23": 10, "31": 2, "32": 6, "33": 12}
    cells = [cell for cell, count in table.items() for _ in range(count)]
    assert cohen_kappa([cell[0] for cell in cells], [cell[1] for cell in cells]) == pytest.approx(0.492, abs=5e-4)


def test_full_agreement_is_one_and_less_than_chance_is_negative() -> None:
    assert cohen_kappa("abab", "abab") == krippendorff_alpha(items("abab", "abab", "abab")) == 1
    assert cohen_kappa("abab", "baba") == -1
    assert (krippendorff_alpha(items("abab", "baba")) or 0) < 0


def test_what_chance_alone_decides_has_no_coefficient() -> None:
    assert cohen_kappa("aaa", "aaa") is None
    assert krippendorff_alpha(items("aaa", "aaa")) is None
    assert krippendorff_alpha(items("ab.", "..b")) is None


def test_percent_agreement_is_that_of_pairs_on_rows_judged_twice() -> None:
    assert percent_agreement(items("aab", "aba", "ab.")) == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert percent_agreement(items("a.", ".b")) is None


def test_kappa_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="the extra 'evaluate' is not installed")
    rng = np.random.default_rng(3)
    for _ in range(20):
        first = rng.choice(["A", "B", "tie"], 60, p=[0.5, 0.3, 0.2])
        second = np.where(rng.random(60) < 0.6, first, rng.choice(["A", "B", "tie"], 60))
        assert cohen_kappa(list(first), list(second)) == pytest.approx(metrics.cohen_kappa_score(first, second))
