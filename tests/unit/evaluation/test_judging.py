"""Answers before a scripted judge: what he is asked, what his verdicts count for, and what is settled without him."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmops.data.rows import Row
from slmops.evaluation.judging import ask_judge, both_orders, contests, counts, questions_of, verdicts_of
from slmops.evaluation.stats import interval, paired
from slmops.evaluation.systems import System
from slmops.evaluation.tally import Tally
from slmops.tasks.base import open_task
from slmops.teachers.base import Request
from slmops.teachers.replies import AskParams
from tests.unit.teachers.scripted import Say, Scripted

TASK = open_task("conversation", {"assertions": [{"lacks": "damn"}]})
ROWS = [Row.of(f"what is {number}?", f"it is {number}") for number in range(4)]
PARAMS = AskParams(max_new_tokens=50)


def likes(word: str) -> Say:
    """Prefers the answer with a word, in whichever place it stands."""
    return lambda request: f"Verdict: {'A' if word in request.messages[1]['content'].partition('Answer B:')[0] else 'B'}"


def judged(say: Say, answers: list[str], tmp_path: Path, attempts: int = 1) -> tuple[list[dict[str, object]], Scripted]:
    judge = Scripted("judge", say)
    found = contests(TASK, ROWS, answers)
    said = verdicts_of(ask_judge(judge, questions_of(found), PARAMS, tmp_path, attempts))
    return [contest.result(said) for contest in found], judge


def test_an_answer_wins_loses_or_ties_against_its_reference(tmp_path: Path) -> None:
    answers = ["it is zero, sir", "no sir here", "it is 2", "damn"]
    lines, judge = judged(likes("sir"), answers, tmp_path)
    assert [line["score"] for line in lines] == [1.0, 1.0, 0.5, 0.0]
    assert [line.get("settled") for line in lines] == [None, None, "same", "invalid"]
    assert len(judge.asked) == 4  # two rows in both orders: what is settled is not asked
    assert counts(lines) == {"wins": 2, "losses": 1, "ties": 1, "same": 1, "invalid": 1, "contradicted": 0, "unread": 0}


def test_a_judge_that_favours_a_place_gives_ties(tmp_path: Path) -> None:
    lines, _ = judged(lambda request: "Verdict: A", ["a", "b", "c", "d"], tmp_path)
    assert [line["score"] for line in lines] == [0.5] * 4
    assert counts(lines)["contradicted"] == 4


def test_a_pair_without_both_verdicts_is_a_tie_that_is_counted(tmp_path: Path) -> None:
    def dumb_at_times(request: Request) -> str:
        return "I like both." if "what is 1?" in request.messages[1]["content"] else likes("it is")(request)

    lines, _ = judged(dumb_at_times, ["no"] * 4, tmp_path)
    assert [line["score"] for line in lines] == [0.0, 0.5, 0.0, 0.0]
    assert (counts(lines)["unread"], counts(lines)["ties"]) == (1, 1)


def test_without_a_verdict_it_is_asked_again_by_sampling(tmp_path: Path) -> None:
    def at_last(request: Request) -> str:
        return likes("zz")(request) if request.params.draw == 2 else "Hm."

    lines, judge = judged(at_last, ["zz", "it is 1", "it is 2", "it is 3"], tmp_path, attempts=3)
    assert [line["score"] for line in lines] == [1.0, 0.5, 0.5, 0.5]
    assert [request.params.temperature for request in judge.asked] == [0, 0, 0.7, 0.7, 0.7, 0.7]


def test_equal_questions_are_asked_once_for_all_models() -> None:
    both = [*contests(TASK, ROWS, ["a", "b", "c", "d"]), *contests(TASK, ROWS, ["a", "b", "other", "it is 3"])]
    assert len(questions_of(both)) == 2 * 5


def test_the_judge_is_told_what_the_task_asks_for_and_the_rows_own_system_turn_goes_before() -> None:
    task = open_task("translation", {"target_language": "French", "examples": [{"question": "one", "answer": "un"}]})
    question, swapped = both_orders(task, Row.of("two"), "deux", "trois", "Which is right?")
    asked = question.messages[1]["content"]
    assert "Translate the text into French" in asked
    assert "un\n" not in asked  # the examples are for the teacher
    assert asked.endswith("Answer A:\ndeux\n\nAnswer B:\ntrois")
    assert swapped.messages[1]["content"].endswith("Answer A:\ntrois\n\nAnswer B:\ndeux")
    own = Row.of([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "two"}])
    shown = both_orders(task, own, "deux", "trois", "?")[0].messages[1]["content"]
    assert "Be brief." in shown
    assert "Translate" not in shown


def test_the_win_rate_decides_and_what_decided_before_stays_beside_it() -> None:
    scores, before = (1.0, 0.5, 0.0, 1.0), Tally.mean((0.9, 0.8, 0.1, 0.4))
    alone = System(
        *("distilled", "torch", "float32", {"token_f1": 0.55, "exact_match": 0.0}, ("",) * 4, (0,) * 4, (), "token_f1"),
        {"token_f1": before},
    )
    system = alone.decided_by("win_rate", scores)
    assert (system.primary_measure, system.quality) == ("win_rate", 0.625)
    assert list(system.tallies) == ["token_f1", "win_rate"]
    assert system.tallies["token_f1"] is before
    low, high = interval(system.tallies["win_rate"], 0.95)
    assert low < 0.625 < high
    worse = alone.decided_by("win_rate", (0.0, 0.0, 0.0, 0.5))
    assert paired(system.tallies["win_rate"], worse.tallies["win_rate"], 0.95).value == pytest.approx(0.5)
