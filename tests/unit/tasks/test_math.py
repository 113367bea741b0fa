"""A number is found where people and models write it, and equal numbers are equal however they are written."""

from __future__ import annotations

import pytest

from slmops.tasks.base import AnswerError, open_task

TASK = open_task("math", {})


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("72", "72"),
        ("1,000", "1000"),
        ("1000.0", "1000"),
        ("1\u00a0000 km", "1000"),
        ("$1,234,567.50", "1234567.5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("− 7", "-7"),
        ("The answer is -5.", "-5"),
        ("50 %", "50"),
        ("50\\%", "50"),
        ("3/4", "0.75"),
        ("1/3", "1/3"),
        ("2 1/2 hours", "2.5"),
        ("2½", "2.5"),
        (".5", "0.5"),
        ("1.2e3", "1200"),
        ("\\frac{1}{8}", "0.125"),
        ("\\boxed{\\dfrac{3}{2}}", "1.5"),
        ("\\boxed{1{,}000\\text{ m}}", "1000"),
        ("48 + 24 = <<48+24=72>>72 clips.\n#### 72", "72"),
        ("First 5 - 3 = 2.\n#### 2\n\nThat is it.", "2"),
        ("It is 3, so \\boxed{4}. I checked 5 times.", "4"),
        ("There are 3 boxes of 4. The final answer is 12 apples, not 7.", "12"),
        ("Answer: 5 + 3 = 8", "8"),
        ("x = 9", "9"),
        ("He buys 3 and sells 2, so 1", "1"),
        ("共72个", "72"),
        ('{"reason": "3 times 4", "answer": 12}', "12"),
        ("10-4=6", "6"),
    ],
)
def test_a_number_is_read(text: str, number: str) -> None:
    assert TASK.parse(text) == number


@pytest.mark.parametrize("text", ["none", "x + y", "1/0", "v2x", "#### none", "9" * 5000])
def test_what_is_no_number_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(AnswerError, match="no number: "):
        TASK.parse(text)


def test_numbers_are_compared_by_value() -> None:
    assert TASK.correct("1,000", "1000.0")
    assert TASK.correct("0.3333333333", "1/3")
    assert not TASK.correct("0.33", "1/3")
    assert open_task("math", {"tolerance": 0.02}).correct("0.33", "1/3")
    assert not TASK.correct("-72", "72")
    assert not TASK.correct("unknown", "72")
    assert TASK.score(["72", "71", "?"], ["72"] * 3) == {
        "numeric_match": pytest.approx(1 / 3),
        "valid_share": pytest.approx(2 / 3),
    }


def test_reasoning_that_breaks_off_is_no_answer_where_reasoning_was_asked_for() -> None:
    cut = "First he has 12 apples and then he buys 30 more, which makes"
    assert TASK.parse(cut) == "30"
    with pytest.raises(AnswerError, match="no answer behind the reasoning"):
        open_task("math", {"chain_of_thought": True}).parse(cut)
    assert open_task("math", {"chain_of_thought": True}).parse("42 apples") == "42"


def test_the_rationale_of_a_worked_answer_loses_the_calculator_marks() -> None:
    assert TASK.rationale("48/2 = <<48/2=24>>24 in May.\n#### 72") == "48/2 = 24 in May."
    assert TASK.rationale("72") is None
