"""Balance, diversity, and how far several answers agree."""

from __future__ import annotations

from collections import Counter

import pytest

from slmops.data.quality.agreement import agreement, majority
from slmops.data.quality.balance import alike_labels, distinct, evenness, over_represented, rare_labels
from slmops.data.rows import Row


def test_evenness_is_one_for_equal_counts_and_falls_with_imbalance() -> None:
    assert evenness([50, 50, 50]) == pytest.approx(1)
    assert evenness([149, 1]) == pytest.approx(0.0579, abs=1e-3)
    assert evenness([10]) == evenness([]) == 0.0


def test_distinct_n_counts_word_n_grams_without_case() -> None:
    texts = ["the cat", "The dog", "the cat"]
    assert distinct(texts, 1) == pytest.approx(3 / 6)
    assert distinct(texts, 2) == pytest.approx(2 / 3)
    assert distinct(texts, 3) is None


def test_the_commonest_labels_lose_what_is_too_much() -> None:
    rows = [Row.of(f"{label} {n}", label) for label, count in (("a", 100), ("b", 20), ("c", 10)) for n in range(count)]
    surplus = over_represented(rows, 1.5, lambda row: row.question, seed=0)
    assert Counter(name[0] for name in surplus) == {"a": 70}
    assert set(surplus.values()) == {(100, 30)}
    assert surplus != over_represented(rows, 1.5, lambda row: row.question, seed=1)
    assert surplus == over_represented(rows[::-1], 1.5, lambda row: row.question, seed=0)


def test_labels_that_are_probably_one_and_labels_with_few_rows() -> None:
    assert alike_labels(["card_arrival", "Card arrival", "pin", "+", "-"]) == [("Card arrival", "card_arrival")]
    assert rare_labels(Counter({"a": 100, "b": 4, "c": 5})) == ["b"]


def test_agreement_of_several_teachers() -> None:
    answers = {"q1": ["yes", "yes", "yes"], "q2": ["yes", "no", "yes"], "q3": ["no", "no"], "q4": ["yes"]}
    found = agreement(answers)
    assert (found.questions, found.unanimous) == (3, 2)
    assert found.pairwise == pytest.approx(5 / 7)
    assert found.confused == (("no", "yes", 2),)


def test_alpha_is_one_for_agreement_and_zero_for_chance() -> None:
    assert agreement({"1": ["a", "a"], "2": ["b", "b"]}).alpha == 1
    # Krippendorff (2011): two observers, ten units, binary data.
    one, other = "0100000000", "1110010010"
    known = agreement({str(unit): pair for unit, pair in enumerate(zip(one, other, strict=True))})
    assert known.alpha == pytest.approx(0.095, abs=5e-4)
    assert agreement({"1": ["a", "a"], "2": ["a", "a"]}).alpha is None
    assert agreement({}).pairwise is None


def test_the_majority_is_one_answer_that_leads() -> None:
    assert majority(["a", "b", "a"]) == ("a", pytest.approx(2 / 3))
    assert majority(["a", "b"]) is None
    assert majority(["a"]) == ("a", 1.0)
    assert majority([]) is None
