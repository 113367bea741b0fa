"""``slmops evaluate`` on free text: a judge's win rate and grades, embeddings, measures of texts, answers that lie in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from slmops.evaluation.schema import parse_report
from slmops.files import write_jsonl
from slmops.testing.faults import FaultServer
from tests.commands import Call
from tests.pipeline.test_judged import SHOWN, prefers_the_first_in_the_alphabet

QUESTIONS = [f"What is number {number}?" for number in range(12)]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    references = [f"number {number} is the middle one" for number in range(12)]
    said = {
        "test": [{"question": q, "answer": a} for q, a in zip(QUESTIONS, references, strict=True)],
        "early": [{"input": q, "teacher_output": f"a {a}"} for q, a in zip(QUESTIONS, references, strict=True)],
        "late": [{"input": q, "teacher_output": f"zero {a[::-1]}"} for q, a in zip(QUESTIONS, references, strict=True)],
    }
    for name, rows in said.items():
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    return {name: tmp_path / f"{name}.jsonl" for name in said}


def judge(messages: Sequence[Mapping[str, str]]) -> str:
    return prefers_the_first_in_the_alphabet(messages) if SHOWN.search(messages[-1]["content"]) else "Fine.\nGrade: 4"


def test_a_judge_decides_and_grades_and_nothing_is_asked_twice(
    files: dict[str, Path], tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_API_KEY", "secret-key")
    with FaultServer(answer=judge, key="secret-key") as server:
        named = f"evaluation.judge={{model: j, api: {{base_url: {server.url}}}}}"
        command = ["evaluate", f"early={files['early']}", f"late={files['late']}", "--test_data", files["test"]]
        command += ["--task", "generation", "--metric", "token_f1,win_rate,rubric_score", "--set", named]
        command += ["--gate", "win_rate >= 0.6", "-o", tmp_path / "out", "--json"]
        done = call(*command)
        assert done.code == 0, done.err[-3000:]
        paid = server.paid
        assert call(*command).code == 0
        assert server.paid == paid > 0
    report = parse_report(json.loads(done.out))
    early, late = report.rows
    assert (report.primary_measure, early.measures["win_rate"], late.measures["win_rate"]) == ("win_rate", 1.0, 0.0)
    assert early.measures["rubric_score"] == 4
    assert report.differences[0].word == "better"
    assert b"secret-key" not in b"".join(file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())


def test_texts_have_intervals_by_every_measure(files: dict[str, Path], tmp_path: Path, tiny_model: Path, call: Call) -> None:
    command = [
        "evaluate",
        f"early={files['early']}",
        f"teacher={files['late']}",
        "--test_data",
        files["test"],
        "--task",
        "generation",
    ]
    command += ["--metric", "bleu_score,chrf,rouge,similarity,agreement", "--embeddings", tiny_model, "--gate", "chrf >= 0.5"]
    done = call(*command, "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.err[-3000:]
    early, teacher = parse_report(json.loads(done.out)).rows
    for name in ("bleu", "chrf", "rouge_l", "similarity"):
        low, high = early.intervals[name]
        assert low <= early.measures[name] <= high
        assert early.measures[name] > teacher.measures[name]
    assert (early.measures["agreement"], teacher.measures["agreement"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("win_rate", "needs a judge"),
        ("similarity", "needs a model"),
        ("perplexity", "gives no probabilities"),
        ("blue", "did you mean 'bleu'"),
    ],
)
def test_what_a_measure_lacks_is_said(files: dict[str, Path], tmp_path: Path, call: Call, metric: str, said: str) -> None:
    command = ["evaluate", files["early"], "--test_data", files["test"], "--task", "generation", "--metric", metric]
    done = call(*command, "-o", tmp_path / "out")
    assert done.code == 2
    assert said in done.err
