"""Test rows that stand in training data."""

from __future__ import annotations

import sys

import pytest

from slmops.data.rows import Row
from slmops.evaluation.leaks import leaked
from slmops.sections import QualitySection

REFUND = "I would like to have my money back for the broken kettle that came with the post this week, not later than"
PASSAGE = "the parcel was sent on monday from the northern warehouse and has not been seen by anyone since then"


def test_a_test_row_that_was_trained_on_is_found() -> None:
    pytest.importorskip("datasketch")
    train = [
        Row.of("Where is my parcel?", "delivery", "train.csv:2"),
        Row.of(f"{REFUND} yesterday", "refund", "train.csv:3"),
        Row.of(f"Please read this: {PASSAGE}. What should we tell the customer now that it is lost?", "delivery", "train.csv:4"),
    ]
    test = [
        Row.of("where is my parcel", "delivery"),
        Row.of(f"{REFUND} today", "refund"),
        Row.of(PASSAGE, "delivery"),
        Row.of("Do you open on sundays", "other"),
    ]
    found = leaked(test, train)
    assert [(leak.kind, leak.of.origin) for leak in found.found] == [
        ("same", "train.csv:2"),
        ("near", "train.csv:3"),
        ("inside", "train.csv:4"),
    ]
    assert (found.rows, found.share, found.near) == (4, 0.75, True)
    assert str(found.found[0]) == "'where is my parcel' is 'Where is my parcel?' (train.csv:2)"
    assert "stands, 100% of it, in 'Please read this" in str(found.found[2])


def test_other_numbers_and_other_answers_are_other_questions() -> None:
    train = [Row.of("what is the price of 12 large boxes of apples", "24"), Row.of("turn the light in the kitchen on", "on")]
    test = [Row.of("what is the price of 15 large boxes of apples", "24"), Row.of("turn the light in the kitchen off", "off")]
    assert leaked(test, train, QualitySection(near_duplicates=0.5)).found == ()


def test_without_the_extra_the_same_words_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    train = [Row.of("money back, please: the kettle is broken", "refund")]
    found = leaked([Row.of("Money back please (the kettle is broken)", "refund"), Row.of("money back for it", "refund")], train)
    assert [leak.kind for leak in found.found] == ["near"]
    assert not found.near


def test_no_rows_and_no_training_rows_leak_nothing() -> None:
    assert leaked([], [Row.of("a", "b")]).share == 0.0
    assert leaked([Row.of("a", "b")], []).found == ()
