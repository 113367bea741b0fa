"""What ``slmops finetune`` trains on besides rows of a file: texts without answers, whole rows, and data sets of a hub."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from slmops.files import read_json, read_jsonl
from tests.commands import Call
from tests.data_hub import DATA_SET, serving

SENTENCE = "where is my parcel and when does the refund of order {} arrive\n"
FIXED = ["training.precision=float32", "training.batch_size=4", "training.max_length=32"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMOPS_CACHE", str(tmp_path / "cache"))


def data_of(out: Path, split: str) -> list[str]:
    (folder,) = (out / "artifacts").glob("data-*")
    return [row["messages"][0]["content"] for row in read_jsonl(folder / f"{split}.jsonl")]


def test_a_text_is_learned_in_blocks_and_its_end_validates(tiny_model: Path, tmp_path: Path, call: Call) -> None:
    text = "".join(SENTENCE.format(number) for number in range(60))
    (tmp_path / "corpus.txt").write_text(text)
    words = ["--model", tiny_model, "--data_name", tmp_path / "corpus.txt", "--task_type", "text"]
    words += ["--output_path", tmp_path / "out", "--method", "full", "--max_steps", "16", "--learning_rate", "5e-3", *FIXED]
    done = call("finetune", *words)
    assert done.code == 0, done.err
    (train,), (validation,) = (data_of(tmp_path / "out", split) for split in ("train", "validation"))
    assert train + validation == text
    assert train.endswith("\n")
    assert len(validation) == pytest.approx(0.15 * len(text), abs=len(SENTENCE))
    facts = read_json(tmp_path / "out/finetune.json")
    perplexity = facts["texts"]["perplexity"]
    assert perplexity["after"] == pytest.approx(math.exp(min(point["validation"] for point in facts["curve"])))
    assert perplexity["after"] < perplexity["before"] / 2
    assert facts["texts"]["blocks"] == -(-facts["texts"]["tokens"] // 32)
    assert f"perplexity {perplexity['before']:,.2f} → {perplexity['after']:,.2f}" in done.out
    again = call("finetune", *words)
    assert (again.code, "[data]" in again.err, "[tuned]" in again.err) == (0, False, False)


def test_texts_of_a_table_are_held_out_whole_and_come_once(tiny_model: Path, tmp_path: Path, call: Call) -> None:
    texts = [SENTENCE.format(number) for number in [*range(20), 3]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts))
    words = ["--model", tiny_model, "--data_name", tmp_path / "rows.jsonl", "--text_template", "{text}"]
    done = call("finetune", *words, "--output_path", tmp_path / "out", "--max_steps", "1", *FIXED)
    assert done.code == 0, done.err
    train, validation = (data_of(tmp_path / "out", split) for split in ("train", "validation"))
    assert [len(train), len(validation)] == [17, 3]
    assert sorted([*train, *validation]) == sorted(set(texts))
    assert yaml.safe_load((tmp_path / "out/recipe.yaml").read_text())["task_type"] == "text"
    words = ["--data", tmp_path / "rows.jsonl", "--teacher", tiny_model, "--task", "text", "--output_path", tmp_path / "other"]
    refused = call("distill", *words)
    assert refused.code == 2
    assert "learned by slmops finetune alone" in refused.err


def test_whole_rows_are_trained_on_where_that_is_asked_for(tiny_model: Path, tmp_path: Path, call: Call) -> None:
    rows = [{"phrase": f"please refund number {n}", "tone": "warm" if n % 2 else "cold"} for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--model", tiny_model, "--data_name", tmp_path / "rows.jsonl", "--text_template", "{phrase} => {tone}"]
    words += ["--output_path", tmp_path / "out", "--max_steps", "2", *FIXED, "data.quality.near_duplicates=null"]
    assert call("finetune", *words).code == 0
    answers = read_json(tmp_path / "out/finetune.json")["answer_tokens"]
    done = call("finetune", *words, "--train_on", "all")
    assert done.code == 0, done.err
    assert "[data]" not in done.err
    assert "[tuned]" in done.err
    assert read_json(tmp_path / "out/finetune.json")["answer_tokens"] > 2 * answers
    assert yaml.safe_load((tmp_path / "out/recipe.yaml").read_text())["data"]["train_on"] == "all"


@pytest.mark.slow
def test_a_data_set_of_a_hub_is_trained_on_and_not_fetched_again(tiny_model: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")
    datasets.disable_progress_bars()
    rows = [{"phrase": f"please refund number {n}", "tone": "warm" if n % 2 else "cold"} for n in range(20)]
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "repository/data/train-00000-of-00001.parquet"))
    words = ["--model_name_or_path", tiny_model, "--data_name", DATA_SET, "--text_template", "{phrase} => {tone}"]
    words += ["--train_split", "train[:16]", "--eval_split", "train[16:20]", "--max_steps", "1", "--output_path", tmp_path / "out"]
    words += [*FIXED, "data.quality.near_duplicates=null"]

    def finetune(**environment: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | environment
        command = [sys.executable, "-m", "slmops", "finetune", *map(str, words)]
        return subprocess.run(command, env=kept, capture_output=True, text=True, timeout=300)

    with serving(tmp_path / "repository") as (endpoint, _):
        done = finetune(HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert "train: Arrow, UTF-8, 16 rows; taken as text_template" in done.stderr
    recipe = yaml.safe_load((tmp_path / "out/recipe.yaml").read_text())
    assert recipe["data"]["source"]["id"] == DATA_SET
    assert [len(data_of(tmp_path / "out", split)) for split in ("train", "validation")] == [16, 4]
    again = finetune(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "home"))
    assert again.returncode == 0, again.stderr
    assert "[data]" not in again.stderr
    assert "[tuned]" not in again.stderr
