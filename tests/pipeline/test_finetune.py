"""``slmops finetune`` on a tiny model: what it leaves, that it goes on where it was, and that other commands take it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel

from slmops.files import read_json
from slmops.models.load import load_model
from slmops.models.resolve import resolve
from tests.commands import Call, Result
from tests.phrases import TEMPLATE, finetuning, phrases


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return phrases(tmp_path)


@pytest.fixture
def finetune(data: Path, tiny_model: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("SLMOPS_CACHE", str(tmp_path / "cache"))
    trained = finetuning(call, data, "--max_steps", "8")

    def run(*more: object) -> Result:
        return trained(tiny_model, tmp_path / "out", *more)

    return run


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[7, 9, 60]])).logits


def test_lora_leaves_an_adapter_and_a_reference_that_every_command_takes(
    finetune: Call, tiny_model: Path, tmp_path: Path, call: Call
) -> None:
    done = finetune("--method", "lora", "--lora_r", "4", "--learning_rate", "5e-3")
    assert done.code == 0, done.err
    out = tmp_path / "out"
    assert str(out / "adapter") in done.out
    assert read_json(out / "adapter/adapter_config.json")["r"] == 4
    assert [file.name for file in (out / "model").iterdir()] == ["reference.json"]
    adapted = PeftModel.from_pretrained(load_model(tiny_model), str(out / "adapter"))
    for reference in (out, out / "model", out / "adapter"):
        model = resolve(reference)
        torch.testing.assert_close(logits(load_model(model.path)), logits(adapted), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(logits(load_model(tiny_model)), logits(adapted), atol=1e-3)
    facts = read_json(out / "finetune.json")
    assert (facts["method"], facts["base"], facts["merged"]) == ("lora", str(tiny_model), False)
    assert facts["curve"][-1]["validation"] < facts["curve"][0]["validation"]
    assert f"result    {facts['diagnosis']['kind']}: " in done.out
    shape = ["--task", "classification", "--text_template", TEMPLATE, "--set", "evaluation.latency_requests=5"]
    done = call("evaluate", out, "--test_data", tmp_path / "train.jsonl", *shape, "-o", tmp_path / "report", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["rows"][0]["name"] == "out"


def test_merge_writes_the_weights_too(finetune: Call, tiny_model: Path, tmp_path: Path) -> None:
    assert finetune("--method", "dora", "--merge", "--target_modules", "q_proj,down_proj").code == 0
    out = tmp_path / "out"
    adapted = PeftModel.from_pretrained(load_model(tiny_model), str(out / "adapter"))
    assert (out / "model/model.safetensors").is_file()
    torch.testing.assert_close(logits(load_model(out / "model")), logits(adapted), atol=1e-5, rtol=1e-4)
    assert resolve(out).path == out / "model"
    assert read_json(out / "finetune.json")["method"] == "dora"


def test_all_weights_leave_a_model_and_an_adapter_can_be_trained_on_it(finetune: Call, tmp_path: Path) -> None:
    done = finetune("--method", "full", "--json")
    assert done.code == 0, done.err
    out = tmp_path / "out"
    assert not (out / "adapter").exists()
    assert json.loads(done.out)["method"] == "full"
    before = (out / "model/model.safetensors").read_bytes()
    again = finetune("--method", "full")
    assert again.code == 0
    assert "[tuned]" not in again.err
    assert (out / "model/model.safetensors").read_bytes() == before
    second = finetune("--model", out, "--method", "lora", "--output_path", tmp_path / "second")
    assert second.code == 0, second.err
    assert read_json(tmp_path / "second/finetune.json")["base"] == str(out)
    assert resolve(tmp_path / "second").source == f"adapter on {out}"


def test_rows_without_answers_are_nothing_to_learn_from(finetune: Call, data: Path) -> None:
    data.write_text("".join(json.dumps({"phrase": f"number {n} of the phrases", "tone": None}) + "\n" for n in range(30)))
    done = finetune("--task", "classification")
    assert done.code == 2
    assert "answer" in done.err


def test_another_models_format_is_said_and_taken_as_text(finetune: Call, tmp_path: Path) -> None:
    template = "<|start_header_id|>user\\n{phrase}<|eot_id|>\\n{tone}"
    done = finetune("--text_template", template, "--max_steps", "1")
    assert done.code == 0, done.err
    assert "<|start_header_id|>, <|eot_id|>: no tokens of this model, taken as plain text; its own are" in done.err
    assert "<|im_start|>" in done.err
    recipe = yaml.safe_load((tmp_path / "out/recipe.yaml").read_text())
    assert recipe["data"]["source"]["text_template"] == "<|start_header_id|>user\n{phrase}<|eot_id|>\n{tone}"
    refused = finetune("--text_template", template, "--special_tokens", "error")
    assert refused.code == 2
    assert "data.special_tokens=text" in refused.err


def test_parts_of_the_file_train_and_validate(finetune: Call, tmp_path: Path) -> None:
    done = finetune("--train_split", "train[:30]", "--eval_split", "train[30:40]", "--max_steps", "1", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["rows"] == 30
    (data,) = (tmp_path / "out/artifacts").glob("data-*")
    assert len((data / "validation.jsonl").read_text().splitlines()) == 10


def test_the_plan_says_the_defaults_and_writes_nothing(finetune: Call, tmp_path: Path) -> None:
    done = finetune("--plan", "--learning_rate", "2e-4")
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert ["learning_rate", "0.0002", "yours"] in lines
    assert ["max_steps", "8", "yours"] in lines
    (batch,) = [line for line in lines if line[0] == "batch_size"]
    assert batch[1:4] == ["8", "default", "for"]
    assert [line[:2] for line in lines[-2:]] == [["run", "data"], ["run", "tuned"]]
    assert not (tmp_path / "out").exists()
    planned = json.loads(finetune("--plan", "--json").out)
    assert {one["name"]: one["origin"] for one in planned["settings"]}["learning_rate"] == "default"
    assert [step["stage"] for step in planned["steps"]] == ["data", "tuned"]


def test_defaults_are_said_kept_in_the_recipe_and_a_rerun_has_them(finetune: Call, tmp_path: Path, call: Call) -> None:
    done = finetune("--task", "classification", "--batch_size", "6")
    assert done.code == 0, done.err
    out = tmp_path / "out"
    facts, recipe = read_json(out / "finetune.json"), yaml.safe_load((out / "recipe.yaml").read_text())
    said = {one["name"]: (one["value"], one["origin"]) for one in facts["settings"]}
    assert said["batch_size"] == (6, "yours")
    assert said["learning_rate"] == (recipe["training"]["learning_rate"], "default")
    assert said["validation"] == ("9 rows", "default")
    assert "learning_rate" in done.err
    assert "ETA" in done.err
    assert facts["estimate"]["updates"] == 8
    assert facts["peak_mb"] > 100
    again = call("run", out / "recipe.yaml")
    assert again.code == 0, again.err
    assert "[tuned]" not in again.err
    assert "[scores]" not in again.err


def test_answers_before_and_after_and_a_report(finetune: Call, tmp_path: Path) -> None:
    done = finetune("--task", "classification", "--method", "full", "--max_steps", "60", "--learning_rate", "5e-3")
    assert done.code == 0, done.err
    out = tmp_path / "out"
    facts = read_json(out / "finetune.json")
    scores = facts["scores"]
    assert (scores["measure"], scores["of"]) == ("accuracy", 9)
    assert scores["rows"] == 9
    assert scores["before"]["value"] == 0
    assert scores["after"]["value"] > 0.5
    assert scores["after"]["interval"][0] <= scores["after"]["value"] <= scores["after"]["interval"][1]
    assert "score     accuracy 0.000 [" in done.out
    page = (out / "finetune.html").read_text()
    assert facts["diagnosis"]["sentence"].replace("'", "&#39;") in page
    assert "please" in page.partition('id="answers"')[2]


def test_scores_can_be_left_out(finetune: Call, tmp_path: Path) -> None:
    done = finetune("--task", "classification", "--no_score", "--max_steps", "2")
    assert done.code == 0, done.err
    assert read_json(tmp_path / "out/finetune.json")["scores"] is None
    assert "score " not in done.out
    assert yaml.safe_load((tmp_path / "out/recipe.yaml").read_text())["score"] is False


def test_what_does_not_fit_says_what_would(finetune: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slmops.training.dryrun.memory_available_mb", lambda: -1e9)
    done = finetune()
    assert done.code == 2
    assert "the training needs about" in done.err
    assert not (tmp_path / "out/finetune.json").exists()


@pytest.mark.parametrize("bits", [4, 8])
def test_qlora_leaves_an_adapter_for_the_whole_weights(finetune: Call, tiny_model: Path, tmp_path: Path, bits: int) -> None:
    done = finetune("--method", "qlora", "--bits", bits, "--learning_rate", "5e-3")
    assert done.code == 0, done.err
    out = tmp_path / "out"
    facts = read_json(out / "finetune.json")
    assert facts["method"] == "qlora"
    assert facts["curve"][-1]["validation"] < facts["curve"][0]["validation"]
    adapted = PeftModel.from_pretrained(load_model(tiny_model), str(out / "adapter"))
    torch.testing.assert_close(logits(load_model(resolve(out).path)), logits(adapted), atol=1e-5, rtol=1e-4)


def test_a_loss_of_ones_own_trains_and_a_changed_one_trains_again(finetune: Call, tmp_path: Path) -> None:
    file = tmp_path / "my_loss.py"
    file.write_text((Path(__file__).parents[2] / "examples" / "my_loss.py").read_text())
    given = ("--loss", f"{file}:ContrastiveLoss", "--loss_weight", "0.5")
    done = finetune(*given)
    assert done.code == 0, done.err
    assert "ContrastiveLoss of my_loss.py on pairs of rows with weight 0.5, beside cross-entropy with weight 1" in done.err
    recipe = yaml.safe_load((tmp_path / "out/recipe.yaml").read_text())
    assert recipe["training"]["objectives"] == [{"name": "cross_entropy"}, {"name": f"{file}:ContrastiveLoss", "weight": 0.5}]
    assert "[tuned]" not in finetune(*given).err
    file.write_text(file.read_text().replace("margin: float = 1.0", "margin: float = 0.5"))
    changed = finetune(*given)
    assert "[tuned]" in changed.err
    assert finetune("--loss_weight", "2").code == 2
    broken = finetune("--loss", f"{file}:ContrastivLoss")
    assert broken.code == 2
    assert "did you mean 'ContrastiveLoss'" in broken.err
