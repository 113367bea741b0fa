"""Conversation with a judge: without one token F1 decides, with one the win rate; to name one trains nothing again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from slmops.evaluation.schema import Report, parse_report
from slmops.files import read_json
from slmops.testing.faults import FaultServer
from tests.commands import Call
from tests.pipeline.test_line import started
from tests.pipeline.test_task_types import COUNTS, write_rows
from tests.pipeline.tiny_line import write_recipe

SHOWN = re.compile(r"Answer A:\n(.*)\n\nAnswer B:\n(.*)\Z", re.DOTALL)


def prefers_the_first_in_the_alphabet(messages: Sequence[Mapping[str, str]]) -> str:
    a, b = SHOWN.search(messages[-1]["content"]).groups()
    return f"One comes first.\nVerdict: {'A' if a < b else 'B'}"


def report_of(recipe: Path) -> Report:
    return parse_report(read_json(recipe.parent / "out" / "report.json"))


def test_a_judge_decides_where_the_recipe_names_one(
    tmp_path: Path, tiny_model: Path, quick: None, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_API_KEY", "secret-key")
    two_updates = {"learning_rate": 0.003, "max_steps": 2, "batch_size": 8}
    parity = {"rows": 4, "min_agreement": 0, "max_drop": 1}
    recipe = write_recipe(
        tmp_path,
        tiny_model,
        task_type="conversation",
        data={"source": {"name": "files", **write_rows(tmp_path / "rows", "conversation")}},
        teacher={"model": str(tiny_model), "tune": two_updates},
        student={},
        answers={"min_success": 0, "max_new_tokens": 4},
        training={**two_updates, "objectives": [{"name": "cross_entropy"}]},
        export={"max_length": 256, "schemes": ["int4"], "teacher_schemes": ["int4"], "parity": parity},
        gates=["share_of_teacher >= 0"],
    )
    alone = call("run", recipe)
    assert alone.code == 0, alone.err[-3000:]
    report = report_of(recipe)
    assert (report.primary_measure, report.judge) == ("token_f1", None)
    assert any("No judge was asked, so Token F1 decides" in note for note in report.notes)

    with FaultServer(answer=prefers_the_first_in_the_alphabet, key="secret-key") as server:
        judge = f"{{model: j, api: {{base_url: {server.url}, price_input: 1, price_output: 2}}, requests: {{max_cost: 1}}}}"
        command = ["run", recipe, f"evaluation.judge={judge}", "gates=[win_rate >= 0, share_of_teacher >= 0]"]
        done = call(*command)
        assert done.code == 0, done.err[-3000:]
        assert {stage.partition(".")[0] for stage in started(done.err)} == {"judge", "report"}
        assert "j (the endpoint 127.0.0.1" in done.err  # the plan and the terms, before the first call
        assert 0 < server.paid <= 2 * 7 * COUNTS["test"]
        paid, report = server.paid, report_of(recipe)
        again = call(*command)
        assert (again.code, started(again.err), server.paid) == (0, [], paid)
        planned = call(*command, "evaluation.judge.rubric=Which is kinder?", "--plan", "--json")
        redone = [step["stage"] for step in json.loads(planned.out) if step["state"] != "done"]
        assert {stage.partition(".")[0] for stage in redone} <= {"judge", "export, measure, report, package"}
        assert "judge.distilled" in redone

        rows = tmp_path / "rows"
        command = ["distill", "--data", rows / "train.jsonl", "--test_data", rows / "test.jsonl", "--task_type", "conversation"]
        command += ["--teacher", tiny_model, "-o", tmp_path / "other", f"evaluation.judge={judge}", "--plan", "--json"]
        planned = call(*command)
        assert planned.code == 0, planned.err[-2000:]
        assert json.loads(planned.out)["judging"]["calls"] == 2 * 8 * COUNTS["test"]
        assert server.paid == paid

    assert report.primary_measure == "win_rate"
    for row in report.rows:
        low, high = row.intervals["win_rate"]
        assert low <= row.measures["win_rate"] <= high
        assert {"win_rate", "token_f1"} <= set(row.intervals)
        assert row.measures["token_f1"] is not None
    assert {item.measure for item in report.differences} == {"win_rate"}
    assert (report.export_measure, report.headline[0].what) == ("token_f1", "win rate kept")
    judge = report.judge
    assert judge.wins + judge.losses + judge.ties >= 7 * COUNTS["test"]
    assert (judge.calls, judge.unread, judge.contradicted) == (paid, 0, 0)
    assert judge.cost > 0
    assert [model.name for model in report.models if model.role == "judge"] == ["j"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert '<section id="judge">' in page
    assert "Win rate" in page
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or b"secret-key" not in file.read_bytes()
