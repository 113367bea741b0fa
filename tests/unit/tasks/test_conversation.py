"""Every turn of the assistant is learned, turns are checked for their order, and a judge decides in both orders."""

from __future__ import annotations

import pytest

from slmops.data.rows import Row
from slmops.tasks.base import AnswerError, open_task, problem
from slmops.tasks.conversation import turn_problem
from slmops.tasks.judge import comparison, judge_pair, read_verdict, win_rate


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


def test_a_judge_sees_the_conversation_the_rubric_and_both_answers() -> None:
    system, asked = comparison(ROW, "yes", "no", "Is it polite?")
    assert "Is it polite?" in system["content"]
    assert asked["content"].index("turn 6") < asked["content"].index("yes") < asked["content"].index("no")


def test_a_judge_that_favours_a_place_gives_a_tie() -> None:
    def prefers(text: str):
        return lambda asked: "Verdict: " + ("A" if f"Answer A:\n{text}" in asked[1]["content"] else "B")

    assert judge_pair(lambda asked: "Verdict: A", ROW, "yes", "no") == 0.5
    assert judge_pair(prefers("yes"), ROW, "yes", "no") == 1.0
    assert judge_pair(prefers("no"), ROW, "yes", "no") == 0.0
    assert judge_pair(lambda asked: "I cannot say.", ROW, "yes", "no") is None
    assert win_rate(prefers("yes"), [ROW, ROW], ["yes", "no"], ["no", "yes"]) == 0.5
    assert win_rate(lambda asked: "", [ROW], ["yes"], ["no"]) == 0.5
