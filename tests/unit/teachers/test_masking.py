"""Personal data never leaves the machine: the endpoint sees placeholders, the answers have the originals."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from slmops.config import build
from slmops.data.rows import Row
from slmops.tasks.generation import Generation
from slmops.teachers.answered import Answered
from slmops.teachers.asking import ask_rows
from slmops.teachers.base import Request
from slmops.teachers.masking import MaskedRequests, finder_names
from slmops.teachers.opening import open_teacher
from slmops.teachers.replies import AskParams
from slmops.teachers.spec import Member, TeacherSpec
from slmops.testing.faults import FaultServer

EMAIL, PHONE, IBAN = "jane.roe@example.org", "+49 30 1234567", "DE89370400440532013000"
ROWS = [
    Row.of(f"Write to {EMAIL} or {EMAIL}, please."),
    Row.of([{"role": "system", "content": f"Our number is {PHONE}."}, {"role": "user", "content": f"Pay to {IBAN}."}]),
    Row.of("Nothing to hide."),
]
Ask = Callable[..., Answered]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    def run(
        server: FaultServer, rows: Sequence[Row] = ROWS, *, retries: int = 0, protocol: str = "openai", **options: Any
    ) -> Answered:
        address = server.url if protocol == "openai" else server.url.removesuffix("/v1")
        member = build(Member, {"model": "m", "api": {"base_url": address, "protocol": protocol}}, where="test")
        teacher = open_teacher(TeacherSpec(members=(member,), **options), Generation(), cache=tmp_path / "requests.sqlite")
        return ask_rows(teacher, rows, Generation(), AskParams(max_new_tokens=50), tmp_path, retries=retries, retry_temperature=0.5)

    return run


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_the_endpoint_sees_placeholders_and_the_answers_have_the_originals(ask: Ask, tmp_path: Path, protocol: str) -> None:
    with FaultServer() as server:
        answered = ask(server, protocol=protocol)
    for secret in (EMAIL, PHONE, IBAN, "jane", "1234567", "0532013"):
        assert secret.encode() not in server.received
    assert b"Write to [EMAIL_1] or [EMAIL_1], please." in server.received
    assert [row.answer for row in answered.rows] == [f"echo: {row.question}" for row in ROWS]
    assert answered.facts["masked"] == {"EMAIL": 1, "PHONE": 1, "IBAN": 1}
    with sqlite3.connect(tmp_path / "requests.sqlite") as cache:
        stored = "\n".join(str(line) for line in cache.execute("SELECT * FROM requests"))
    assert "echo" in stored
    assert EMAIL not in stored
    assert IBAN not in stored


def test_masking_can_be_turned_off(ask: Ask) -> None:
    with FaultServer() as server:
        answered = ask(server, mask_personal_data=False)
    assert EMAIL.encode() in server.received
    assert "masked" not in answered.facts


def test_an_answer_that_invents_placeholders_is_rejected_with_that_reason(ask: Ask) -> None:
    with FaultServer(answer=lambda messages: "Call [EMAIL_2] or [EMAIL_1].") as server:
        answered = ask(server, ROWS[:1])
    assert [(raw, reason) for _, raw, reason in answered.rejected] == [("", "invented placeholder: [EMAIL_2]")]


def test_and_asked_again_where_there_are_retries(ask: Ask) -> None:
    said: list[str] = []

    def answer(messages: Sequence[Mapping[str, str]]) -> str:
        said.append("Call [EMAIL_1]." if said else "Call [EMAIL_7].")
        return said[-1]

    with FaultServer(answer=answer) as server:
        answered = ask(server, ROWS[:1], retries=2)
    assert [row.answer for row in answered.rows] == [f"Call {EMAIL}."]
    assert [one.tries for one in answered.given] == [1]
    assert server.paid == 2


def test_the_rows_themselves_are_not_among_what_is_sent() -> None:
    request = Request("a", ROWS[0].messages, AskParams(), ROWS[0])
    masked = MaskedRequests.of([request], finder_names(("patterns",)))
    assert EMAIL not in repr(masked.requests)


def test_without_the_library_the_patterns_are_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slmops.teachers.masking.find_spec", lambda name: None)
    assert finder_names(None) == ("patterns",)
    assert finder_names(("phonenumbers",)) == ("phonenumbers",)
