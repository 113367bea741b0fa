"""Every recipe of the package runs from beginning to end on the tiny model, cut down to seconds."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from slmops.config import load_recipe
from slmops.evaluation.schema import parse_report
from slmops.files import read_json, read_jsonl
from slmops.pipeline import run
from slmops.recipes import find_recipe, shipped
from tests.commands import Call

SMALL = (
    "teacher.tune={learning_rate: 0.003, max_steps: 4, batch_size: 8, max_length: 2048}",
    "answers={min_success: 0, max_new_tokens: 4}",
    "signals.k=4",
    "student.layers=2",
    "training.max_steps=2",
    "training.max_length=2048",
    "export={schemes: [int4], teacher_schemes: [int4], max_length: 2048, parity: {rows: 8, min_agreement: 0, max_drop: 1}}",
    "evaluation={latency_requests: 5, batch_size: 8}",
    "gates=[]",
)
GENERATED = "data.source={name: support-messages, labelled: 36, pool: 20, validation: 18, test: 18}"
REAL: tuple[tuple[str, Mapping[str, str], tuple[str, ...]], ...] = (
    ("intents", {"train": "intent_banking77/train.csv"}, ()),
    ("intents", {"train": "support_multidogo/finance/train.tsv"}, ("input_field=utterance", "answer_field=intent")),
    ("tone", {"train": "tone_phrases/dataset-classification.json"}, ()),
    ("nli", {"train": "nli_cf/train.tsv", "test": "nli_cf/test.tsv", "pool": "azure_distillation/train_nli.jsonl"}, ()),
    (
        "multiple-choice",
        {"train": "qa_commonsenseqa/train_rand_split.jsonl", "pool": "azure_distillation/train_nlu_qa.jsonl"},
        (),
    ),
    ("explained-answers", {"train": "rationales_flan_cot/ecqa_train.tsv"}, ()),
    ("math", {"train": "math_gsm8k/train.jsonl", "pool": "azure_distillation/train_math.jsonl"}, ()),
    ("conversation", {"train": "conversation_tm4/tm4_chat.jsonl"}, ()),
    ("summarization", {"train": "summarization_scitldr/train.jsonl", "test": "summarization_scitldr/test.jsonl"}, ()),
    ("entities", {"train": "ner_wnut17/wnut17train.conll"}, ()),
    ("entities", {"train": "extraction_snips/train_GetWeather_full.json"}, ()),
    ("slots", {"train": "support_multidogo/insurance/train.tsv"}, ()),
    ("instructions", {"train": "instruction_dolly_small/dolly_hhrlhf_train_small.jsonl"}, ()),
    (
        "instructions",
        {"train": "instruction_seed/seed_tasks.jsonl"},
        ("input_field=instruction,instances.0.input", "answer_field=instances.0.output"),
    ),
    ("continuation", {"train": "lm_text/input.txt"}, ()),
    ("continuation", {"train": "lm_text/valid.txt", "test": "lm_text/test.txt"}, ()),
)


def some_rows(source: Path, target: Path, count: int = 40) -> None:
    """A small file of the same form: rows from all over a table, of JSON lines short ones."""
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".csv":
        head, *rows = csv.reader(text.splitlines())
        with target.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([head, *rows[: count // 2], *rows[-count // 2 :]])
    elif source.suffix == ".txt":
        target.write_text(" ".join(text.split(" ")[: 120 * count]), encoding="utf-8")
    elif source.suffix == ".conll":
        target.write_text("\n\n".join(re.split(r"\n\s*\n", text)[:count]), encoding="utf-8")
    elif "snips" in str(source):
        ((intent, rows),) = json.loads(text).items()
        target.write_text(json.dumps({intent: rows[:count]}), encoding="utf-8")
    elif source.suffix == ".tsv":
        head, *lines = text.splitlines()
        target.write_text("\n".join([head, *lines[:: max(1, len(lines) // count)]]), encoding="utf-8")
    else:
        target.write_text("\n".join(sorted(text.splitlines(), key=len)[: 2 * count : 2]), encoding="utf-8")


def test_every_shipped_recipe_is_run_here() -> None:
    assert {name for name, _, _ in REAL} | {"support-routing"} == set(shipped())


def test_the_recipe_of_the_demo_runs(tmp_path: Path, long_model: Path, call: Call, quick: None) -> None:
    done = call("run", "support-routing", f"teacher.model={long_model}", GENERATED, *SMALL, "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.err[-2000:]
    report = json.loads(done.out)
    assert len(report["rows"]) == 8
    assert report["test_rows"] == 18


def cases() -> Iterator[ParameterSet]:
    """Each recipe once; with further sets only among the slow tests."""
    seen: set[str] = set()
    for name, files, columns in REAL:
        marks = [pytest.mark.slow] if name in seen else []
        yield pytest.param(name, files, columns, id=f"{name}-{files['train'].partition('/')[0]}", marks=marks)
        seen.add(name)


@pytest.mark.parametrize(("name", "files", "columns"), list(cases()))
def test_a_recipe_runs_on_a_real_set(
    name: str, files: Mapping[str, str], columns: tuple[str, ...], shared_data: Path, tmp_path: Path, long_model: Path, quick: None
) -> None:
    for role, file in files.items():
        some_rows(shared_data / file, tmp_path / f"{role}{Path(file).suffix}")
    given = [f"data.source.{role}={tmp_path / f'{role}{Path(file).suffix}'}" for role, file in files.items()]
    named = [f"data.source.{column}" for column in columns]
    places = [f"teacher.model={long_model}", f"output_path={tmp_path / 'out'}"]
    outcome = run(load_recipe(find_recipe(name), [*given, *named, *SMALL, *places]))
    report = parse_report(read_json(outcome.root / "report.json"))
    assert report.verdict.packaged is not None
    assert report.data.quality.success >= 0.9
    assert report.data.counts["train"] >= 20
    assert report.test_rows >= 5
    assert report.data.counts["pool"] > 0 or "pool" not in files
    [data] = (outcome.root / "artifacts").glob("data-*")
    assert report.data.quality.read == report.data.quality.good + len(read_jsonl(data / "rejected.jsonl"))
