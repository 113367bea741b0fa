"""Bottleneck adapters: the identity at first, at the right places, and the same model again from their folder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from slmops.errors import ConfigError, ModelError
from slmops.export.gguf import write_gguf
from slmops.export.onnx import export_onnx
from slmops.files import read_json, size_bytes, write_json
from slmops.models.bottleneck import Bottleneck, insert, own_weights, save_bottleneck
from slmops.models.bottleneck_folder import BottleneckKind
from slmops.models.load import load_model, load_tokenizer, parameter_count
from slmops.models.resolve import find, is_adapter, model_bytes, resolve
from slmops.testing.tiny import save_tiny_model

TOKENS = torch.tensor([[5, 9, 60, 7, 200]])
FAMILIES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "phi3")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits


def shaken(model: Any) -> Any:
    """With adapters that do something."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, Bottleneck):
            for parameter in module.parameters():
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return model


def bottlenecks(model: Any) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Bottleneck)]


@pytest.fixture
def gpt2() -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("gpt2", vocab_size=384, n_embd=64, n_layer=3, n_head=4, n_positions=64)
    return AutoModelForCausalLM.from_config(config).eval()


def test_by_hand() -> None:
    """h = (1, -2): down gives 1 · 1 + 2 · -2 + 1 = -2 and 0.5; ReLU 0 and 0.5; up adds 0.5 · (4, 6) + (0, 1) = (2, 4)."""
    one = Bottleneck(2, 2, "pfeiffer")
    one.down.weight.data, one.down.bias.data = torch.tensor([[1.0, 2.0], [0.5, 0.0]]), torch.tensor([1.0, 0.0])
    one.up.weight.data, one.up.bias.data = torch.tensor([[9.0, 4.0], [9.0, 6.0]]), torch.tensor([0.0, 1.0])
    assert one(torch.tensor([1.0, -2.0])).tolist() == [3.0, 2.0]


@pytest.mark.parametrize("kind", ["houlsby", "pfeiffer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_untrained_it_changes_nothing_and_trained_it_does(tmp_path: Path, family: str, kind: BottleneckKind) -> None:
    model = load_model(save_tiny_model(tmp_path / "model", kind=family, layers=2), attention="eager")
    before = logits(model)
    insert(model, kind, 3)
    assert torch.equal(logits(model), before)
    assert len(bottlenecks(model)) == {"houlsby": 4, "pfeiffer": 2}[kind]
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == set(own_weights(model))
    assert sum(one.numel() for one in own_weights(model).values()) == len(bottlenecks(model)) * (64 * 3 + 3 + 3 * 64 + 64)
    assert (logits(shaken(model)) - before).abs().max() > 0.1


def test_gpt2_has_them_too(gpt2: Any) -> None:
    before = logits(gpt2)
    insert(gpt2, "houlsby", 3)
    assert torch.equal(logits(gpt2), before)
    assert bottlenecks(gpt2)[:2] == ["transformer.h.0.bottleneck_attn", "transformer.h.0.bottleneck_mlp"]


def test_they_stand_before_a_layer_adds_its_input(tiny_model: Path) -> None:
    model: Any = load_model(tiny_model, attention="eager")
    insert(model, "houlsby", 3)
    shaken(model)
    layer = model.model.layers[0]
    states = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(1))
    where = model.model.rotary_emb(states, torch.arange(5).unsqueeze(0))
    with torch.no_grad():
        found = layer(states, position_embeddings=where)
        found = found[0] if isinstance(found, tuple) else found
        attention, feed_forward = layer.bottleneck_self_attn, layer.bottleneck_mlp
        for module in (layer.self_attn, layer.mlp):
            module._forward_hooks.clear()
        attended = layer.self_attn(layer.input_layernorm(states), position_embeddings=where, attention_mask=None)[0]
        middle = states + attention(attended)
        expected = middle + feed_forward(layer.mlp(layer.post_attention_layernorm(middle)))
    torch.testing.assert_close(found, expected)


def test_a_copy_has_hooks_of_its_own(tiny_model: Path) -> None:
    model = load_model(tiny_model)
    insert(model, "pfeiffer", 3)
    twin = copy.deepcopy(model)
    before = logits(model)
    shaken(twin)
    assert torch.equal(logits(model), before)
    assert not torch.allclose(logits(twin), before, atol=1e-2)


def test_a_model_of_another_form_is_refused() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("mamba", vocab_size=384, hidden_size=16, num_hidden_layers=2, state_size=4)
    with pytest.raises(
        ConfigError, match=r"MambaForCausalLM has no list of 2 layers that each have one of mlp, .*\n.*--method lora"
    ):
        insert(AutoModelForCausalLM.from_config(config), "pfeiffer", 3)


@pytest.fixture
def saved(tiny_model: Path, tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """A folder with adapters, and the logits of what they were saved from."""
    model = load_model(tiny_model)
    insert(model, "houlsby", 3)
    shaken(model)
    folder = tmp_path / "adapter"
    save_bottleneck(model, tiny_model, folder, "houlsby")
    load_tokenizer(tiny_model).save_pretrained(str(folder))
    return folder, logits(model)


def test_a_folder_is_the_same_model_again(saved: tuple[Path, torch.Tensor], tiny_model: Path) -> None:
    folder, before = saved
    assert is_adapter(folder)
    found = resolve(folder)
    assert found == find(folder)
    assert found.path == folder
    assert found.source == f"bottleneck adapter on {tiny_model}"
    assert torch.equal(logits(load_model(found.path)), before)
    assert found.parameters == parameter_count(folder) == parameter_count(tiny_model) + 8 * (64 * 3 + 3 + 3 * 64 + 64)
    assert found.fingerprint != resolve(tiny_model).fingerprint
    assert load_model(folder, dtype="bfloat16")(TOKENS).logits.dtype == torch.bfloat16


def test_plain_weights_cannot_be_made_of_it(saved: tuple[Path, torch.Tensor], tiny_model: Path, tmp_path: Path) -> None:
    folder, _ = saved
    message = r"plain weights are needed here, and a bottleneck adapter \(houlsby\) cannot be merged.*\n.*by the torch runtime"
    with pytest.raises(ModelError, match=message):
        write_gguf(folder, tmp_path / "model.gguf")
    with pytest.raises(ModelError, match=message):
        export_onnx(folder, tmp_path / "onnx", "int4", max_length=64)
    assert not (tmp_path / "onnx").exists()


def test_another_base_or_damaged_weights_are_noticed(saved: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    folder, _ = saved
    settings = read_json(folder / "bottleneck_config.json")
    other = save_tiny_model(tmp_path / "other", seed=1)
    write_json(folder / "bottleneck_config.json", settings | {"base_model_name_or_path": str(other)})
    with pytest.raises(ModelError, match="another model than the one that this adapter was trained on"):
        load_model(folder)
    write_json(folder / "bottleneck_config.json", settings | {"size": 5})
    with pytest.raises(ModelError, match="other layers or sizes"):
        load_model(folder)
    write_json(folder / "bottleneck_config.json", settings | {"kind": "compacter"})
    with pytest.raises(ModelError, match="'compacter' is not known"):
        resolve(folder)
    write_json(folder / "bottleneck_config.json", settings)
    (folder / "bottleneck_model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_model(folder)
    (folder / "bottleneck_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no bottleneck_model.safetensors here"):
        resolve(folder)


def test_its_files_are_those_of_the_base_too(saved: tuple[Path, torch.Tensor], tiny_model: Path) -> None:
    folder, _ = saved
    assert model_bytes(folder) == size_bytes(folder) + size_bytes(tiny_model)
    assert model_bytes(tiny_model) == size_bytes(tiny_model)
