"""The whole line with a teacher behind an API: its answers alone teach, and it is measured by its answers to the test rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from slmops.evaluation.schema import parse_report
from slmops.testing.faults import Faults, FaultServer
from tests.commands import Call
from tests.pipeline.test_line import started
from tests.pipeline.tiny_line import SENTENCES, write_rows

SMALL = (
    "chat_template=compact",
    "answers.max_new_tokens=12",
    "teacher.api={base_url: URL, price_input: 1, price_output: 2}",
    "training={learning_rate: 0.003, epochs: 8, batch_size: 8}",
    "export={max_length: 128, schemes: [int8], parity: {rows: 20, min_agreement: 0.8, max_drop: 0.2}}",
    "evaluation={latency_requests: 5, batch_size: 4}",
)
STARTS = {sentence.split(" {n}")[0]: label for label, sentence in SENTENCES.items()}


def knows(messages: Sequence[Mapping[str, str]]) -> str:
    return STARTS[messages[-1]["content"].rpartition(" ")[0]]


def test_an_api_teacher_from_the_data_to_the_package(
    tmp_path: Path, tiny_model: Path, call: Call, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEACHER_API_KEY", raising=False)
    files = write_rows(tmp_path)
    with FaultServer(Faults(rate_limit=0.1, html=0.05), answer=knows, key="secret-key") as server:
        command = ["distill", "--data", files["train"], "--pool", files["pool"], "--validation_data", files["validation"]]
        command += ["--test_data", files["test"], "--teacher", "m", "--student", tiny_model, "--student_layers", 2]
        command += ["--gate", "accuracy >= 0.5 * teacher", "-o", tmp_path / "out", "--json"]
        command += [option.replace("URL", server.url) for option in SMALL]
        planned = call(*command, "--plan")
        assert planned.code == 0, planned.err[-2000:]
        assert server.requests == 0
        plan = json.loads(planned.out)
        assert plan["requests"]["calls"] == 4 * (8 + 24 + 3 + 10)
        monkeypatch.setenv("TEACHER_API_KEY", "secret-key")
        done = call(*command)
        assert done.code == 0, done.err[-3000:]
        assert server.paid == plan["requests"]["calls"]
        again = call("run", tmp_path / "out" / "recipe.yaml")
        assert (again.code, started(again.err)) == (0, [])
        assert server.paid == plan["requests"]["calls"]
    report = parse_report(json.loads(done.out))
    assert [row.name for row in report.rows] == ["tfidf", "teacher", "untuned", "control", "distilled", "packaged"]
    teacher = report.row("teacher").measures
    assert teacher["accuracy"] == 1.0
    assert teacher["latency_p50_ms"] is not None
    assert teacher["cost_per_million"] is not None
    assert (teacher["memory_mb"], teacher["size_mb"], teacher["requests_per_s"]) == (None, None, None)
    assert report.row("distilled").measures["accuracy"] > 0.9 > report.row("untuned").measures["accuracy"]
    assert report.models[0].name == "m"
    assert any("learned from answers alone" in note for note in report.notes)
    assert "is for you to find out" in done.err
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or b"secret-key" not in file.read_bytes()
