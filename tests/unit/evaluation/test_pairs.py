"""Two models' answers to the same questions, wherever they lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops.data.rows import Row
from slmops.errors import ArtifactError, DataError, UsageError
from slmops.evaluation.pairs import Pair, find_answers, measurements, side_by_side
from tests.unit.evaluation.finished_run import write_run

QUESTIONS = ["where is it", "my money back", "a discount?"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    answers = {
        "teacher": ["delivery", "refund", "discount"],
        "distilled": ["delivery ", "refund", "refund"],
        "distilled.int4": ["refund", "refund", "refund"],
    }
    return write_run(tmp_path / "run", QUESTIONS, answers, packaged="distilled")


def test_the_rows_of_a_run_are_compared_by_name(run: Path) -> None:
    paired = side_by_side(find_answers("teacher", [run]), find_answers("distilled", [run]))
    assert (paired.a, paired.b, paired.rejected) == ("teacher", "distilled", ())
    assert [(pair.messages[-1]["content"], pair.a, pair.b, pair.equal) for pair in paired.pairs] == [
        ("where is it", "delivery", "delivery", True),
        ("my money back", "refund", "refund", True),
        ("a discount?", "discount", "refund", False),
    ]


def test_what_was_packaged_goes_by_the_name_of_its_row(run: Path) -> None:
    assert set(measurements(run)) == {"teacher", "distilled", "distilled.int4", "packaged"}
    packaged = find_answers("packaged", [run]).said
    assert packaged[Row.of("where is it").id].answer == "refund"


def test_a_report_a_measurement_and_its_result_are_sources_too(run: Path) -> None:
    folder = measurements(run / "report.json")["teacher"]
    expected = find_answers("teacher", [run]).said
    assert find_answers("teacher", [folder]).said == expected
    assert find_answers(str(folder)).said == find_answers(str(folder / "result.json")).said == expected


def test_a_name_that_no_source_or_several_have_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'distilled'"):
        find_answers("distiled", [run])
    other = write_run(tmp_path / "other", QUESTIONS, {"teacher": ["x"] * 3})
    with pytest.raises(UsageError, match=r"in several of the sources\n.*run/artifacts.*other/artifacts"):
        find_answers("teacher", [run, other])
    with pytest.raises(UsageError, match="give the folder of a run, or the path of a file"):
        find_answers("teacher")
    with pytest.raises(ArtifactError, match="no finished run"):
        find_answers("teacher", [tmp_path])


def write_answers(file: Path, *records: object) -> str:
    file.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in records), encoding="utf-8")
    return str(file)


def test_files_of_answers_are_paired_by_id(tmp_path: Path) -> None:
    a = write_answers(
        tmp_path / "a.jsonl",
        {"id": 7, "question": "one?", "answer": " 1 "},
        {"id": 8, "question": "two?", "answer": "2"},
        {"id": 9, "question": "three?", "answer": ""},
    )
    b = write_answers(
        tmp_path / "b.jsonl",
        {"id": 9, "question": "three?", "answer": "3"},
        {"id": 7, "question": "one?", "answer": "one"},
    )
    paired = side_by_side(find_answers(a), find_answers(b))
    assert paired.pairs == (
        Pair("7", ({"role": "user", "content": "one?"},), "1", "one"),
        Pair("9", ({"role": "user", "content": "three?"},), "", "3"),
    )
    assert [(row.origin, row.reason) for row in paired.rejected] == [(f"{a}:2", f"not answered by the other model: {b}")]


def test_files_without_ids_are_paired_by_the_question(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one?"}]
    a = write_answers(tmp_path / "a.jsonl", {"messages": chat, "answer": "1"})
    b = write_answers(tmp_path / "b.jsonl", {"messages": chat, "answer": "2"})
    assert [pair.messages for pair in side_by_side(find_answers(a), find_answers(b)).pairs] == [tuple(chat)]


def test_rows_that_hold_no_answer_are_set_aside_with_their_reason(tmp_path: Path) -> None:
    a = write_answers(
        tmp_path / "a.jsonl",
        {"id": "x", "question": "one?", "answer": "1"},
        {"id": "x", "question": "one?", "answer": "again"},
        {"id": "y", "question": "two?", "answer": None},
        '{"id": "z", "question": "three?", "answer": ',
    )
    b = write_answers(tmp_path / "b.jsonl", {"id": "x", "question": "another?", "answer": "1"})
    found = find_answers(a)
    assert [(row.origin, row.reason.split(":")[0]) for row in found.rejected] == [
        (f"{a}:2", f"duplicate of {a}"),
        (f"{a}:3", "no answer"),
        (f"{a}:4", "broken JSON"),
    ]
    with pytest.raises(DataError, match="no question is answered by both"):
        side_by_side(found, find_answers(b))
