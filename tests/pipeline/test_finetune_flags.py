"""Commands of fine-tuning as guides have them, word for word but for the model and the data, and what comes of each."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from slmops.files import read_json
from slmops.models.load import load_model, load_tokenizer
from slmops.models.resolve import resolve
from slmops.testing.tiny import save_tiny_model
from tests.commands import Call, Result

FIXED = ("data.quality.language=any", "data.quality.near_duplicates=null")
LANGUAGES = ("Python", "Go", "Rust")


@pytest.fixture
def here(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the models and data that the commands name, which they are run in."""
    monkeypatch.setenv("SLMOPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    for model in ("meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Meta-Llama-3-8B", "base"):
        (tmp_path / model).parent.mkdir(exist_ok=True)
        (tmp_path / model).symlink_to(tiny_model)
    tones = [{"phrase": f"phrase number {number}", "tone": ("glad", "sad")[number % 2]} for number in range(40)]
    codes = [
        {"programming_language": LANGUAGES[n % 3], "prompt": f"add {n} and {n}", "response": f"{n} + {n} is {2 * n}"}
        for n in range(60)
    ]
    for folder, rows in (("xxyyzzz/phrase_classification", tones), ("nampdn-ai/tiny-codes", codes)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def run(here: Path, call: Call) -> Callable[..., Result]:
    """A command line as a shell reads it."""

    def words(line: str, *more: str) -> Result:
        done = call(*shlex.split(line.replace("\\\n", " "))[1:], *more, *FIXED)
        assert done.code == 0, done.err
        return done

    return words


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits


def test_the_first(run: Callable[..., Result], here: Path) -> None:
    done = run(
        r"""slmops finetune --model_name_or_path meta-llama/Llama-3.2-1B-Instruct --trust_remote_code --output_path models/llama/ft \
        --data_name xxyyzzz/phrase_classification --text_template "<|start_header_id|>user<|end_header_id|>\n{phrase}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n{tone}" \
        --method lora --max_steps 100 --log_level 1""",  # noqa: E501  # word for word
        "training.max_steps=4",
    )
    assert "<|start_header_id|>, <|end_header_id|>, <|eot_id|>: no tokens of this model, taken as plain text" in done.err
    out = here / "models/llama/ft"
    assert read_json(out / "adapter/adapter_config.json")["peft_type"] == "LORA"
    assert [file.name for file in (out / "model").iterdir()] == ["reference.json"]
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe["task_type"] == "classification"
    assert recipe["trust_remote_code"] is True
    assert recipe["data"]["source"]["text_template"].startswith("<|start_header_id|>user<|end_header_id|>\n{phrase}<|eot_id|>")


def test_the_second(run: Callable[..., Result], here: Path) -> None:
    done = run(
        r"""slmops finetune --method qlora --model_name_or_path meta-llama/Meta-Llama-3-8B --data_name nampdn-ai/tiny-codes \
        --train_split "train[:4096]" --eval_split "train[4096:4224]" --text_template "### Language: {programming_language} \n### Question: {prompt} \n### Answer: {response}" \
        --per_device_train_batch_size 16 --per_device_eval_batch_size 16 --max_steps 150 --logging_steps 50 --output_path adapters/tiny-codes""".replace(  # noqa: E501  # word for word
            "4096", "50"
        ).replace("4224", "60"),
        "training.max_steps=4",
        "training.logging_steps=2",
    )
    assert [line.split(":")[0].split()[1] for line in done.err.splitlines() if "learning rate" in line] == ["2", "4"]
    facts = read_json(here / "adapters/tiny-codes/finetune.json")
    assert (facts["method"], facts["rows"], facts["steps"]) == ("qlora", 50, 4)
    recipe = yaml.safe_load((here / "adapters/tiny-codes/recipe.yaml").read_text())
    assert recipe["training"]["eval_batch_size"] == 16
    assert "batch_size" not in recipe["training"]  # sixteen is the default


def test_the_third_and_fourth_with_what_they_lack(run: Callable[..., Result], here: Path, call: Call) -> None:
    third = (
        "slmops finetune --method qlora --gradient_checkpointing true --per_device_train_batch_size 1 "
        "--gradient_accumulation_steps 16"
    )
    fourth = "slmops finetune --logging_steps 10 --eval_steps 50 --save_steps 100 --logging_dir ./logs --report_to tensorboard"
    for line in (third, fourth):
        refused = call(*line.split()[1:])
        assert refused.code == 2
        assert "--model_name_or_path and --data_name and --output_path are missing" in refused.err
    given = " --model_name_or_path base --data_name xxyyzzz/phrase_classification --max_steps 2 --max_length 64"
    run(third + given + " --output_path third --fp16 false")
    recipe = yaml.safe_load((here / "third/recipe.yaml").read_text())["training"]
    assert recipe["gradient_checkpointing"] is True
    assert (recipe["batch_size"], recipe["gradient_accumulation_steps"], recipe["precision"]) == (1, 16, "float32")
    # A tenth of the fourth's numbers.
    fewer = fourth.replace("10 ", "1 ").replace("50 ", "5 ").replace("100 ", "10 ")
    done = run(fewer + given.replace("steps 2", "steps 10") + " --output_path fourth")
    assert f"tensorboard --logdir {here / 'logs'}" in done.err
    events = EventAccumulator(str(here / "logs/fourth/tuned"))
    events.Reload()
    assert [one.step for one in events.Scalars("train/loss")] == list(range(1, 11))
    assert [one.step for one in events.Scalars("eval/loss")] == [5, 10]
    curve = read_json(here / "fourth/finetune.json")["curve"]
    assert [point["step"] for point in curve] == [5, 10]
    assert sum(one.value for one in events.Scalars("train/loss")[:5]) / 5 == pytest.approx(curve[0]["loss"], rel=1e-5)


def test_the_fifth_and_sixth_share_a_base(run: Callable[..., Result], here: Path, call: Call) -> None:
    base = " --model_name_or_path base --data_name xxyyzzz/phrase_classification --max_steps 1 --log_level 3"
    lines = {
        "classifier": 'slmops finetune --method lora --task_name "classification" --output_path adapters/classifier',
        "generator": 'slmops finetune --method lora --task_name "generation" --output_path adapters/generator',
    }
    refused = call(*shlex.split(lines["classifier"])[1:])
    assert (refused.code, "--model_name_or_path and --data_name are missing" in refused.err) == (2, True)
    for name, task in (("classifier", "classification"), ("generator", "generation")):
        assert run(lines[name] + base).err == ""
        assert yaml.safe_load((here / f"adapters/{name}/recipe.yaml").read_text())["task_type"] == task
        assert (here / f"adapters/{name}/adapter/adapter_model.safetensors").is_file()


def test_another_models_tokens_become_the_models_own(run: Callable[..., Result], here: Path, call: Call) -> None:
    template = r'--text_template "<|start_header_id|>user<|end_header_id|>\n{phrase}<|eot_id|>{tone}" --special_tokens add'
    line = f"slmops finetune --model base --data xxyyzzz/phrase_classification {template} --max_steps 3 --learning_rate 1e-2 -o out"
    done = run(line, "training.precision=float32")
    assert "<|eot_id|>: new tokens of this model" in done.err
    adapter, model = resolve("out/adapter"), resolve("out/model")
    assert adapter.path == model.path
    tokenizer = load_tokenizer(model.path)
    ids = tokenizer("<|start_header_id|>user<|end_header_id|>\nphrase<|eot_id|>")["input_ids"]
    assert (ids[0], ids[-1]) == (384, 386)
    start = load_model(here / "base")
    start.resize_token_embeddings(387)
    adapted = PeftModel.from_pretrained(start, "out/adapter")
    torch.testing.assert_close(logits(load_model(model.path), ids), logits(adapted, ids), atol=1e-5, rtol=1e-4)
    again = run(line.replace("-o out", "-o second").replace("--model base", "--model out"))
    assert "new tokens" not in again.err  # they are its own by now


CODE = """from transformers import LlamaConfig, LlamaForCausalLM


class MartianConfig(LlamaConfig):
    model_type = "martian"


class MartianForCausalLM(LlamaForCausalLM):
    config_class = MartianConfig
"""


def test_code_of_a_models_folder_runs_only_with_the_flag(
    run: Callable[..., Result], here: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(here / "modules"))
    folder = save_tiny_model(here / "martian")
    (folder / "modeling_martian.py").write_text(f"open({str(here / 'ran')!r}, 'w')\n{CODE}")
    config = read_json(folder / "config.json")
    config |= {"model_type": "martian", "architectures": ["MartianForCausalLM"]}
    config["auto_map"] = {
        "AutoConfig": "modeling_martian.MartianConfig",
        "AutoModelForCausalLM": "modeling_martian.MartianForCausalLM",
    }
    (folder / "config.json").write_text(json.dumps(config))
    line = "slmops finetune --model martian --data xxyyzzz/phrase_classification --max_steps 1 --output_path out"
    refused = call(*line.split()[1:])
    assert refused.code == 2
    assert "--trust_remote_code" in refused.err
    assert not (here / "ran").exists()
    run(line + " --trust_remote_code")
    assert (here / "ran").exists()
    run(line.replace("--output_path out", "--output_path full --method full") + " --trust_remote_code true")
    assert (here / "full/model/modeling_martian.py").is_file()
    refused = call("evaluate", "full", "--test_data", "xxyyzzz/phrase_classification/train.jsonl", "-o", "report")
    assert (refused.code, "--trust_remote_code" in refused.err) == (2, True)
