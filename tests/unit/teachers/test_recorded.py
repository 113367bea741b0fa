"""Answers that already exist find the rows they belong to; rows without one say so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from slmops.errors import DataError
from slmops.teachers.recorded import NO_ANSWER, RecordedTeacher


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "be short"}


def completion(text: str, reason: str = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": assistant(text), "finish_reason": reason}
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o", "choices": [choice], "usage": usage, **more}


def read(folder: Path, *records: Mapping[str, Any], name: str = "log.jsonl") -> RecordedTeacher:
    return RecordedTeacher.read([write(folder, *records, name=name)])


def write(folder: Path, *records: Mapping[str, Any], name: str = "log.jsonl") -> Path:
    file = folder / name
    file.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return file


def found(teacher: RecordedTeacher, *messages: dict[str, str], id: str = "r") -> str | None:
    outcome = teacher.find(id, messages)
    return outcome.reply.text if outcome.reply else f"({outcome.reason})"


def test_input_and_teacher_output(tmp_path: Path) -> None:
    teacher = read(
        tmp_path, {"input": "Where is it?", "teacher_output": "delivery"}, {"input": "money", "teacher_output": "refund"}
    )
    assert found(teacher, user("where is it")) == "delivery"
    assert found(teacher, SYSTEM, user("money")) == "refund"
    assert found(teacher, user("something else")) == f"({NO_ANSWER})"


def test_every_assistant_turn_of_a_chat_is_an_answer(tmp_path: Path) -> None:
    turns = [SYSTEM, user("hi"), assistant("hello"), user("where is it"), assistant("there")]
    teacher = read(tmp_path, {"messages": turns}, {"messages": [user("bye"), assistant("so long")]})
    assert found(teacher, SYSTEM, user("hi")) == "hello"
    assert found(teacher, *turns[:4]) == "there"
    assert found(teacher, user("where is it")) == f"({NO_ANSWER})"
    assert found(teacher, user("bye")) == "so long"


@pytest.mark.parametrize("place", ["messages", "input", "request"])
def test_stored_completions_with_what_was_asked(tmp_path: Path, place: str) -> None:
    asked: dict[str, Any] = {"request": {"messages": [user("hi")]}} if place == "request" else {place: [user("hi")]}
    teacher = read(tmp_path, completion("hello", **asked), completion("other", messages=[user("else")]))
    reply = teacher.find("r", [user("hi")]).reply
    assert reply is not None
    assert (reply.text, reply.model, reply.completion_tokens) == ("hello", "gpt-4o", 2)


def test_a_list_of_stored_completions_is_one_document(tmp_path: Path) -> None:
    file = tmp_path / "export.json"
    data = [completion("hello", messages=[user("hi")]), completion("no question")]
    file.write_text(json.dumps({"object": "list", "data": data, "has_more": False}, indent=1), encoding="utf-8")
    teacher = RecordedTeacher.read([file])
    assert found(teacher, user("hi")) == "hello"
    assert [bad.reason for bad in teacher.unread] == ["no question: the completion is stored without the messages it answers"]


def batch(name: str, text: str, status: int = 200) -> dict[str, Any]:
    body = completion(text) if status == 200 else {"error": {"message": "no"}}
    return {
        "id": "batch_req_1",
        "custom_id": name,
        "response": {"status_code": status, "request_id": "x", "body": body},
        "error": None,
    }


def test_a_batch_output_finds_its_questions_in_the_input(tmp_path: Path) -> None:
    asked = [{"custom_id": f"q{n}", "method": "POST", "body": {"model": "m", "messages": [user(f"ask {n}")]}} for n in range(3)]
    files = [
        write(tmp_path, batch("q1", "one"), batch("q0", "zero"), batch("q2", "", 500), name="out.jsonl"),
        write(tmp_path, *asked, name="in.jsonl"),
    ]
    teacher = RecordedTeacher.read(files)
    assert [found(teacher, user(f"ask {n}")) for n in range(3)] == ["zero", "one", f"({NO_ANSWER})"]
    assert [bad.reason for bad in teacher.unread] == ["the request failed: 500"]


def test_a_batch_output_by_itself_goes_by_the_ids_of_the_rows(tmp_path: Path) -> None:
    teacher = read(tmp_path, batch("row-7", "seven"))
    assert found(teacher, user("anything"), id="row-7") == "seven"
    assert found(teacher, user("anything"), id="row-8") == f"({NO_ANSWER})"


def test_a_cut_or_empty_record_is_no_answer(tmp_path: Path) -> None:
    teacher = read(tmp_path, completion("half of", "length", messages=[user("a")]), completion("", messages=[user("b")]))
    assert found(teacher, user("a")) == "(truncated: the recorded answer was cut)"
    assert found(teacher, user("b")) == "(empty answer: in the record)"


def test_of_several_answers_the_first_counts_and_the_question_is_noted(tmp_path: Path) -> None:
    teacher = read(
        tmp_path,
        {"input": "a", "teacher_output": "1"},
        {"input": "A.", "teacher_output": "2"},
        {"input": "b", "teacher_output": "1"},
    )
    assert found(teacher, user("a")) == "1"
    assert len(teacher.several) == 1


def test_log_probabilities_are_kept(tmp_path: Path) -> None:
    value = completion("yes", messages=[user("a")])
    value["choices"][0]["logprobs"] = {"content": [{"token": "yes", "logprob": -0.1, "top_logprobs": []}]}
    reply = read(tmp_path, value).find("r", [user("a")]).reply
    assert reply is not None
    assert reply.logprobs == ({"token": "yes", "logprob": -0.1, "top": []},)


def test_a_file_without_any_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no recorded answer is in here; the first record: the request failed: 500"):
        read(tmp_path, batch("a", "", 500))


def test_other_records_are_another_teacher(tmp_path: Path) -> None:
    one = read(tmp_path, batch("a", "x"), name="one.jsonl")
    assert one.identity == read(tmp_path, batch("a", "x"), name="two.jsonl").identity
    assert one.identity != read(tmp_path, batch("a", "y"), name="two.jsonl").identity
