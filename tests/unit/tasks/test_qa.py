"""Letters, passages and open answers are read and scored."""

from __future__ import annotations

import pytest

from slmops.tasks.base import AnswerError, open_task
from slmops.tasks.qa import QuestionAnswering
from slmops.tasks.scores import token_f1

CHOICE = open_task("qa", {})


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("B) populated areas", "B"),
        ("**B**", "B"),
        ("Answer: B", "B"),
        ("The answer is (B) populated areas.", "B"),
        ("People live there, so (B) fits best.", "B"),
        ("I weighed (A) and (B). The correct answer is B.", "B"),
        ('{"answer_choice": "B"}', "B"),
    ],
)
def test_a_letter_is_read(text: str, letter: str) -> None:
    assert CHOICE.parse(text) == letter


@pytest.mark.parametrize(
    ("text", "reason"),
    [("A man goes there", "not a choice"), ("F", "not a choice"), ("Both (A) and (B)", "several choices")],
)
def test_other_texts_are_refused(text: str, reason: str) -> None:
    with pytest.raises(AnswerError, match=reason):
        CHOICE.parse(text)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], {"kind": "multiple_choice"}),
        (["A", "C"], {"kind": "multiple_choice", "choices": ["A", "B", "C", "D", "E"]}),
        (["(H)", "(B)"], {"kind": "multiple_choice", "choices": list("ABCDEFGH")}),
        (["1", "4", "2"], {"kind": "multiple_choice", "choices": ["1", "2", "3", "4"]}),
        (["0", "1"], {"kind": "multiple_choice", "choices": ["0", "1"]}),
        (["Rome", "in 1999"], {"kind": "open"}),
    ],
)
def test_the_data_says_what_kind_of_answers_there_are(answers: list[str], expected: dict[str, object]) -> None:
    assert QuestionAnswering.complete({}, answers) == expected


def test_passages_are_the_same_but_for_case_punctuation_and_articles() -> None:
    task = open_task("qa", {"kind": "extractive"})
    assert task.correct('"The Eiffel Tower."', "eiffel tower")
    assert not task.correct("the tower", "Eiffel Tower")
    assert task.primary_measure == "exact_match"
    assert task.score(["the Eiffel tower", "", "a tower"], ["Eiffel Tower"] * 3) == {
        "exact_match": pytest.approx(1 / 3),
        "token_f1": pytest.approx((1 + 0 + 2 / 3) / 3),
        "valid_share": pytest.approx(2 / 3),
    }


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        ("the cat sat", "a cat sat down", 0.8),
        ("cat cat", "cat", 2 / 3),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("the", "a", 0.0),
        ("?", "?", 1.0),
    ],
)
def test_token_f1_is_that_of_squad(answer: str, reference: str, f1: float) -> None:
    assert token_f1(answer, reference) == pytest.approx(f1)
