"""Rows for new tokens: the mean of the old, trained beside an adapter, and the same after a round trip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from slmops.data.rows import Row
from slmops.data.templates import Template, choose_template
from slmops.models.adapter import Adapter, merge_adapter
from slmops.models.load import load_model, load_tokenizer
from slmops.models.widening import token_rows, widen
from slmops.sections import LoraSection, TrainingSection
from slmops.training.loop import train
from tests.interruptions import interrupted_in

FORMAT = "<|start_header_id|>user<|end_header_id|>{text}<|eot_id|>{label}"
MARKS = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
ROWS = [Row.of(f"question {number}", ("refund", "account")[number % 2], f"rows:{number}") for number in range(8)]


def small(*, tied: bool, vocabulary: int = 10) -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=tied, **shape))


@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_are_the_mean_of_those_before(tied: bool) -> None:
    model = small(tied=tied)
    before = [layer.weight.clone() for layer in (model.get_input_embeddings(), model.get_output_embeddings())]
    widen(model, [10, 11])
    assert model.config.vocab_size == 12
    for layer, old in zip((model.get_input_embeddings(), model.get_output_embeddings()), before, strict=True):
        assert torch.equal(layer.weight[:10], old)
        torch.testing.assert_close(layer.weight[10:], old.mean(0).expand(2, 4))
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) is tied


def test_rows_that_only_filled_up_are_taken() -> None:
    """Of ten rows the tokenizer used eight."""
    model = small(tied=True)
    old = model.get_input_embeddings().weight.clone()
    widen(model, [8])
    weight = model.get_input_embeddings().weight
    assert torch.equal(weight[[*range(8), 9]], old[[*range(8), 9]])
    torch.testing.assert_close(weight[8], old[:8].mean(0))


def test_the_layers_whose_rows_are_trained() -> None:
    assert token_rows(small(tied=True), [10]) == {"model.embed_tokens": [10]}
    assert token_rows(small(tied=False), [10]) == {"model.embed_tokens": [10], "lm_head": [10]}
    assert token_rows(small(tied=False), [10], ["lm_head"]) == {"model.embed_tokens": [10]}
    assert token_rows(small(tied=True), []) == {}


@pytest.fixture
def base(request: pytest.FixtureRequest, tiny_model: Path, tmp_path: Path) -> Path:
    if request.param:
        return tiny_model
    model = load_model(tiny_model)
    torch.manual_seed(5)
    config = type(model.config)(**{**model.config.to_dict(), "tie_word_embeddings": False})
    LlamaForCausalLM(config).save_pretrained(tmp_path / "untied")
    load_tokenizer(tiny_model).save_pretrained(tmp_path / "untied")
    return tmp_path / "untied"


def added(base: Path) -> Template:
    return choose_template(load_tokenizer(base), "own", FORMAT, add_tokens=True)


def trained(base: Path, folder: Path, lora: LoraSection | None) -> None:
    section = TrainingSection(max_steps=4, batch_size=4, learning_rate=1e-2, precision="float32", lora=lora, save_steps=1)
    train(
        base,
        folder,
        folder.with_name(f"{folder.name}-work"),
        template=added(base),
        rows=ROWS,
        validation=ROWS[:2],
        section=section,
        seed=0,
        what="t",
        adapter_alone=lora is not None,
    )


def test_a_template_adds_its_tokens_once(tiny_model: Path, tmp_path: Path) -> None:
    template = added(tiny_model)
    assert template.added == (384, 385, 386)
    assert template.tokenizer.convert_ids_to_tokens([384, 385, 386]) == MARKS
    assert template.prompt_ids(ROWS[0])[0] == 384
    template.save(tmp_path)
    assert added(tmp_path).added == ()
    assert choose_template(load_tokenizer(tiny_model), "own", FORMAT).added == ()


@pytest.mark.parametrize(
    ("base", "lora"),
    [(True, LoraSection(r=2)), (False, LoraSection(r=2, bits=4))],
    ids=["tied-lora", "untied-qlora"],
    indirect=["base"],
)
def test_new_rows_are_trained_beside_an_adapter_and_merged(
    base: Path, tmp_path: Path, lora: LoraSection, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(base, tmp_path / "adapter", lora)
    assert "made all at once" not in capsys.readouterr().err  # the model's parts were found
    merge_adapter(Adapter.read(tmp_path / "adapter"), base, tmp_path / "merged")
    template, merged, start = added(base), load_model(tmp_path / "merged"), load_model(base)
    assert load_tokenizer(tmp_path / "merged").convert_tokens_to_ids(MARKS) == [384, 385, 386]
    old, new = start.get_input_embeddings().weight, merged.get_input_embeddings().weight
    assert torch.equal(new[:384], old)
    assert all((row - old.mean(0)).abs().max() > 1e-3 for row in new[384:])
    if not start.config.tie_word_embeddings:
        heads = [model.get_output_embeddings().weight for model in (start, merged)]
        assert torch.equal(heads[1][:384], heads[0])
    kept = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert not [name for name, tensor in kept.items() if len(tensor) >= 384]
    widen(start, template.added)
    adapted = PeftModel.from_pretrained(start, str(tmp_path / "adapter"))
    ids = torch.tensor([template.encode(ROWS[0]).input_ids])
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, atol=1e-5, rtol=1e-4)


def test_an_interrupted_training_of_new_rows_goes_on_to_the_same_bytes(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = LoraSection(r=2)
    trained(tiny_model, tmp_path / "whole", lora)
    with interrupted_in(monkeypatch, 3):
        trained(tiny_model, tmp_path / "resumed", lora)
    assert [folder.name for folder in (tmp_path / "resumed-work").glob("checkpoint-2")]
    trained(tiny_model, tmp_path / "resumed", lora)
    bytes_of = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "resumed")]
    assert bytes_of[0] == bytes_of[1]


def test_new_rows_are_trained_with_all_weights(tiny_model: Path, tmp_path: Path) -> None:
    trained(tiny_model, tmp_path / "model", None)
    old = load_model(tiny_model).get_input_embeddings().weight
    new = load_model(tmp_path / "model").get_input_embeddings().weight
    assert new.shape[0] == 387
    assert all((row - old.mean(0)).abs().max() > 1e-3 for row in new[384:])
