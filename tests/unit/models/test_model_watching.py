"""What layers hold is seen in every family, is what the model computes with, and changes nothing of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from slmops.errors import ModelError
from slmops.models.watching import Attended, Watcher
from slmops.signals.internals import Layers

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "phi3": {},  # query, key and value in one matrix
    "gemma3_text": {"query_pre_attn_scalar": 24, "sliding_window": 64},
}
TOKENS = torch.tensor([[0, 0, 5, 6, 7, 8], [3, 4, 5, 9, 10, 11]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])


def tiny(kind: str, attention: str = "eager", **values: Any) -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    values = {**shape, "head_dim": 8, "initializer_range": 0.3, **special, **values}
    config = AutoConfig.for_model(kind, vocab_size=23, **values)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def read(model: Any, **options: Any) -> Any:
    positions = (MASK.cumsum(-1) - 1).clamp(min=0)
    return model(input_ids=TOKENS, attention_mask=MASK, position_ids=positions, use_cache=False, **options)


def maps_of(attended: Attended) -> torch.Tensor:
    """The attention, ``[B, heads, T, T]``."""
    queries, keys = attended.queries.transpose(1, 2), attended.keys.transpose(1, 2)
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
    seen = MASK[:, None, None, :].bool() & torch.ones(6, 6).tril().bool()
    return (queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5).masked_fill(~seen, -1e9).softmax(-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_the_model_itself_says(family: str) -> None:
    model = tiny(family, **FAMILIES[family])
    with torch.no_grad(), Watcher(model, Layers((0, 1), (0, 2))).watching() as seen:
        read(model)
    with torch.no_grad():
        own = read(model, output_hidden_states=True, output_attentions=True)
    assert sorted(seen.hidden) == [0, 1]
    assert sorted(seen.attention) == [0, 2]
    for number, states in seen.hidden.items():
        assert torch.equal(states, own.hidden_states[number + 1])
    real = MASK.bool()
    for number, attended in seen.attention.items():
        assert attended.queries.shape == (2, 6, 4, 8)
        assert attended.keys.shape == attended.values.shape == (2, 6, 2, 8)
        found, expected = (maps.transpose(1, 2)[real] for maps in (maps_of(attended), own.attentions[number]))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_looking_changes_no_bit_of_logits_and_gradients(family: str, attention: str) -> None:
    found = []
    for layers in (None, Layers((1,), (0, 1, 2))):
        model = tiny(family, attention, **FAMILIES[family])
        if layers is None:
            logits = read(model).logits
        else:
            with Watcher(model, layers).watching():
                logits = read(model).logits
        logits.square().sum().backward()
        found.append([logits.detach(), *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(plain, watched) for plain, watched in zip(*found, strict=True))
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gradient_goes_to_the_weights_below(family: str) -> None:
    model = tiny(family, **FAMILIES[family])
    with Watcher(model, Layers((), (1,))).watching() as seen:
        read(model)
    attended = seen.attention[1]
    (attended.queries.square().sum() + attended.keys.square().sum() + attended.values.square().sum()).backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert any("layers.1.self_attn" in name for name in moved)
    assert any("layers.0.mlp" in name for name in moved)
    assert not any("layers.2" in name or "layers.1.mlp" in name for name in moved)


def test_an_adapter_is_looked_through() -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny("llama"), LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=2))
    with Watcher(model, Layers((2,), (2,))).watching() as seen:
        read(model)
    (seen.hidden[2].sum() + seen.attention[2].queries.sum()).backward()
    assert any(parameter.grad is not None for name, parameter in model.named_parameters() if "layers.2" in name and "lora" in name)


def test_after_looking_nothing_is_left_behind() -> None:
    model = tiny("llama")
    with Watcher(model, Layers((0,), (0,))).watching() as seen:
        read(model)
    kept = seen.hidden[0]
    read(model)
    assert seen.hidden[0] is kept
    assert model.config._attn_implementation == "eager"


def test_a_layer_that_there_is_not_is_named() -> None:
    with pytest.raises(ModelError, match="there is no layer 3: the model has 3, from 0"):
        Watcher(tiny("llama"), Layers((3,)))


def test_another_kind_of_attention_is_refused_with_what_is_supported() -> None:
    capped = tiny("gemma2", query_pre_attn_scalar=8, attn_logit_softcapping=5.0)
    with pytest.raises(ModelError, match=r"more than a softmax of products.*\n.*Llama, SmolLM2, Qwen 2 or 3, Gemma 3, Phi-3"):
        with Watcher(capped, Layers((), (0,))).watching():
            read(capped)
    torch.manual_seed(0)
    config = AutoConfig.for_model("bloom", vocab_size=23, hidden_size=16, n_layer=2, n_head=2)
    unlike = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(ModelError, match=r"attention in layer 1 of a model of type 'bloom' is not seen\n.*Llama, SmolLM2"):
        with Watcher(unlike, Layers((), (1,))).watching():
            unlike(input_ids=TOKENS)
    with pytest.raises(ModelError, match="cannot be looked at"):
        Watcher(torch.nn.Linear(2, 2), Layers((0,)))
