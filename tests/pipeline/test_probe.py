"""``slmops probe`` on the tiny model: figures, exit codes, going on where it stopped, and what an API teacher is paid for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from slmops.evaluation import probe as rule
from slmops.files import read_json, write_jsonl
from slmops.testing.faults import FaultServer
from tests.commands import Call
from tests.pipeline.test_line import started
from tests.pipeline.tiny_line import SENTENCES, write_rows

THINGS = ("apple", "bridge", "candle", "dragon", "engine", "forest", "garden", "hammer", "island", "jacket")
OPTIONS = ("answers.max_new_tokens=12", "chat_template=compact", "export.max_length=128", "training={max_steps: 6, batch_size: 8}")


def test_a_local_teacher_that_plain_words_reach(
    tmp_path: Path, tiny_model: Path, call: Call, measured_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_rows(tmp_path)
    command = ["probe", "--data", files["train"], "--pool", files["pool"], "--test_data", files["test"], "--teacher", tiny_model]
    command += ["--student_layers", 2, "--rows", 32, "--pool_rows", 8, "-o", tmp_path / "out", *OPTIONS]
    command += ["teacher.tune={max_steps: 6, batch_size: 8}", "signals.k=8", "answers.min_success=0"]
    planned = call(*command, "--plan")
    assert planned.code == 0, planned.err[-2000:]
    assert "The probe will need about" in planned.err
    assert not (tmp_path / "out").exists()

    done = call(*command, "--json")
    assert done.code == 1, done.err[-3000:]  # four words decide, so TF-IDF is always right
    found = json.loads(done.out)
    assert found == read_json(tmp_path / "out" / "probe.json")
    assert (found["verdict"], found["test_rows"], found["labelled_rows"], found["pool_rows"]) == ("no", 32, 32, 96)
    assert found["teacher_tuned"] is True
    curve = [model["labelled_rows"] for model in found["models"] if model["name"].startswith("control-")]
    assert curve == sorted(curve)
    assert len(curve) == 2  # a quarter of the 27 rows that no split holds out would be too few
    assert [model["name"] for model in found["models"]][-2:] == ["distilled", "teacher"]
    assert found["models"][0] == {**found["models"][0], "name": "tfidf", "value": 1.0}
    assert found["updates"] == {**{f"control-{rows}": 6 for rows in curve}, "distilled": 6}
    assert found["plain_fine_tuning_would_reach"]["labelled_rows"] == 32
    assert set(found["trial"]) == set(found["leads"]) == {"fine-tuned", "tfidf", "untuned"}
    assert found["distillation"]["requests"] is None
    assert found["distillation"]["seconds"] > 0

    again = call(*command)
    assert (again.code, started(again.err)) == (1, [])
    assert "\nno: " in again.out
    assert "TF-IDF" in again.out
    monkeypatch.setattr(rule, "LEAST_ROWS", 50)
    few = call(*command)
    assert (few.code, started(few.err)) == (3, [])
    assert "INCONCLUSIVE: 32 test rows are too few" in few.out
    assert "About 18 more labelled rows" in few.out


def test_an_api_teacher_that_knows_more_is_paid_for_the_test_rows_alone(
    tmp_path: Path, tiny_model: Path, call: Call, measured_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_API_KEY", "secret-key")
    questions = [f"the {THINGS[number % 10]} of number {number}" for number in range(120)]
    write_jsonl(tmp_path / "train.jsonl", [{"question": text, "answer": said(text)} for text in questions])
    write_jsonl(tmp_path / "pool.jsonl", [{"question": f"the {thing} of nobody"} for thing in THINGS])
    with FaultServer(answer=lambda messages: said(asked(messages)), key="secret-key") as server:
        command = ["probe", "--data", tmp_path / "train.jsonl", "--pool", tmp_path / "pool.jsonl", "--task", "generation"]
        command += ["--teacher", "m", "--student", tiny_model, "--student_layers", 2, "--base_url", server.url]
        command += ["-o", tmp_path / "out", *OPTIONS, "teacher.api.price_input=1000", "teacher.api.price_output=1000"]
        planned = call(*command, "--plan", "--json")
        assert planned.code == 0, planned.err[-2000:]
        assert server.requests == 0
        plan = json.loads(planned.out)
        assert plan["requests"]["calls"] == 40
        assert plan["distillation"]["requests"]["calls"] == 130

        stopped = call(*command, "--max_cost", 0.1)
        assert stopped.code == 2
        assert "higher teacher.requests.max_cost" in stopped.err
        assert 0 < server.paid < 40
        done = call(*command, "--max_cost", 100, "--json")
        assert done.code == 0, done.err[-3000:]
        assert server.paid == 40
    found = json.loads(done.out)
    assert found["verdict"] == "yes"
    assert found["test_rows"] == 40
    assert found["leads"]["fine-tuned"]["interval"][0] > 0
    assert "tfidf" not in found["leads"]
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or b"secret-key" not in file.read_bytes()


def test_without_answers_there_is_nothing_to_probe_with(tmp_path: Path, tiny_model: Path, call: Call) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": sentence.format(n=1)} for sentence in SENTENCES.values()])
    options = ["--data", tmp_path / "rows.jsonl", "--task", "classification", "task.labels=[a, b]", "--teacher", tiny_model]
    found = call("probe", *options, "-o", tmp_path / "out")
    assert found.code == 2
    assert "nothing to probe with" in found.err
    assert "label some rows" in found.err


def said(question: str) -> str:
    return f"Take the {question.split()[1]} home."


def asked(messages: Sequence[Mapping[str, str]]) -> str:
    return messages[-1]["content"]
