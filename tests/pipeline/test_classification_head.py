"""``slmops finetune --head``: a layer over the labels, asked, served and evaluated as a model with words is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from slmops.data.chat import ChatTemplate
from slmops.data.label_template import LabelTemplate
from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import DataError, ModelError
from slmops.files import read_json
from slmops.models.resolve import resolve
from slmops.runtimes.base import Generation, Sampling, open_runtime
from slmops.runtimes.folders import served_folder
from slmops.serving.client import ask
from tests.commands import Call, Result
from tests.interruptions import interrupted_after
from tests.phrases import LABELS, TEMPLATE, finetuning, phrases


@pytest.fixture
def finetune(tiny_model: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Train a head with the words given into ``tmp_path/NAME``."""
    monkeypatch.setenv("SLMOPS_CACHE", str(tmp_path / "cache"))
    fixed = ["--head", "--batch_size", "16", "--max_steps", "60", "--learning_rate", "3e-3", "training.patience=null"]
    trained = finetuning(call, phrases(tmp_path), *fixed)

    def run(name: str, *more: object) -> Result:
        return trained(tiny_model, tmp_path / name, *more)

    return run


@pytest.mark.parametrize("method", ["full", "lora"])
def test_it_is_trained_and_answers_with_labels_and_probabilities(
    finetune: Call, call: Call, tmp_path: Path, measured_here: None, method: str
) -> None:
    done = finetune("out", "--method", method)
    assert done.code == 0, done.err
    out = tmp_path / "out"
    facts = read_json(out / "finetune.json")
    assert facts["answer_tokens"] == 15 * 51  # one a row
    config = read_json(out / "model/config.json")
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert sorted(config["id2label"].values()) == sorted(LABELS)
    assert not (out / "adapter").exists()

    questions = [f"please {label} number {number}" for number, label in enumerate(LABELS)]
    chat = ChatTemplate.load(served_folder(out))
    prompts = [chat.render([{"role": "user", "content": question}]) for question in questions]
    found = open_runtime("torch", served_folder(out)).generate(prompts, Sampling(max_new_tokens=1))
    assert [one.text for one in found] == list(LABELS)
    whole: Any = AutoModelForSequenceClassification.from_pretrained(str(out / "model"))
    ids = torch.tensor([open_runtime("torch", out / "model").tokenize(prompts[0])])
    with torch.no_grad():
        expected = whole(ids).logits.softmax(-1)[0]
    for number, label in config["id2label"].items():
        assert found[0].probabilities is not None
        assert found[0].probabilities[label] == pytest.approx(float(expected[int(number)]), abs=1e-5)

    shape = ["--task", "classification", "--text_template", TEMPLATE, "--set", "evaluation.latency_requests=5"]
    done = call("evaluate", out, "--test_data", tmp_path / "train.jsonl", *shape, "-o", tmp_path / "report", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["rows"][0]["measures"]["accuracy"] > 0.9


def test_a_server_tells_the_label_and_the_probabilities(finetune: Call, call: Call, tmp_path: Path) -> None:
    assert finetune("out", "--method", "full").code == 0
    label, probabilities = ask(served_folder(tmp_path / "out"), "please refund number 7")
    assert label == "refund" == next(iter(probabilities))
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
    done = call("ask", tmp_path / "out", "please account number 7")
    assert done.code == 0
    assert "answer    account" in done.out
    assert "% account" in done.out


def test_it_is_no_language_model(finetune: Call, call: Call, tmp_path: Path) -> None:
    assert finetune("out", "--method", "full", "--max_steps", "1").code == 0
    with pytest.raises(ModelError, match=r"no decoder-only language model\n.*can be asked, served and evaluated, nothing else"):
        resolve(tmp_path / "out")
    for words in (["--method", "qlora"], ["--method", "houlsby"], ["--merge"], ["--task_type", "generation"]):
        refused = finetune("other", *words)
        assert refused.code == 2
        assert "head" in refused.err


def test_an_interrupted_training_goes_on_to_the_same_bytes(finetune: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    often = ["training.checkpoint_seconds=0"]
    assert finetune("whole", "--max_steps", "6", *often).code == 0
    with interrupted_after(monkeypatch, "checkpoint-3"):
        assert finetune("out", "--max_steps", "6", *often).code != 0
    assert finetune("out", "--max_steps", "6", *often).code == 0
    weights = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("out", "whole")]
    assert weights[0] == weights[1]


def test_the_answer_is_the_labels_number(template: Template) -> None:
    numbered = LabelTemplate(template.tokenizer, template.chat, labels=LABELS)
    row = Row.of("where is it", "account")
    encoded = numbered.encode(row)
    assert list(encoded.input_ids[:-1]) == template.prompt_ids(row)
    assert encoded.answer_ids == (2,)
    with pytest.raises(DataError, match=r"'acount' is none of the labels\n.*did you mean 'account'"):
        numbered.encode(Row.of("where is it", "acount"))


def test_words_have_no_probabilities(tiny_model: Path) -> None:
    (answer,) = open_runtime("torch", tiny_model).generate(["please"], Sampling(max_new_tokens=1))
    assert isinstance(answer, Generation)
    assert answer.probabilities is None
