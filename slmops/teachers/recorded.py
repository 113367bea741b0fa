"""Answers that already exist: files of questions and answers, stored completions, batch outputs, logged chats.

Rows find their answer by what is asked, without the differences that do not count (case, white space, punctuation).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slmops.data.columns import Columns
from slmops.data.prepare import question_key
from slmops.data.readers import read_table
from slmops.data.records import Record
from slmops.data.rowfiles import Rejected, read_rows
from slmops.data.rows import Message, Row
from slmops.data.shapes import BadRow, Layout
from slmops.errors import DataError, at
from slmops.files import digest, file_digest
from slmops.teachers.api import openai_reply
from slmops.teachers.base import Answers, Outcome, Request
from slmops.teachers.plan import RequestPlan
from slmops.teachers.replies import Fault, Reply, estimate_text_tokens, estimate_tokens

NO_ANSWER = "no recorded answer"
NO_OTHER = "no other recorded answer"
_CHAT = Layout("messages", ("messages",), None, "")


@dataclass
class RecordedTeacher:
    """Recorded answers by question.

    Args:
        files: Where they were read.
        answers: Key of the question to the answer; where a question has several, the first.
        by_id: Batch requests' ``custom_id`` to the answer.
        several: Questions with more than one distinct answer.
        unread: Records that hold no answer, with the reason.
    """

    files: tuple[Path, ...]
    answers: dict[str, Reply] = field(default_factory=dict)
    by_id: dict[str, Reply] = field(default_factory=dict)
    several: set[str] = field(default_factory=set)
    unread: list[Rejected] = field(default_factory=list)

    @classmethod
    def read(cls, files: Sequence[Path]) -> RecordedTeacher:
        """Read answers from files; what each holds is found out.

        Known are rows of questions and answers in any form that the data reader takes (``input`` with ``teacher_output``
        among them), chats with ``messages``, where every assistant turn is an answer, chat completions with the
        ``messages`` (or ``input``) they answer, and batch outputs. A batch output names its questions by ``custom_id``
        alone: give the batch's input file too, or use the ids of the rows.

        Raises:
            DataError: A file cannot be read, or holds no answer.
        """
        teacher = cls(tuple(files))
        tables = {file: read_table(file) for file in files}
        asked = {
            str(record.values["custom_id"]): record.values["body"]["messages"]
            for table in tables.values()
            for record in table.records
            if record.values is not None and _is_batch_input(record.values)
        }
        for file, table in tables.items():
            if any(record.values is not None and _is_of_an_api(record.values) for record in table.records):
                for record in table.records:
                    teacher._take(file, record, asked)
            else:
                teacher._take_rows(file)
        if not teacher.answers and not teacher.by_id:
            why = f"; the first record: {teacher.unread[0].reason}" if teacher.unread else ""
            where = ", ".join(map(str, files))
            raise DataError(f"no recorded answer is in here{why}", where=where, fix="give the batch's input file beside its output")
        return teacher

    @property
    def name(self) -> str:
        """The files."""
        return ",".join(map(str, self.files))

    @property
    def identity(self) -> dict[str, str]:
        """What tells these records from others."""
        return {"protocol": "recorded", "files": digest(sorted(file_digest(file) for file in self.files))}

    def ask(self, requests: Sequence[Request], work: Path) -> Answers:
        """Look the answers up; ``work`` is not needed. A question is looked up as the row has it and as it is asked."""
        outcomes = [
            self.find(request.id, *([request.row.messages] if request.row else []), request.messages)
            if request.params.draw == 0
            else Outcome(request.id, None, NO_OTHER)
            for request in requests
        ]
        facts = {"teacher": self.identity, "several_answers": len(self.several), "unread": len(self.unread)}
        return Answers(outcomes, facts)

    def plans(self, requests: Sequence[Request]) -> list[RequestPlan]:
        """Nothing is paid."""
        return []

    def find(self, id: str, *forms: Sequence[Message]) -> Outcome:
        """The answer to a row, looked up by each form of its messages, with the system turn and without, then by its id."""
        reply = next((self.answers[key] for form in forms for key in _keys(form) if key in self.answers), self.by_id.get(id))
        if reply is None:
            return Outcome(id, None, NO_ANSWER)
        if reply.finish_reason == "length":
            return Outcome(id, None, "truncated: the recorded answer was cut")
        return Outcome(id, reply, None) if reply.text else Outcome(id, None, "empty answer: in the record")

    def _take(self, file: Path, record: Record, asked: Mapping[str, Sequence[Message]]) -> None:
        if record.values is None or _is_batch_input(record.values):
            return
        try:
            messages, body, name = _exchange(record.values, asked)
            self._keep(messages, openai_reply(body, messages or (), str(body.get("model") or "recorded")), name)
        except (BadRow, Fault) as error:
            raw = json.dumps(record.values, ensure_ascii=False)[:2000]
            self.unread.append(Rejected(at(file, record.line), str(error), raw))

    def _take_rows(self, file: Path) -> None:
        found = read_rows(file, "train", Columns())
        self.unread += found.rejected
        if found.layout.shape == "messages" and found.layout.answer is None:
            for record in found.table.records:
                for messages, text in _chat_answers(record):
                    self._keep(messages, _reply(messages, text))
        else:
            for row in found.labelled:
                self._keep(row.messages, _reply(row.messages, str(row.answer)))

    def _keep(self, messages: Sequence[Message] | None, reply: Reply, name: str | None = None) -> None:
        if name is not None:
            self.by_id.setdefault(name, reply)
        for key in _keys(messages) if messages else ():
            first = self.answers.setdefault(key, reply)
            if first.text != reply.text:
                self.several.add(key)


def _keys(messages: Sequence[Message]) -> list[str]:
    """Keys of a question: with all its turns and, weaker, without its system turns."""
    forms = [list(messages), [turn for turn in messages if turn["role"] != "system"]]
    return list(dict.fromkeys(question_key(Row.of(form)) for form in forms if form))


def _reply(messages: Sequence[Message], text: str) -> Reply:
    return Reply(text, "stop", estimate_tokens(messages), estimate_text_tokens(text), None, "recorded")


def _is_batch_input(values: Mapping[str, Any]) -> bool:
    body = values.get("body")
    return "custom_id" in values and isinstance(body, Mapping) and isinstance(body.get("messages"), list)


def _is_of_an_api(values: Mapping[str, Any]) -> bool:
    response = values.get("response")
    return (
        "choices" in values
        or _is_batch_input(values)
        or (isinstance(response, Mapping) and bool({"body", "choices"} & set(response)))
    )


def _exchange(
    values: Mapping[str, Any], asked: Mapping[str, Sequence[Message]]
) -> tuple[Sequence[Message] | None, Mapping[str, Any], str | None]:
    """What was asked, the chat completion, and the ``custom_id``."""
    name = str(values["custom_id"]) if "custom_id" in values else None
    response = values.get("response")
    body: Any = response if isinstance(response, Mapping) else values
    if isinstance(body.get("body"), Mapping):
        if body.get("status_code", 200) != 200:
            raise BadRow(f"the request failed: {body.get('status_code')}")
        body = body["body"]
    if values.get("error"):
        raise BadRow(f"the request failed: {json.dumps(values['error'])[:200]}")
    request = values.get("request")
    places = [values, request if isinstance(request, Mapping) else {}, body]
    turns: Any = next((place.get(key) for place in places for key in ("messages", "input") if place.get(key)), None)
    if turns is None and name is not None:
        turns = asked.get(name)
    if isinstance(turns, str):
        turns = [{"role": "user", "content": turns}]
    if turns is None and name is None:
        raise BadRow("no question: the completion is stored without the messages it answers")
    return (_CHAT.example({"messages": turns}).messages if turns is not None else None), body, name


def _chat_answers(record: Record) -> Iterator[tuple[list[Message], str]]:
    """Every assistant turn of a sound chat with the turns before it."""
    if record.values is None:
        return
    turns = record.values.get("messages")
    if not isinstance(turns, list):
        return
    for end, turn in enumerate(turns):
        if isinstance(turn, Mapping) and turn.get("role") == "assistant":
            try:
                example = _CHAT.example({"messages": turns[: end + 1]})
            except BadRow:
                continue
            if example.answer:
                yield example.messages, example.answer
