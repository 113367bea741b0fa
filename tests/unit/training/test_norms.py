"""Norms with a written backward pass: values and gradients, which norms are taken, and which hand on bfloat16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from slmops.training.norms import Norm, quicken_norms

SHAPE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}


def llama_norm() -> LlamaRMSNorm:
    torch.manual_seed(0)
    norm = LlamaRMSNorm(12, eps=0.05)  # large enough to be noticed where it is forgotten
    torch.nn.init.normal_(norm.weight)
    return norm


def test_values_and_gradients_are_those_in_float64() -> None:
    norm = llama_norm()
    states = torch.randn(2, 5, 12).requires_grad_()
    above = torch.randn(2, 5, 12)
    exact, weight = states.detach().double().requires_grad_(), norm.weight.detach().double().requires_grad_()
    expected = weight * exact / (exact.square().mean(-1, keepdim=True) + 0.05).sqrt()
    expected.backward(above.double())
    own = Norm.of(norm)
    assert own is not None
    found = own(states)
    found.backward(above)
    assert exact.grad is not None
    assert weight.grad is not None
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-5)
    assert states.grad is not None
    torch.testing.assert_close(states.grad.double(), exact.grad, atol=1e-6, rtol=1e-5)
    assert norm.weight.grad is not None
    torch.testing.assert_close(norm.weight.grad.double(), weight.grad, atol=1e-6, rtol=1e-5)


def test_frozen_weights_and_states_get_no_gradient() -> None:
    norm = llama_norm()
    norm.weight.requires_grad_(False)
    own = Norm.of(norm)
    assert own is not None
    states = torch.randn(3, 12).requires_grad_()
    own(states).sum().backward()
    assert states.grad is not None
    assert norm.weight.grad is None
    norm.weight.requires_grad_(True)
    own(states.detach()).sum().backward()
    assert norm.weight.grad is not None


def test_states_of_another_type_are_the_originals_matter() -> None:
    norm = llama_norm()
    own = Norm.of(norm)
    assert own is not None
    states = torch.randn(3, 12).bfloat16()
    assert torch.equal(own(states), norm(states))


class TwiceRMSNorm(LlamaRMSNorm):
    """Says it is one."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(hidden_states)


def test_norms_that_do_something_else_stay() -> None:
    assert Norm.of(torch.nn.LayerNorm(12)) is None
    assert Norm.of(Gemma3RMSNorm(12)) is None  # by one plus the weight
    assert Norm.of(TwiceRMSNorm(12)) is None
    assert Norm.of(llama_norm().bfloat16()) is None


class Exact(torch.nn.Linear):
    """Computes in float32 whatever surrounds it."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


@pytest.mark.parametrize("exact", [False, True])
def test_norms_before_what_converts_hand_on_bfloat16(exact: bool) -> None:
    """The last norm's states meet the output layer in float32; queries and keys come in bfloat16 and stay the original's matter."""
    torch.manual_seed(0)
    model: Any = Qwen3ForCausalLM(Qwen3Config(vocab_size=61, initializer_range=0.4, head_dim=8, **SHAPE))
    if exact:
        model.model.layers[1].mlp.gate_proj = Exact(16, 32, bias=False)
    quicken_norms(model, torch.bfloat16)
    own = {name: module.forward.dtype for name, module in model.named_modules() if isinstance(module.forward, Norm)}
    assert own.pop("model.norm") is None
    assert len(own) == 8
    for name, dtype in own.items():
        kept = exact and name.endswith("post_attention_layernorm")  # what is read in float32 in one layer is so in all
        assert dtype is (None if kept else torch.bfloat16), name


def test_in_float32_nothing_is_converted() -> None:
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(LlamaConfig(vocab_size=61, initializer_range=0.4, **SHAPE))
    tokens = torch.arange(8).unsqueeze(0)
    expected = model(tokens).logits
    quicken_norms(model, None)
    torch.testing.assert_close(model(tokens).logits, expected, atol=1e-5, rtol=1e-5)
    assert {module.forward.dtype for module in model.modules() if isinstance(module.forward, Norm)} == {None}
