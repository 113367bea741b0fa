"""Workflows of Olive's: carried over, said what is not, and run with a tiny GPT-2."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import GPT2Config, GPT2LMHeadModel

from slmops.errors import ConfigError
from slmops.files import read_json
from slmops.models.load import load_model
from slmops.models.resolve import resolve
from slmops.olive import to_recipe
from slmops.testing.tiny import tiny_tokenizer
from tests.commands import Call

QLORA: dict[str, Any] = {
    "input_model": {"type": "PyTorchModel", "config": {"hf_config": {"model_name": "facebook/opt", "task": "text-generation"}}},
    "systems": {"local_system": {"type": "LocalSystem"}},
    "data_configs": {
        "tiny_codes": {
            "type": "HuggingfaceContainer",
            "load_dataset_config": {"params": {"data_name": "codes.jsonl", "split": "train[:40]"}},
            "pre_process_data_config": {"params": {"text_template": "### {language} {prompt} => {response}", "max_seq_len": 256}},
        },
        "held_out": {"load_dataset_config": {"data_name": "codes.jsonl", "split": "train[40:]"}},
    },
    "passes": {
        "qlora": {
            "type": "QLoRA",
            "config": {
                "lora_r": 64,
                "alpha": 8,
                "train_data_config": "tiny_codes",
                "eval_data_config": "held_out",
                "training_args": {"learning_rate": 0.0002, "max_steps": 150, "fp16": True, "optim": "paged_adamw_32bit", "seed": 3},
            },
        },
        "convert": {"type": "OnnxConversion"},
    },
    "engine": {"output_dir": "models/codes"},
}


def test_what_a_workflow_asks_for_is_carried_over() -> None:
    found = to_recipe(QLORA, "codes", "olive.json")
    assert found.values == {
        "name": "codes",
        "task_type": "generation",
        "output_path": "models/codes",
        "model": "facebook/opt",
        "data": {
            "source": {
                "name": "files",
                "train": "codes.jsonl",
                "text_template": "### {language} {prompt} => {response}",
                "train_split": "train[:40]",
                "validation_split": "train[40:]",
            },
            "special_tokens": "text",
            "test_share": 0,
        },
        "training": {"learning_rate": 0.0002, "max_steps": 150, "lora": {"r": 64, "alpha": 8, "bits": 4}},
    }
    said = "\n".join(found.notes)
    for part in (
        "fp16: bfloat16",
        "optim paged_adamw_32bit: AdamW",
        "seed: not",
        "max_seq_len: not",
        "convert (onnxconversion)",
        "systems, engine",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"passes": {"convert": {"type": "OnnxConversion"}}}, r"olive.json: passes: no pass trains an adapter"),
        ({"data_configs": []}, r"olive.json: data_configs: it names no data"),
        ({"input_model": {"type": "ONNXModel", "model_path": "m"}}, r"type ONNXModel\) is none that can be trained"),
        ({"input_model": {"type": "HfModel", "model_path": "m", "task": "text-classification"}}, r"'text-classification' is none"),
    ],
)
def test_what_cannot_be_carried_over_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        to_recipe(QLORA | change, "codes", "olive.json")


@pytest.fixture
def workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As a guide shows it for DialoGPT, with a tiny model of that architecture."""
    monkeypatch.setenv("SLMOPS_CACHE", str(tmp_path / "cache"))
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    shape = GPT2Config(vocab_size=384, n_embd=32, n_layer=2, n_head=2, n_positions=128, bos_token_id=1, eos_token_id=2)
    GPT2LMHeadModel(shape).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    rows = [{"question": f"where is parcel {n}", "answer": f"it is on its way, number {n % 4}"} for n in range(40)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "olive-config.yaml"
    lora = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "weight_decay": 0.01, "target_modules": ["c_attn", "c_proj"]}
    values = {
        "input_model": {"type": "PyTorchModel", "model_path": str(tmp_path / "gpt2"), "task": "text-generation"},
        "data_configs": [
            {
                "name": "dialogues",
                "type": "HuggingfaceContainer",
                "load_dataset_config": {"data_name": "json", "data_files": str(tmp_path / "train.jsonl"), "split": "train"},
                "pre_process_data_config": {"text_template": "### {question}\n### {answer}"},
            }
        ],
        "passes": {
            "lora": {
                "type": "LoRA",
                **lora,
                "modules_to_save": ["ln_f", "lm_head"],
                "train_data_config": "dialogues",
                "training_args": {
                    "max_steps": 6,
                    "learning_rate": 5e-3,
                    "dataloader_num_workers": 2,
                    "lr_scheduler_type": "linear",
                    "logging_steps": 0.5,
                    "eval_steps": 3,
                },
            }
        },
        "output_dir": str(tmp_path / "out"),
    }
    file.write_text(yaml.safe_dump(values))
    return file


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[7, 9, 60]])).logits


def test_a_workflow_runs_as_it_is(workflow: Path, tmp_path: Path, call: Call) -> None:
    done = call("run", "--config", workflow, "data.quality.language=any", "data.quality.near_duplicates=null")
    assert done.code == 0, done.err
    for said in (
        "dataloader_num_workers: batches are made",
        "logging_steps 0.5: not carried over",
        "text_template: the loss covers",
    ):
        assert said in done.err
    config = read_json(tmp_path / "out/adapter/adapter_config.json")
    assert (config["r"], config["lora_alpha"], sorted(config["target_modules"])) == (8, 16, ["c_attn", "c_proj"])
    assert sorted(config["modules_to_save"]) == ["lm_head", "ln_f"]
    adapted = PeftModel.from_pretrained(load_model(tmp_path / "gpt2"), str(tmp_path / "out/adapter"))
    torch.testing.assert_close(logits(load_model(resolve(tmp_path / "out").path)), logits(adapted), atol=1e-4, rtol=1e-4)
    training = yaml.safe_load((tmp_path / "out/recipe.yaml").read_text())["training"]
    assert (training["lr_scheduler_type"], training["eval_steps"]) == ("linear", 3)
    assert [point["step"] for point in read_json(tmp_path / "out/finetune.json")["curve"]] == [3, 6]
    again = call("run", tmp_path / "out/recipe.yaml")
    assert again.code == 0
    assert "[tuned]" not in again.err
    planned = call("run", "--config", workflow, "--plan", "--json", "training.max_steps=7")
    assert [step["stage"] for step in json.loads(planned.out)] == ["data", "tuned"]


def test_setup_says_what_is_missing(workflow: Path, tmp_path: Path, call: Call) -> None:
    done = call("run", "--config", workflow, "--setup")
    assert (done.code, done.out) == (0, "nothing is missing\n")
    (tmp_path / "train.jsonl").unlink()
    done = call("run", "--config", workflow, "--setup")
    assert done.code == 2
    assert f"data: there is no {tmp_path / 'train.jsonl'}" in done.err


def test_a_workflow_may_name_a_data_set_of_the_hub() -> None:
    values = copy.deepcopy(QLORA)
    for name, split in (("tiny_codes", "train[:40]"), ("held_out", "train[40:]")):
        loaded = {"data_name": "owner/tiny-codes", "subset": "python", "split": split}
        values["data_configs"][name]["load_dataset_config"] = loaded
    assert to_recipe(values, "codes", "olive.json").values["data"]["source"] == {
        "name": "hub",
        "id": "owner/tiny-codes",
        "config": "python",
        "text_template": "### {language} {prompt} => {response}",
        "train_split": "train[:40]",
        "validation_split": "train[40:]",
    }


def test_import_writes_the_recipe(workflow: Path, tmp_path: Path, call: Call) -> None:
    done = call("import", workflow, "-o", tmp_path / "recipe.yaml")
    assert done.code == 0, done.err
    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    assert recipe["training"]["lora"]["modules_to_save"] == ["ln_f", "lm_head"]
    assert recipe["training"]["weight_decay"] == 0.01
    refused = call("import", tmp_path / "recipe.yaml")
    assert refused.code == 2
    assert "no workflow of Olive's" in refused.err
