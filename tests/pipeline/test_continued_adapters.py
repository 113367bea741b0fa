"""Bottleneck adapters, continued adapters, merge and unmerge on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slmops.files import read_json
from slmops.models.load import load_model, parameter_count
from slmops.models.resolve import resolve
from slmops.runtimes.base import Sampling, open_runtime
from slmops.runtimes.folders import engine_of, served_folder
from tests.commands import Call, Result
from tests.phrases import TEMPLATE, finetuning, phrases


@pytest.fixture
def finetune(tiny_model: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Train with the words given into ``tmp_path/NAME``."""
    monkeypatch.setenv("SLMOPS_CACHE", str(tmp_path / "cache"))
    trained = finetuning(call, phrases(tmp_path), "--max_steps", "8", "--learning_rate", "5e-3")

    def run(name: str, *more: object, model: Path = tiny_model) -> Result:
        return trained(model, tmp_path / name, *more)

    return run


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return load_model(folder)(torch.tensor([[7, 9, 60]])).logits


def test_bottlenecks_are_a_model_to_every_command_but_those_that_need_plain_weights(
    finetune: Call, call: Call, tiny_model: Path, tmp_path: Path, measured_here: None
) -> None:
    done = finetune("out", "--method", "houlsby", "--adapter_size", "4")
    assert done.code == 0, done.err
    out = tmp_path / "out"
    facts = read_json(out / "finetune.json")
    assert (facts["method"], facts["base"]) == ("houlsby", str(tiny_model))
    assert facts["curve"][-1]["validation"] < facts["curve"][0]["validation"]
    assert [file.name for file in (out / "model").iterdir()] == ["reference.json"]
    assert read_json(out / "adapter/bottleneck_config.json")["base_model_name_or_path"] == str(tiny_model)
    adapted = logits(out / "adapter")
    assert not torch.allclose(logits(tiny_model), adapted, atol=1e-3)
    for place in (out, out / "model", out / "adapter"):
        assert torch.equal(logits(resolve(place).path), adapted)
        assert served_folder(place) == out / "adapter"
    assert engine_of(served_folder(out)) == "torch"
    runtime = open_runtime("torch", served_folder(out))
    assert runtime.generate(["please refund number 7 =>"], Sampling(max_new_tokens=3))[0].prompt_tokens > 3
    shape = ["--task", "classification", "--text_template", TEMPLATE, "--set", "evaluation.latency_requests=5"]
    done = call("evaluate", out, "--test_data", tmp_path / "train.jsonl", *shape, "-o", tmp_path / "report", "--json")
    assert done.code == 0, done.err
    for words in (
        ("shrink", "--model", out, "--layers", "2", "-o", tmp_path / "small"),
        ("merge", out, "-o", tmp_path / "small"),
    ):
        refused = call(*words)
        assert refused.code == 2
        assert "cannot be merged into its base's" in refused.err
    refused = finetune("more", "--method", "lora", model=out)
    assert refused.code == 2
    assert "--continue_adapter" in refused.err
    refused = finetune("more", "--continue_adapter", "--merge", model=out)
    assert refused.code == 2
    assert "bottleneck adapters cannot be merged" in refused.err
    more = finetune("more", "--continue_adapter", model=out)
    assert more.code == 0, more.err
    assert "houlsby with 4 values" in more.err
    after = read_json(tmp_path / "more/finetune.json")
    assert (after["method"], after["base"]) == ("houlsby", str(tiny_model))
    assert after["curve"][0]["loss"] < facts["curve"][0]["loss"]


def test_adapter_means_pfeiffer(finetune: Call, tiny_model: Path, tmp_path: Path) -> None:
    assert finetune("out", "--method", "adapter", "--adapter_reduction_factor", "32").code == 0
    settings = read_json(tmp_path / "out/adapter/bottleneck_config.json")
    assert (settings["kind"], settings["size"]) == ("pfeiffer", 2)
    assert settings["parameters"] - parameter_count(tiny_model) == 4 * (64 * 2 + 2 + 2 * 64 + 64)


def test_a_continued_adapter_keeps_base_rank_and_layers(finetune: Call, tiny_model: Path, tmp_path: Path) -> None:
    assert finetune("first", "--lora_r", "3", "--target_modules", "q_proj,down_proj").code == 0
    first, second = tmp_path / "first", tmp_path / "second"
    done = finetune("second", "--continue_adapter", "--merge", model=first)
    assert done.code == 0, done.err
    facts = [read_json(folder / "finetune.json") for folder in (first, second)]
    assert facts[1]["base"] == str(tiny_model)
    assert facts[1]["curve"][0]["loss"] < facts[0]["curve"][0]["loss"]
    settings = read_json(second / "adapter/adapter_config.json")
    assert (settings["r"], sorted(settings["target_modules"])) == (3, ["down_proj", "q_proj"])
    assert settings["base_model_name_or_path"] == str(tiny_model)
    assert "continue_adapter: true" in (second / "recipe.yaml").read_text()
    torch.testing.assert_close(logits(second / "model"), logits(resolve(second / "adapter").path), atol=1e-5, rtol=1e-4)
    assert "[tuned]" not in finetune("second", "--continue_adapter", "--merge", model=first).err

    new = finetune("new", model=first)
    assert new.code == 0, new.err
    assert "merged into its base first; --continue_adapter trains it further" in new.err
    assert read_json(tmp_path / "new/finetune.json")["base"] == str(first)


def test_what_an_adapter_decides_itself_is_not_asked_for(finetune: Call, tiny_model: Path, tmp_path: Path) -> None:
    assert finetune("first", "--lora_r", "3").code == 0
    first = tmp_path / "first"
    refused = finetune("second", "--continue_adapter", "--lora_r", "8", model=first)
    assert refused.code == 2
    assert "training.lora.r: 8 is asked for, and the adapter that is continued decides this itself: it is 3" in refused.err
    for words in (["--method", "dora"], ["--method", "houlsby"], ["--method", "full"]):
        assert finetune("second", "--continue_adapter", *words, model=first).code == 2
    assert "is no adapter" in finetune("second", "--continue_adapter", model=tiny_model).err
    assert not (tmp_path / "second/finetune.json").exists()


def test_merged_and_unmerged_again_it_is_the_base(finetune: Call, call: Call, tiny_model: Path, tmp_path: Path) -> None:
    assert finetune("out", "--lora_r", "3").code == 0
    done = call("merge", tmp_path / "out", "-o", tmp_path / "merged")
    assert done.code == 0, done.err
    assert torch.equal(logits(tmp_path / "merged"), logits(resolve(tmp_path / "out").path))
    done = call("unmerge", tmp_path / "merged", "--adapter", tmp_path / "out", "-o", tmp_path / "base", "--json")
    assert done.code == 0, done.err
    base, merged, unmerged = (load_model(folder).state_dict() for folder in (tiny_model, tmp_path / "merged", tmp_path / "base"))
    assert base.keys() == unmerged.keys()
    for name, weight in base.items():
        torch.testing.assert_close(unmerged[name], weight, atol=1e-6, rtol=1e-6)
    assert any(not torch.allclose(merged[name], weight, atol=1e-4) for name, weight in base.items())
    assert (tmp_path / "base/tokenizer.json").is_file()
    assert call("merge", tmp_path / "out", "-o", tmp_path / "merged").code == 0
    assert "something else is here" in call("merge", tmp_path / "out", "-o", tmp_path / "base").err
    assert "there is no adapter here" in call("merge", tiny_model, "-o", tmp_path / "nothing").err


def test_what_merging_lost_is_not_unmerged(finetune: Call, call: Call, tiny_model: Path, tmp_path: Path) -> None:
    assert finetune("out", "--method", "dora", "--target_modules", "q_proj", "--merge").code == 0
    refused = call("unmerge", tmp_path / "out/model", "--adapter", tmp_path / "out", "-o", tmp_path / "base")
    assert refused.code == 2
    assert "DoRA" in refused.err
    assert f"take the base itself: {tiny_model}" in refused.err
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(
    ("method", "flag", "takers"),
    [
        ("lora", "--adapter_size", "houlsby or pfeiffer or adapter"),
        ("full", "--lora_r", "lora or dora or qlora"),
        ("pfeiffer", "--lora_alpha", "lora or dora or qlora"),
        ("lora", "--bits", "qlora"),
    ],
)
def test_a_flag_of_another_method_is_refused(finetune: Call, method: str, flag: str, takers: str) -> None:
    refused = finetune("out", "--method", method, flag, "8")
    assert refused.code == 2
    assert f"{flag}: --method {method} has nothing that it would set" in refused.err
    assert f"--method {takers}" in " ".join(refused.err.split())
