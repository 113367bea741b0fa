"""Rows are asked, verified against gold, asked again where that helps, and labelled by who was right."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmops.data.rows import Row
from slmops.tasks.classification import Classification
from slmops.tasks.nli import Nli
from slmops.tasks.summarization import Summarization
from slmops.teachers.answered import Answered, LabelSource, answer_line, label
from slmops.teachers.asking import ask_rows
from slmops.teachers.base import Request
from slmops.teachers.replies import AskParams
from tests.unit.teachers.scripted import Scripted

TASK = Classification(labels=("delivery", "refund"))
PARAMS = AskParams(max_new_tokens=8)
SAYS = {  # by attempt
    "right at once": ("delivery", "refund", "refund"),
    "right at the second try": ("refund", "Delivery.", "refund"),
    "never right": ("refund", "a joke", "refund"),
    "valid late": ("a joke", "another", "refund"),
    "never valid": ("a joke", "", "a third joke"),
}
ROWS = [Row.of(question, None if "valid" in question else "delivery") for question in SAYS]


def scripted() -> Scripted:
    return Scripted("scripted", lambda request: SAYS[request.messages[-1]["content"]][request.params.draw])


def ask(work: Path, teacher: Scripted, retries: int) -> Answered:
    return ask_rows(teacher, ROWS, TASK, PARAMS, work, retries=retries, retry_temperature=0.9)


def test_what_is_wrong_or_invalid_is_asked_again_at_temperature(tmp_path: Path) -> None:
    teacher = scripted()
    answered = ask(tmp_path, teacher, 2)
    assert [(one.row.question, one.raw, one.right, one.tries) for one in answered.given] == [
        ("right at once", "delivery", True, 0),
        ("right at the second try", "Delivery.", True, 1),
        ("never right", "refund", False, 0),
        ("valid late", "refund", None, 2),
        ("never valid", "a joke", None, 0),
    ]
    sent = [(request.messages[-1]["content"], request.params.draw, request.params.temperature) for request in teacher.asked]
    assert sent[5:] == [
        *((question, 1, 0.9) for question in list(SAYS)[1:]),
        *((question, 2, 0.9) for question in list(SAYS)[2:]),
    ]
    assert answered.facts["right_by_try"] == [pytest.approx(share) for share in (1 / 3, 2 / 3, 2 / 3)]
    assert answered.correctness() == {"gold": 3, "right": pytest.approx(2 / 3)}


def test_without_retries_everything_is_asked_once(tmp_path: Path) -> None:
    teacher = scripted()
    answered = ask(tmp_path, teacher, 0)
    assert len(teacher.asked) == len(ROWS)
    assert "right_by_try" not in answered.facts
    assert [reason for _, _, reason in answered.rejected] == ["not a label: 'a joke'"] * 2


@pytest.mark.parametrize(
    ("source", "labels"),
    [
        ("gold", ["delivery", "delivery", "delivery", "refund", None]),
        ("teacher", ["delivery", "delivery", "refund", "refund", None]),
        ("agree", ["delivery", "delivery", None, "refund", None]),
    ],
)
def test_what_a_row_trains_on(tmp_path: Path, source: LabelSource, labels: list[str | None]) -> None:
    found = [label(one, TASK, source) for one in ask(tmp_path, scripted(), 2).given]
    assert [answer for answer, _ in found] == labels
    assert found[-1][1] == "not a label: 'a joke'"
    if source == "agree":
        assert found[2][1] == "teacher disagrees: says 'refund'"


@pytest.mark.parametrize(
    ("source", "found"),
    [("gold", ("refund", None)), ("teacher", (None, "not a label: 'a joke'")), ("agree", (None, "not a label: 'a joke'"))],
)
def test_a_row_with_gold_whose_answer_is_invalid_trains_on_gold_alone(
    tmp_path: Path, source: LabelSource, found: tuple[str | None, str | None]
) -> None:
    (one,) = ask_rows(scripted(), [Row.of("never valid", "refund")], TASK, PARAMS, tmp_path).given
    assert label(one, TASK, source) == found
    assert answer_line(one, "refund", TASK)["note"] == "the teacher gave no valid answer: not a label: 'a joke'"


def test_a_row_whose_gold_answer_is_none_is_rejected_by_any_source(tmp_path: Path) -> None:
    (one,) = ask_rows(scripted(), [Row.of("right at once", "a gold joke")], TASK, PARAMS, tmp_path).given
    assert label(one, TASK, "gold") == (None, "not a label: 'a gold joke'")


def test_free_text_is_not_asked_again_for_not_being_the_gold_text(tmp_path: Path) -> None:
    teacher = Scripted("scripted", lambda request: "A good summary in other words.")
    answered = ask_rows(
        teacher, [Row.of("A text.", "Its summary.")], Summarization(), PARAMS, tmp_path, retries=3, retry_temperature=1
    )
    assert len(teacher.asked) == 1
    assert [one.right for one in answered.given] == [False]


def test_a_run_that_stops_leaves_the_rest_open_and_asks_nothing_again(tmp_path: Path) -> None:
    teacher = Scripted("scripted", lambda request: None if "never" in request.messages[-1]["content"] else "refund")
    answered = ask(tmp_path, teacher, 2)
    assert answered.stopped == "scripted stopped"
    assert [one.row.question for one in answered.given] == ["right at once", "right at the second try", "valid late"]
    assert len(teacher.asked) == 5


def test_a_row_that_is_no_question_or_has_an_invalid_gold_answer_is_not_asked(tmp_path: Path) -> None:
    teacher = scripted()
    answered = ask_rows(teacher, [Row.of("right at once", "a gold joke")], TASK, PARAMS, tmp_path)
    assert [reason for _, _, reason in answered.rejected] == ["not a label: 'a gold joke'"]
    assert teacher.asked == []


def test_the_teacher_is_asked_as_the_task_says_and_its_reasoning_is_kept(tmp_path: Path) -> None:
    task = Nli(chain_of_thought=True)
    asked: list[Request] = []

    def say(request: Request) -> str:
        asked.append(request)
        return "Rain makes things wet.\nAnswer: entailment"

    row = Row.of("It rains. The street is wet.", "entailment")
    (one,) = ask_rows(Scripted("scripted", say), [row], task, PARAMS, tmp_path).given
    assert asked[0].messages[0]["role"] == "system"
    assert "step by step" in asked[0].messages[0]["content"]
    line = answer_line(one, "entailment", task)
    assert line["messages"] == [dict(turn) for turn in row.messages]
    assert (line["answer"], line["gold"], line["teacher"]) == ("entailment", "entailment", "scripted")
    assert line["rationale"] == "Rain makes things wet."
    assert "rationale" not in answer_line(one, "entailment", task.model_copy(update={"rationales": "drop"}))
