"""Every turn of the assistant is learned, turns are checked for their order, and a judge decides in both orders."""

from __future__ import annotations

import pytest

from slmops.data.rows import Row
from slmops.tasks.base import AnswerError, open_task, problem
from slmops.tasks.conversation import turn_problem
from slmops.tasks.judge import Verdicts, comparison, pair_score, read_verdict


def turns(roles: str) -> list[dict[str, str]]:
    names = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": names[role], "content": f"turn {number}"} for number, role in enumerate(roles, 1)]


ROW = Row.of(turns("suauau"), origin="chats.jsonl:3")


def test_every_turn_of_the_assistant_becomes_a_training_row() -> None:
    rows = open_task("conversation", {}).training_rows(ROW, "the answer", None)
    assert [(len(row.messages), row.answer) for row in rows] == [(6, "the answer"), (2, "turn 3"), (4, "turn 5")]
    assert all(row.messages == ROW.messages[: len(row.messages)] and row.origin == ROW.origin for row in rows)
    assert len({row.id for row in rows}) == 3
    assert len(open_task("conversation", {"train_on": "last"}).training_rows(ROW, "the answer", None)) == 1


@pytest.mark.parametrize("roles", ["u", "su", "uau", "suauau"])
def test_turns_in_order_are_a_conversation(roles: str) -> None:
    assert turn_problem(turns(roles)) is None


@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        ("", "no turn of the user"),
        ("s", "no turn of the user"),
        ("au", "turn 1 is the assistant's where the user's is due"),
        ("uu", "turn 2 is the user's where the assistant's is due"),
        ("suaau", "turn 4 is the assistant's"),
        ("usu", "turn 2 is the system's"),
        ("ua", "nothing waits for an answer"),
    ],
)
def test_turns_out_of_order_are_named(roles: str, reason: str) -> None:
    assert reason in str(turn_problem(turns(roles)))


def test_a_row_out_of_order_is_refused_before_a_teacher_is_asked() -> None:
    task = open_task("conversation", {})
    broken = Row.of(turns("uuau"), "x")
    with pytest.raises(AnswerError, match="turns: turn 2"):
        task.ask(broken)
    assert problem(task, broken) == "turns: turn 2 is the user's where the assistant's is due"
    assert problem(task, ROW.with_answer("fine")) is None
    assert problem(task, ROW.with_answer("")) == "empty answer"


def test_a_role_name_before_the_answer_goes() -> None:
    task = open_task("conversation", {})
    assert task.parse("Assistant: Sure: now.") == "Sure: now."
    assert task.parse("Note: now.") == "Note: now."
    with pytest.raises(AnswerError, match="empty answer"):
        task.parse("assistant: ")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("B is shorter.\nVerdict: B", "B"),
        ("**Verdict: tie**", "tie"),
        ("verdict: Answer A", "A"),
        ("Verdict: A? No.\nVerdict: B", "B"),
        ("A", "A"),
        ("A great answer", None),
        ("", None),
    ],
)
def test_a_verdict_is_read(text: str, verdict: str | None) -> None:
    assert read_verdict(text) == verdict


def test_verdicts_are_a_task_that_several_judges_can_vote_on() -> None:
    assert Verdicts().parse("It is shorter.\nVerdict: answer b") == "B"
    with pytest.raises(AnswerError, match=r"no verdict: 'I cannot say\.'"):
        Verdicts().parse("I cannot say.")


def test_a_judge_sees_the_conversation_the_rubric_and_both_answers() -> None:
    system, asked = comparison(ROW.messages, "yes", "no", "Is it polite?")
    assert "Is it polite?" in system["content"]
    assert asked["content"].index("turn 6") < asked["content"].index("yes") < asked["content"].index("no")


@pytest.mark.parametrize(
    ("answer_first", "reference_first", "score"),
    [
        ("A", "B", 1.0),
        ("B", "A", 0.0),
        ("tie", "tie", 0.5),
        ("A", "A", 0.5),
        ("A", "tie", 0.5),
        ("A", None, 0.5),
        (None, None, 0.5),
    ],
)
def test_only_what_both_orders_say_is_no_tie(answer_first: str | None, reference_first: str | None, score: float) -> None:
    assert pair_score(answer_first, reference_first) == score
