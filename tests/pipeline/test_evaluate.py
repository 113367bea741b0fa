"""``slmops evaluate`` and the Python functions: gates, exit codes, a report, on models that were really trained."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

import slmops as api
from slmops.errors import DataError, UsageError
from slmops.evaluation.schema import parse_report
from slmops.files import read_jsonl, write_jsonl
from tests.commands import Call
from tests.pipeline.conftest import Run, slmops
from tests.pipeline.tiny_line import SENTENCES
from tests.unit.serving.server_process import serving


@pytest.fixture(scope="module")
def test_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rows") / "test.jsonl"
    rows = [
        {"text": sentence.format(n=number), "label": label, "shop": "north" if number % 2 else "south"}
        for number in range(70, 80)
        for label, sentence in SENTENCES.items()
    ]
    write_jsonl(file, rows)
    return file


@pytest.fixture(scope="module")
def untuned(finished: Run) -> Path:
    (folder,) = (finished.output / "artifacts").glob("untuned-*")
    return folder / "model"


SERVER = "import sys; from pathlib import Path; from slmops.serving.server import serve; serve(Path(sys.argv[1]), port=0)"


@pytest.fixture(scope="module")
def tuned(finished: Run) -> Path:
    (folder,) = (finished.output / "artifacts").glob("distilled-*")
    return folder / "model"


QUICK = ("--set", "evaluation.latency_requests=8", "--set", "evaluation.concurrency=[1,2]")


def test_a_good_model_passes_and_the_report_says_how_good(finished: Run, untuned: Path, test_file: Path, tmp_path: Path) -> None:
    train = finished.recipe.parent / "train.jsonl"
    done = slmops(
        *("evaluate", f"student={finished.output}", f"before={untuned}", "--test_data", test_file, "--slice", "shop"),
        *("--gate", "accuracy >= 0.6", "--gate", "accuracy >= 1.1 * before", "--gate", "inference_time <= 100000"),
        *("--gate", "non_inferior(to=before, margin=0.03)", "--train_data", train, "-o", tmp_path / "out", "--json", *QUICK),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = parse_report(json.loads(done.stdout))
    assert report.verdict.word == "passed"
    assert [row.name for row in report.rows] == ["student", "before"]
    student, before = report.rows
    low, high = student.intervals["accuracy"]
    assert low < student.measures["accuracy"] <= high
    assert student.measures["accuracy"] > before.measures["accuracy"]
    assert {
        "ttft_p50_ms",
        "ms_per_token",
        "latency_p99_ms",
        "requests_per_s",
        "peak_memory_mb",
        "macro_f1",
    } <= student.measures.keys()
    assert [level.concurrency for level in student.throughput] == [1, 2]
    assert report.differences[0].word == "better"
    assert report.differences[0].p_value is not None
    assert {item.column for item in report.slices} >= {"shop", "label"}
    assert report.leakage is not None
    assert report.leakage.rows == 0
    assert len(report.disagreements) == 10
    assert report.confusion is not None
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("gate", "code", "said"),
    [
        ("accuracy >= 0.999", 3, "more test rows"),
        ("size_mb <= 0.000001", 1, "failed"),
        ("acuracy >= 0.5", 2, "did you mean 'accuracy'"),
        ("accuracy >= 0.5 * nobody", 2, "no row 'nobody'"),
    ],
)
def test_the_exit_code_says_what_came_of_a_gate(
    finished: Run,
    test_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    measured_here: None,
    call: Call,
    gate: str,
    code: int,
    said: str,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "gated"  # one for all: the measurement is made once
    done = call("evaluate", finished.output, "--test_data", test_file, "--gate", gate, "-o", folder, *QUICK)
    assert done.code == code, done.err[-3000:]
    assert said in done.err


def test_what_is_measured_is_not_measured_again(
    finished: Run, test_file: Path, tmp_path: Path, measured_here: None, call: Call
) -> None:
    command = ("evaluate", finished.output, "--test_data", test_file, "-o", tmp_path / "out", *QUICK)
    first, second = call(*command), call(*command)
    assert first.code == second.code == 0, second.err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["verdict"]["word"] == "measured"  # nothing was asked to hold
    (line,) = report["reproduce"]
    assert call(*shlex.split(line)[1:]).err == second.err
    assert (tmp_path / "out" / "model-card.md").read_text().startswith("---")
    assert "[measure.out]" in first.err
    assert "start" not in second.err


def test_a_measure_of_ones_own_and_the_probabilities(
    tuned: Path, test_file: Path, tmp_path: Path, measured_here: None, call: Call
) -> None:
    (tmp_path / "mine.py").write_text(
        "def short(answer, reference, row):\n    'Share of short answers.'\n    return len(answer) < 9\n"
    )
    done = call(
        *("evaluate", tuned, "--test_data", test_file, "--task", "classification", "--input_field", "text"),
        *("--metrics", f"accuracy,ece,perplexity,{tmp_path / 'mine.py'}:short", "-o", tmp_path / "out", "--json", *QUICK),
    )
    assert done.code == 0, done.err[-3000:]
    report = parse_report(json.loads(done.out))
    (row,) = report.rows
    assert row.measures["perplexity"] > 1
    assert 0 <= row.measures["ece"] <= 1
    assert f"{tmp_path / 'mine.py'}:short" in row.measures
    assert report.reliability[0].bins


def test_a_text_template_takes_the_place_of_the_chat_template(
    untuned: Path, test_file: Path, tmp_path: Path, measured_here: None, call: Call
) -> None:
    done = call(
        *("evaluate", untuned, "--test_data", test_file, "--task", "classification", "--text_template", "{text} => {label}"),
        *("--gate", "accuracy >= 0.9", "-o", tmp_path / "out", *QUICK),
    )
    assert done.code == 1, done.err[-3000:]
    (spec,) = (tmp_path / "out" / "artifacts").glob("measure.*/spec.json")
    assert json.loads(spec.read_text())["text_template"] == "{text} => {label}"
    (result,) = (tmp_path / "out" / "artifacts").glob("measure.*/result.json")
    assert len(json.loads(result.read_text())["answers"]) == 40


def test_the_python_function_takes_a_path_a_loaded_model_and_a_served_one(
    finished: Run, untuned: Path, test_file: Path, measured_here: None
) -> None:
    options = {"evaluation": {"latency_requests": 8, "concurrency": [1, 2]}}
    found = api.evaluate(
        finished.output,
        test_data=test_file,
        metrics=["accuracy", "bleu_score", "inference_time"],
        task_type="classification",
        **options,
    )
    assert list(found) == ["accuracy", "bleu_score", "inference_time"]
    assert found["inference_time"] == found.report["rows"][0]["measures"]["latency_p50_ms"] / 1000 > 0
    low, high = found.intervals["accuracy"]
    assert low < found["accuracy"] <= high

    with serving(SERVER, finished.output / "package") as (_, client, _):
        served = api.evaluate_model(str(client.base_url).rstrip("/"), test_file, **options)
    assert dict(served) == {"accuracy": pytest.approx(found["accuracy"])}
    assert float(served) == served["accuracy"]

    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = (AutoModelForCausalLM.from_pretrained(untuned), AutoTokenizer.from_pretrained(untuned))
    same = api.evaluate(loaded, test_data=read_jsonl(test_file), **options)
    assert same["accuracy"] == api.evaluate(untuned, test_data=test_file, **options)["accuracy"]


def test_recorded_answers_are_a_model_too(test_file: Path, tmp_path: Path) -> None:
    rows = read_jsonl(test_file)
    write_jsonl(tmp_path / "said.jsonl", [{"input": row["text"], "teacher_output": row["label"]} for row in rows])
    found = api.evaluate(tmp_path / "said.jsonl", test_data=test_file)
    assert found["accuracy"] == 1.0


def test_several_seeds_of_one_model_widen_its_interval(
    finished: Run, untuned: Path, test_file: Path, tmp_path: Path, measured_here: None, call: Call
) -> None:
    def width(*models: str) -> float:
        done = call("evaluate", *models, "--test_data", test_file, "-o", tmp_path / str(len(models)), "--json", *QUICK)
        assert done.code == 0, done.err[-3000:]
        low, high = json.loads(done.out)["rows"][0]["intervals"]["accuracy"]
        return float(high - low)

    assert width(f"student={finished.output}", f"student={untuned}") > width(f"student={finished.output}")


def test_free_text_without_a_task_type_is_an_error_with_the_choices(untuned: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "free.jsonl", [{"question": f"Who is number {n}?", "answer": f"It is person {n}."} for n in range(30)])
    with pytest.raises(UsageError, match=r"name it: .*summarization"):
        api.evaluate(untuned, test_data=tmp_path / "free.jsonl")


def test_rows_with_one_label_alone_are_an_error_that_says_so(untuned: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "first.jsonl", [{"text": f"parcel {n}", "label": "delivery"} for n in range(6)])
    with pytest.raises(DataError, match=r"all 6 answers are 'delivery'.*\n.*task\.labels") as raised:
        api.evaluate(untuned, test_data=tmp_path / "first.jsonl", task_type="classification", answer_field="label")
    assert "sorted file" in str(raised.value)
