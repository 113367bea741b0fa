"""Files without any answer go through the whole line: the teacher's answers teach, and are what is measured against."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from slmops.evaluation.schema import Report, parse_report
from slmops.files import read_jsonl, write_jsonl
from slmops.testing.faults import FaultServer
from tests.commands import Call
from tests.pipeline.test_line import started
from tests.pipeline.test_outside import knows
from tests.pipeline.test_recipes import some_rows
from tests.pipeline.tiny_line import SENTENCES, write_rows

TINY = (
    "teacher.api={base_url: URL}",
    "training={learning_rate: 0.003, max_steps: 3, batch_size: 4, max_length: 2048}",
    "answers.max_new_tokens=6",
    "export={max_length: 2048, schemes: [int4], parity: {rows: 8, min_agreement: 0, max_drop: 1}}",
    "evaluation={latency_requests: 5, batch_size: 4}",
)
ANSWERS = {
    "nli": lambda words: ("entailment", "neutral", "contradiction")[len(words) % 3],
    "nlu_qa": lambda words: "ABCDE"[len(words) % 5],
    "math": lambda words: str(len(words)),
}


def distilled(call: Call, server: FaultServer, *command: object) -> Report:
    options = [option.replace("URL", server.url) for option in TINY]
    done = call("distill", "--teacher", "m", "--student_layers", 2, "--json", *options, *command)
    assert done.code == 0, done.err[-3000:]
    return parse_report(json.loads(done.out))


@pytest.mark.parametrize(("task_type", "measure"), [("nli", "accuracy"), ("nlu_qa", "accuracy"), ("math", "numeric_match")])
def test_azure_files_run_as_they_are(
    task_type: str, measure: str, shared_data: Path, tmp_path: Path, long_model: Path, call: Call, quick: None
) -> None:
    azure = shared_data / "azure_distillation"
    for role, count in (("train", 30), ("validation", 6)):
        some_rows(azure / f"{role}_{task_type}.jsonl", tmp_path / f"{role}.jsonl", count)

    def answer(messages: Sequence[Mapping[str, str]]) -> str:
        return ANSWERS[task_type](re.findall(r"\w+", messages[-1]["content"]))

    with FaultServer(answer=answer) as server:
        command = [
            "--data",
            tmp_path / "train.jsonl",
            "--validation_data",
            tmp_path / "validation.jsonl",
            "--gate",
            "size_mb <= 50",
        ]
        command += ["--task_type", task_type, "--student", long_model, "-o", tmp_path / "out"]
        report = distilled(call, server, *command)
        rows = report.data.counts
        assert server.paid == rows["pool"] + rows["validation"] + rows["test"]
        again = call("run", tmp_path / "out" / "recipe.yaml")
        assert (again.code, started(again.err)) == (0, [])
    assert report.reference == "teacher"
    assert (rows["train"], rows["test"], rows["validation"]) == (0, round(0.2 * (rows["pool"] + rows["test"])), 6)
    assert report.measures[report.primary_measure].title == "Agreement with the teacher"
    assert report.primary_measure == measure
    assert [row.name for row in report.rows] == ["teacher", "untuned", "distilled", "packaged"]
    assert (report.differences[0].a, report.differences[0].b) == ("distilled", "untuned")
    assert all("teacher" not in (item.a, item.b) for item in report.differences)
    assert "share_of_teacher" not in report.measures
    assert report.headline[0].what == "agreement with the teacher"
    assert report.headline[0].value == report.row("packaged").measures[measure]
    assert report.answers.right_where_known is None
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for text in ("Reference: the teacher's own answers, there is no gold", "No training row is labelled, so there is no control"):
        assert text in page.replace("&#39;", "'")
    said = " ".join([report.verdict.sentence, report.verdict.why, *(item.what for item in report.headline)])
    assert "the untuned student" in said
    assert not re.search("accura|kept|keeps", said)


def test_a_labelled_test_file_beside_unlabelled_training_rows_is_gold(
    tmp_path: Path, long_model: Path, call: Call, quick: None
) -> None:
    files = write_rows(tmp_path)
    with FaultServer(answer=knows) as server:
        command = ["--data", files["pool"], "--test_data", files["test"], "--task_type", "classification"]
        command += ["--student", long_model, "-o", tmp_path / "out", "--gate", "share_of_teacher >= 0"]
        command += [f"task.labels={json.dumps(list(SENTENCES))}"]
        report = distilled(call, server, *command)
    assert report.reference == "gold"
    assert report.measures["accuracy"].title == "Accuracy"
    assert report.row("teacher").measures["accuracy"] == 1.0
    assert report.row("control") is None
    assert report.row("tfidf") is None
    assert report.row("distilled").measures["share_of_teacher"] is not None
    assert ("distilled", "teacher") in [(item.a, item.b) for item in report.differences]
    [folder] = (tmp_path / "out" / "artifacts").glob("references-*")
    held_out = read_jsonl(folder / "validation.jsonl")
    assert held_out
    assert all(row["answer"] == knows(row["messages"]) for row in held_out)


def test_without_labels_a_teacher_cannot_be_tuned(tmp_path: Path, tiny_model: Path, call: Call) -> None:
    files = write_rows(tmp_path)
    command = ["distill", "--data", files["pool"], "--teacher", tiny_model, "--task_type", "nli", "-o", tmp_path / "out"]
    refused = call(*command, "teacher.tune={epochs: 1}")
    assert refused.code == 2
    assert "no training row is labelled, so there is nothing to tune the teacher on" in refused.err
    planned = call(*command, "--plan", "--json")
    assert planned.code == 0, planned.err
    stages = [step["stage"] for step in json.loads(planned.out)["stages"]]
    assert "references" in stages
    assert "control" not in stages
    asked = call("distill", "--data", files["pool"], "--teacher", tiny_model, "-o", tmp_path / "out")
    assert "no row has an answer, so the kind of task cannot be told" in asked.err


def test_what_the_teacher_does_not_answer_is_set_aside_with_its_reason(
    tmp_path: Path, long_model: Path, call: Call, quick: None
) -> None:
    write_jsonl(tmp_path / "q.jsonl", [{"text": f"is {n} the number of item {n * n}?"} for n in range(40)])
    write_jsonl(tmp_path / "t.jsonl", [{"text": f"is {n} the number of item {n * n}?"} for n in range(50, 60)])

    def answer(messages: Sequence[Mapping[str, str]]) -> str:
        return "perhaps" if " 52 " in messages[-1]["content"] else "neutral"

    with FaultServer(answer=answer) as server:
        command = ["--data", tmp_path / "q.jsonl", "--test_data", tmp_path / "t.jsonl", "--task_type", "nli"]
        command += ["--student", long_model, "-o", tmp_path / "out", "--gate", "size_mb <= 50"]
        report = distilled(call, server, *command)
    assert report.test_rows == 9
    assert report.data.rejected["not answered by the teacher: not a label"] == 1
