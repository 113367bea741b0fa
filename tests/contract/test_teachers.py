"""Every kind of teacher keeps the contract: outcomes in order with their ids, nothing asked twice, an identity without secrets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from slmops.config import build
from slmops.data.rows import Row
from slmops.files import write_jsonl
from slmops.tasks.classification import Classification
from slmops.teachers.base import Request, Teacher
from slmops.teachers.combiners import COMBINERS
from slmops.teachers.opening import identity_of, open_teacher
from slmops.teachers.replies import AskParams
from slmops.teachers.spec import TeacherSpec
from slmops.testing.faults import FaultServer

KEY = "sk-secret-of-the-test"
ROWS = [Row.of(f"where is parcel {number}", "delivery" if number % 2 else None) for number in range(5)]
REQUESTS = [Request(f"id-{row.id}", row.messages, AskParams(max_new_tokens=4), row) for row in [*ROWS, ROWS[0]]]
KINDS = ("api", "recorded", "local", *COMBINERS.names())

Specs = dict[str, dict[str, Any]]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setenv("TEACHER_API_KEY", KEY)
    with FaultServer(
        key=KEY, answer=lambda messages: "Verdict: 1" if "choose" in messages[0]["content"] else "delivery"
    ) as running:
        yield running


@pytest.fixture
def specs(server: FaultServer, tmp_path: Path, tiny_model: Path) -> Specs:
    log = tmp_path / "log.jsonl"
    write_jsonl(log, [{"input": row.question, "teacher_output": "refund"} for row in ROWS])
    api, recorded, local = {"model": "m", "api": {"base_url": server.url}}, {"model": str(log)}, {"model": str(tiny_model)}
    return {
        "api": {"members": [api]},
        "recorded": {"members": [recorded]},
        "local": {"members": [local]},
        "vote": {"members": [api, recorded, local], "combine": {"name": "vote"}},
        "best-of-n": {"members": [api], "combine": {"name": "best-of-n", "n": 3}},
        "judge": {"members": [recorded, api], "combine": {"name": "judge", "judge": api}},
        "route": {"members": [{**api, "when": {"matches": "[0-2]"}}, recorded], "combine": {"name": "route"}},
        "mixture": {"members": [local, {**local, "weight": 2.0}], "combine": {"name": "mixture"}},
    }


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, specs: Specs, tmp_path: Path) -> Callable[[], Teacher]:
    spec = build(TeacherSpec, specs[request.param], where=request.param)
    task = Classification(labels=("delivery", "refund"))
    return lambda: open_teacher(spec, task, cache=tmp_path / "requests.sqlite", chunk_rows=2)


def said(teacher: Teacher, work: Path, requests: Sequence[Request] = REQUESTS) -> list[tuple[str, str | None, str | None]]:
    outcomes = teacher.ask(requests, work).outcomes
    return [(outcome.id, outcome.reply.text if outcome.reply else None, outcome.reason) for outcome in outcomes]


def test_every_registered_ensemble_is_tested_here(specs: Specs) -> None:
    assert set(specs) == set(KINDS)


def test_outcomes_come_in_order_with_their_ids(opened: Callable[[], Teacher], tmp_path: Path) -> None:
    found = said(opened(), tmp_path / "work")
    assert [name for name, _, _ in found] == [request.id for request in REQUESTS]
    assert all((text is None) != (reason is None) for _, text, reason in found)
    assert found[0] == found[-1]  # the same question
    backwards = said(opened(), tmp_path / "work", REQUESTS[::-1])
    assert sorted(backwards, key=str) == sorted(found, key=str)


def test_what_was_answered_is_not_asked_again(opened: Callable[[], Teacher], tmp_path: Path, server: FaultServer) -> None:
    found = said(opened(), tmp_path / "work")
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "work").rglob("*.json")}
    paid = server.paid
    assert said(opened(), tmp_path / "work") == found
    assert server.paid == paid
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "work").rglob("*.json")} == files


def test_the_identity_is_json_without_a_secret_and_stays(opened: Callable[[], Teacher]) -> None:
    identity = json.dumps(dict(opened().identity), sort_keys=True)
    assert identity == json.dumps(dict(opened().identity), sort_keys=True)
    assert KEY not in identity
    assert opened().name


def test_a_plan_costs_nothing(opened: Callable[[], Teacher], server: FaultServer, tmp_path: Path) -> None:
    plans = opened().plans(REQUESTS)
    assert server.requests == 0
    assert all(plan.calls for plan in plans)
    assert not (tmp_path / "requests.sqlite").exists()


def test_the_identity_of_a_recipe_needs_no_teacher_to_be_opened(specs: Specs) -> None:
    identities = [json.dumps(identity_of(build(TeacherSpec, values, where="test")), sort_keys=True) for values in specs.values()]
    assert len(set(identities)) == len(identities)
    assert KEY not in "".join(identities)
