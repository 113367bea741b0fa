"""A folder with an adapter is a model: the base with the adapter merged into it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from slmops.errors import ModelError
from slmops.models.load import load_model, load_tokenizer, parameter_count
from slmops.models.resolve import Pending, find, resolve
from tests.adapters import TOKENS, save_adapter

KINDS: Mapping[str, dict[str, Any]] = {
    "lora": {"target_modules": "all-linear"},
    "dora": {"target_modules": ["q_proj", "down_proj"], "use_dora": True},
    "with-a-layer-of-its-own": {"target_modules": ["v_proj"], "modules_to_save": ["norm"]},
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLMOPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_has_the_logits_of_base_and_adapter(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    logits = save_adapter(tiny_model, tmp_path / "adapter", **KINDS[kind])
    with torch.no_grad():
        assert not torch.allclose(load_model(tiny_model)(TOKENS).logits, logits, atol=1e-2)
    pending = find(tmp_path / "adapter")
    assert isinstance(pending, Pending)
    assert (pending.download_mb, pending.parameters) == (0.0, parameter_count(tiny_model))
    model = resolve(tmp_path / "adapter")
    assert model.source == f"adapter on {tiny_model}"
    assert model.parameters == parameter_count(tiny_model)
    with torch.no_grad():
        torch.testing.assert_close(load_model(model.path)(TOKENS).logits, logits, atol=1e-5, rtol=1e-4)
    assert load_tokenizer(model.path).chat_template == load_tokenizer(tiny_model).chat_template


def test_it_is_merged_once(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_adapter(tiny_model, tmp_path / "adapter", **KINDS["lora"])
    model = resolve(tmp_path / "adapter")
    assert "once" in capsys.readouterr().err
    assert find(tmp_path / "adapter") == resolve(tmp_path / "adapter") == model
    assert "once" not in capsys.readouterr().err
    save_adapter(tiny_model, tmp_path / "adapter", **KINDS["dora"])
    assert isinstance(find(tmp_path / "adapter"), Pending)


def test_its_own_tokenizer_comes_with_it_and_may_have_more_tokens(tiny_model: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base, tokenizer = load_model(tiny_model), load_tokenizer(tiny_model)
    tokenizer.add_tokens(["<angry>", "<calm>"])
    base.resize_token_embeddings(len(tokenizer))
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    model.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=True)
    tokenizer.save_pretrained(str(tmp_path / "adapter"))
    found = resolve(tmp_path / "adapter")
    assert load_tokenizer(found.path).convert_tokens_to_ids("<calm>") == len(tokenizer) - 1
    with torch.no_grad():
        own, expected = (one.eval()(torch.tensor([[5, len(tokenizer) - 1]])).logits for one in (load_model(found.path), model))
    torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-4)


def edit(folder: Path, **values: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_what_cannot_be_merged_says_why(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    save_adapter(tiny_model, folder, **KINDS["lora"])
    edit(folder, base_model_name_or_path=None)
    with pytest.raises(ModelError, match="does not say which model"):
        resolve(folder)
    edit(folder, base_model_name_or_path=str(folder))
    with pytest.raises(ModelError, match="names itself"):
        resolve(folder)
    edit(folder, base_model_name_or_path="gone")
    with pytest.raises(ModelError, match="there is no model 'gone'"):
        resolve(folder)
    edit(folder, base_model_name_or_path=str(tiny_model), peft_type="PROMPT_TUNING")
    with pytest.raises(ModelError, match=r"PROMPT_TUNING\) cannot be merged"):
        resolve(folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        resolve(folder)


def test_an_adapter_for_another_shape_does_not_fit(tiny_model: Path, tmp_path: Path) -> None:
    from slmops.testing.tiny import save_tiny_model

    other = save_tiny_model(tmp_path / "other", hidden=32)
    save_adapter(other, tmp_path / "adapter", **KINDS["lora"])
    edit(tmp_path / "adapter", base_model_name_or_path=str(tiny_model))
    with pytest.raises(ModelError, match=r"LORA\) cannot be merged into"):
        resolve(tmp_path / "adapter")
