"""``slmops benchmark``: the harness's own numbers, on local files, each model and task once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slmops.config import build
from slmops.errors import ConfigError, DataError, MissingExtraError, ModelError, SlmopsError, UsageError
from slmops.files import read_json, read_jsonl
from slmops.testing.faults import FaultServer

pytest.importorskip("lm_eval", reason="the extra 'benchmarks' is not installed")

from slmops.evaluation.benchmarks import job, tasks
from slmops.evaluation.benchmarks.harness import offline
from slmops.evaluation.benchmarks.job import REPORT, Benchmark, BenchmarkOptions

QUESTIONS = [
    {"text": "where is my parcel", "right": 0},
    {"text": "my money back please", "right": 1},
    {"text": "has the parcel left", "right": 0},
    {"text": "refund the shoes", "right": 1},
    {"text": "the code does not work", "right": 2},
]
LABELS = ["delivery", "refund", "discount"]
CHOOSE = {
    "task": "tiny_choice",
    "test_split": "test",
    "fewshot_split": "train",
    "num_fewshot": 1,
    "output_type": "multiple_choice",
    "doc_to_text": "Message: {{text}}\nTopic:",
    "doc_to_target": "right",
    "doc_to_choice": LABELS,
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 2.0},
}
WRITE = {
    "task": "tiny_writing",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "Message: {{text}}\nTopic:",
    "doc_to_target": "{{['delivery', 'refund', 'discount'][right]}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 1.0},
}

Run = Callable[..., dict[str, Any]]


def definition(folder: Path, task: dict[str, Any], **more: Any) -> Path:
    file = folder / f"{task['task']}.yaml"
    file.write_text(json.dumps({**task, **more}), encoding="utf-8")  # JSON is YAML
    return file


def rows(file: Path, questions: list[dict[str, Any]] = QUESTIONS) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(map(json.dumps, questions)), encoding="utf-8")
    return file


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two tasks, and the data of both beside them."""
    for task in (CHOOSE, WRITE):
        definition(tmp_path, task)
    for name in ("tiny_choice/test", "tiny_choice/train", "tiny_writing/test"):
        rows(tmp_path / f"{name}.jsonl")
    return tmp_path


@pytest.fixture
def run(place: Path) -> Run:
    def start(*models: Path | str, task: str = "tiny_choice", **options: Any) -> dict[str, Any]:
        names = [name if name.isalnum() else str(place / f"{name}.yaml") for name in task.split(",")]
        values = {"models": list(map(str, models)), "tasks": names, "output_path": place / "out", **options}
        return Benchmark(build(BenchmarkOptions, values, where="benchmark")).run()

    return start


@pytest.fixture
def other_model(tmp_path: Path) -> Path:
    from slmops.testing.tiny import save_tiny_model

    return save_tiny_model(tmp_path / "other-model", seed=1)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """What tells an ONNX Runtime GenAI folder; there is no model in it."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "genai_config.json").write_text("{}", encoding="utf-8")
    return folder


def test_the_numbers_are_those_of_the_harness(tiny_model: Path, place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval
    from lm_eval import evaluator
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr(evaluator, "add_env_info", lambda results: None)  # asks pip and conda for all that is installed
    found = run(tiny_model, task="tiny_choice,tiny_writing", seed=7)

    direct = place / "direct"
    direct.mkdir()
    files = {name: str(rows(direct / f"{name}.jsonl")) for name in ("test", "train")}
    own = {"dataset_path": "json", "dataset_kwargs": {"data_files": files, "cache_dir": str(direct / "cache")}}
    definitions = [str(definition(direct, task, **own)) for task in (CHOOSE, WRITE)]
    expected = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(tiny_model), "dtype": "float32", "device": "cpu"},
        tasks=definitions,
        task_manager=TaskManager(include_defaults=False),
        fewshot_random_seed=7,
    )
    assert expected is not None
    for score in found["scores"]:
        theirs = expected["results"][score["task"]]
        assert score["value"] == theirs[f"{score['metric']},{score['filter']}"]
        assert score["stderr"] == theirs[f"{score['metric']}_stderr,{score['filter']}"]
        assert score["task_version"] == str(expected["versions"][score["task"]])
        assert score["shots"] == expected["n-shot"][score["task"]]
        ours = read_jsonl(place / "out" / score["samples"])
        logged = expected["samples"][score["task"]]
        assert [one["prompt"] for one in ours] == [one["arguments"][0][0] for one in logged]
        assert [one["answers"] for one in ours] == json.loads(json.dumps([one["resps"] for one in logged]))
    assert {score["task"]: score["shots"] for score in found["scores"]} == {"tiny_choice": 1, "tiny_writing": 0}


def test_further_models_are_compared_with_the_first_question_by_question(tiny_model: Path, other_model: Path, run: Run) -> None:
    found = run(f"base={tiny_model}", f"tuned={other_model}")
    (difference,) = found["differences"]
    values = {score["model"]: score["value"] for score in found["scores"]}
    assert (difference["model"], difference["against"], difference["rows"]) == ("tuned", "base", len(QUESTIONS))
    assert difference["value"] == pytest.approx(values["tuned"] - values["base"])
    assert difference["interval"][0] <= difference["value"] <= difference["interval"][1]


def test_a_finished_task_is_not_run_again(tiny_model: Path, place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tiny_model)
    asked: list[str] = []
    real = job.run_task
    monkeypatch.setattr(
        job, "run_task", lambda lm, task, *more, **options: asked.append(task.name) or real(lm, task, *more, **options)
    )
    assert run(tiny_model) == first == read_json(place / "out" / REPORT)
    run(tiny_model, task="tiny_choice,tiny_writing")
    assert asked == ["tiny_writing"]
    rows(place / "tiny_choice" / "test.jsonl", QUESTIONS[:3])
    assert run(tiny_model)["scores"][0]["rows"] == 3
    run(tiny_model, num_fewshot=0)
    assert asked == ["tiny_writing", "tiny_choice", "tiny_choice"]


def test_a_limit_takes_the_first_questions_and_says_of_how_many(tiny_model: Path, run: Run) -> None:
    (score,) = run(tiny_model, limit=2)["scores"]
    assert (score["rows"], score["of"]) == (2, 5)


def test_a_packaged_model_writes_what_the_model_writes(
    tiny_model: Path, place: Path, bundle: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slmops.runtimes import base

    real = base.open_runtime
    monkeypatch.setattr(base, "open_runtime", lambda name, path: real("torch", tiny_model))
    for file in tiny_model.glob("*token*"):
        (bundle / file.name).write_bytes(file.read_bytes())
    found = run(tiny_model, bundle, task="tiny_writing", batch_size=3)
    assert [score["engine"] for score in found["scores"]] == ["hf", "ort-genai"]
    model, packaged = ([one["answers"] for one in read_jsonl(place / "out" / score["samples"])] for score in found["scores"])
    assert model == packaged
    assert any(answer[0][0] for answer in model), "the model writes something"


def test_prompts_that_the_harness_cuts_are_said(tiny_model: Path, place: Path, run: Run) -> None:
    assert not run(tiny_model, task="tiny_writing")["scores"][0]["cut"]
    rows(place / "tiny_writing" / "test.jsonl", [{"text": "parcel " * 300, "right": 0}])
    assert run(tiny_model, task="tiny_writing")["scores"][0]["cut"]


def test_a_prompt_that_is_longer_than_a_package_takes_is_refused(tiny_model: Path) -> None:
    from lm_eval.api.instance import Instance

    from slmops.data.chat import ChatTemplate
    from slmops.evaluation.benchmarks.runtime_lm import RuntimeLM
    from slmops.runtimes.base import open_runtime

    model = RuntimeLM(open_runtime("torch", tiny_model), ChatTemplate.load(tiny_model))
    request = Instance("generate_until", {}, ("parcel " * 80, {"until": ["\n"]}), 0)
    with pytest.raises(DataError, match="--num_fewshot"):
        model.generate_until([request])
    with pytest.raises(UsageError, match="repetition_penalty"):
        model.generate_until([Instance("generate_until", {}, ("parcel", {"repetition_penalty": 2.0}), 0)])


def test_a_package_refuses_tasks_that_compare_probabilities(bundle: Path, run: Run) -> None:
    with pytest.raises(UsageError, match=r"tiny_choice compares the probabilities.*ort-genai") as error:
        run(bundle)
    assert "gsm8k" in str(error.value)


def test_a_served_model_is_asked_its_chats_and_never_gets_the_key(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with FaultServer(answer=lambda messages: "refund" if "refund" in messages[-1]["content"] else "delivery") as server:
        found = run(f"{server.url}#small", task="tiny_writing", apply_chat_template=True)
        (score,) = found["scores"]
        assert (score["engine"], score["value"]) == ("a served model", 3 / 5)
        assert server.bodies[-1]["model"] == "small"
        assert b"sk-secret" not in server.received
    turns = json.loads(read_jsonl(place / "out" / score["samples"])[0]["prompt"])
    assert turns == [{"role": "user", "content": "Message: where is my parcel\nTopic:"}]


def test_a_server_that_cannot_be_reached_is_said(run: Run) -> None:
    with FaultServer() as server:
        url = server.url
    with pytest.raises(ModelError, match="does not say which models it has"):
        run(url, task="tiny_writing")


@pytest.mark.parametrize(
    ("task", "options", "kind", "says"),
    [
        ("gsm8", {}, UsageError, "did you mean 'gsm8k'"),
        ("mmlu", {}, UsageError, "mmlu is a group of tasks"),
        ("gsm8k", {}, UsageError, r"where is the data of gsm8k.*\n.*FOLDER/gsm8k/test.jsonl"),
        ("humaneval", {"data_path": "."}, ConfigError, "runs code that the model writes"),
    ],
)
def test_what_cannot_be_run_is_refused(
    task: str, options: dict[str, Any], kind: type[SlmopsError], says: str, tiny_model: Path, run: Run
) -> None:
    with pytest.raises(kind, match=says):
        run(tiny_model, task=task, **options)


def test_a_missing_file_is_named_with_its_format(tiny_model: Path, place: Path, run: Run) -> None:
    (place / "tiny_choice" / "train.jsonl").unlink()
    with pytest.raises(DataError, match=r"tiny_choice: the file train.jsonl is missing.*1 examples.*\n.*\.csv, \.parquet"):
        run(tiny_model)
    assert run(tiny_model, num_fewshot=0)["scores"][0]["shots"] == 0, "without examples the file is not needed"


def test_rows_of_another_form_are_refused(tiny_model: Path, place: Path, run: Run) -> None:
    rows(place / "tiny_choice" / "test.jsonl", [{"sentence": "where is my parcel", "right": 0}])
    with pytest.raises(DataError, match="'text' is undefined"):
        run(tiny_model, num_fewshot=0)
    (place / "tiny_choice" / "test.jsonl").write_text("{no json", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read as a table"):
        run(tiny_model)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("task: [", "not the definition of a task"),
        ("group: all\ntask: [a, b]", "it defines no single task"),
        ("task: odd\nnum_fewshot: five", "num_fewshot is no number"),
        ("task: odd\noutput_type: paint\ntest_split: test", "'paint' is none of generate_until"),
        ("task: odd\nmetric_list: [{metric: bleurt, hf_evaluate: true}]", r"fetches code for its metric \(bleurt\)"),
        ("task: odd", "neither a test_split nor a validation_split"),
    ],
)
def test_a_definition_that_is_wrong_is_refused(text: str, says: str, tiny_model: Path, place: Path, run: Run) -> None:
    (place / "odd_task.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        run(tiny_model, task="odd_task")


def test_data_may_be_csv_in_the_folder_itself(tiny_model: Path, place: Path, run: Run) -> None:
    folder = place / "data"
    folder.mkdir()
    (folder / "test.csv").write_text("text,right\nwhere is my parcel,0\nmy money back,1\n", encoding="utf-8")
    (score,) = run(tiny_model, num_fewshot=0, data_path=folder)["scores"]
    assert score["of"] == 2


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"slmops\[benchmarks\]"):
        tasks.find_task("gsm8k", Path(), None, alone=True)


def test_the_hub_is_out_of_reach_only_while_the_harness_runs() -> None:
    import datasets.config
    from huggingface_hub import constants

    before = (constants.HF_HUB_OFFLINE, datasets.config.HF_DATASETS_OFFLINE)
    with offline():
        assert (constants.is_offline_mode(), datasets.config.HF_DATASETS_OFFLINE) == (True, True)
    assert (constants.HF_HUB_OFFLINE, datasets.config.HF_DATASETS_OFFLINE) == before  # noqa: SIM300
