"""Losses in chunks are those of the whole, for every family of models, and never need all logits at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from slmops.data.templates import IGNORED, Encoded
from slmops.signals.topk import TopK
from slmops.training.batches import collate
from slmops.training.forward import answers_of, losses_of, total_loss
from slmops.training.objectives import Answers, WeightedSum
from slmops.training.projection import Projection, each, summed

VOCABULARY, K = 61, 4
LOSS = WeightedSum.of([{"name": "cross_entropy", "weight": 0.3}, {"name": "jsd", "weight": 0.7, "kd_temperature": 2.0}])


def tiny(kind: str, **values: Any) -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(
        kind, vocab_size=VOCABULARY, num_key_value_heads=1, initializer_range=0.4, **{**shape, **special, **values}
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def row(prompt: int, answer: int, seed: int) -> Encoded:
    ids = torch.randint(3, VOCABULARY, (prompt + answer,), generator=torch.Generator().manual_seed(seed)).tolist()
    return Encoded(tuple(ids), (*[IGNORED] * prompt, *ids[prompt:]))


ROWS = [row(5, 4, 0), row(2, 9, 1), row(7, 1, 2), row(3, 6, 3)]
TOKENS = 20


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    teacher = [TopK.from_logits(3 * torch.randn(len(one.answer_ids), VOCABULARY, generator=generator), K) for one in ROWS]
    return collate(ROWS, 0, teacher)


def value_and_gradients(model: Any, total: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    (total / TOKENS).backward()
    gradients = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    return float(total.detach()), gradients


def assert_same(found: tuple[float, dict[str, torch.Tensor]], expected: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=5e-6, rtol=1e-5)


FAMILIES = {
    "llama": {},
    "llama-untied": {"tie_word_embeddings": False},
    "qwen2": {"tie_word_embeddings": True},
    "phi3": {"tie_word_embeddings": False},
    "gemma2": {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    "gemma3_text": {"query_pre_attn_scalar": 8},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 6.0},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("positions", [1, 7, TOKENS])
def test_a_chunked_loss_is_that_of_the_models_own_logits(family: str, positions: int, batch: dict[str, torch.Tensor]) -> None:
    model = tiny(family.partition("-")[0], **FAMILIES[family])
    projection = Projection.of(model)
    assert projection is not None
    own = value_and_gradients(model, LOSS(answers_of(model, batch)).sum())
    assert_same(value_and_gradients(model, summed(projection, batch, LOSS, positions=positions)), own)
    assert each(projection, batch, LOSS, positions=positions).detach().numpy() == pytest.approx(
        LOSS(answers_of(model, batch)).detach().numpy(), rel=1e-5, abs=1e-6
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_layer_leaves_out_what_predicts_nothing_where_its_form_allows(family: str, batch: dict[str, torch.Tensor]) -> None:
    model = tiny(family.partition("-")[0], **FAMILIES[family])
    projection = Projection.of(model)
    assert projection is not None
    projection = replace(projection, tree=None)
    widths = []
    layer = model.base_model.layers[-1]
    with layer.mlp.register_forward_hook(lambda _, given, __: widths.append(given[0].shape[1])):
        projection.hidden(batch)
    parallel = family == "cohere"  # its feed-forward network reads what the attention reads
    assert widths == [batch["input_ids"].shape[1] if parallel else len(batch["logits_to_keep"])]
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("positions", [3, TOKENS])
@pytest.mark.parametrize("targets", ["all-linear", ["lm_head", "q_proj"]])
def test_an_adapter_gets_its_gradient_and_frozen_weights_none(positions: int, targets: Any, batch: dict[str, torch.Tensor]) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny("llama"), LoraConfig(task_type="CAUSAL_LM", target_modules=targets, r=4))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first, so that the adapter would do nothing
            torch.nn.init.normal_(parameter)
    projection = Projection.of(model)
    assert projection is not None
    own = value_and_gradients(model, LOSS(answers_of(model, batch)).sum())
    assert own[1]
    assert all("lora" in name for name in own[1])
    assert_same(value_and_gradients(model, summed(projection, batch, LOSS, positions=positions)), own)


def test_frozen_embeddings_that_are_the_output_too_get_none(batch: dict[str, torch.Tensor]) -> None:
    model = tiny("llama", tie_word_embeddings=True)
    model.get_input_embeddings().weight.requires_grad_(False)
    projection = Projection.of(model)
    assert projection is not None
    own = value_and_gradients(model, LOSS(answers_of(model, batch)).sum())
    found = value_and_gradients(model, summed(projection, batch, LOSS, positions=6))
    assert_same(found, own)
    assert not any("embed" in name for name in found[1])


def test_in_bfloat16_autocast_chunks_change_no_more_than_its_rounding(batch: dict[str, torch.Tensor]) -> None:
    model = tiny("llama", tie_word_embeddings=True)
    projection = Projection.of(model)
    assert projection is not None
    found = []
    for positions in (TOKENS, 6):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = summed(projection, batch, LOSS, positions=positions)
        assert total.dtype == torch.float32
        found.append(value_and_gradients(model, total))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for name, gradient in found[0][1].items():
        assert (gradient - found[1][1][name]).norm() < 0.03 * gradient.norm() + 1e-6
    exact, _ = value_and_gradients(model, summed(projection, batch, LOSS))
    assert found[0][0] == pytest.approx(exact, rel=0.02)
    assert found[0][0] != exact


def test_logits_exist_for_one_chunk_at_a_time_and_for_answers_alone(batch: dict[str, torch.Tensor]) -> None:
    model = tiny("llama")
    projection = Projection.of(model)
    assert projection is not None
    seen: list[int] = []

    def watching(answers: Answers) -> torch.Tensor:
        seen.append(len(answers.logits))
        return LOSS(answers)

    summed(projection, batch, watching, positions=6).backward()
    assert seen == [6, 6, 6, 2]  # 20 answer tokens, though the columns of all rows are 4 × 9; none twice
    seen.clear()
    summed(projection, batch, watching).backward()
    assert seen == [TOKENS]


def test_a_small_batch_is_one_chunk_without_anything_extra(batch: dict[str, torch.Tensor]) -> None:
    projection = Projection.of(tiny("llama"))
    assert projection is not None
    total = summed(projection, batch, LOSS)
    assert type(total.grad_fn).__name__ == "SumBackward0"


class Doubling(torch.nn.Module):
    """A model that does something to its logits that no configuration tells."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny("llama")
        self.config, self.base_model = self.inner.config, self.inner.base_model

    def get_output_embeddings(self) -> Any:
        return self.inner.get_output_embeddings()

    def forward(self, **values: Any) -> Any:
        found = self.inner(**values)
        return replace(found, logits=2 * found.logits) if hasattr(found, "__dataclass_fields__") else found


def test_a_model_whose_logits_are_made_otherwise_is_called_as_a_whole(
    batch: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    model = Doubling()
    assert Projection.of(model) is None
    assert "more than its output layer" in capsys.readouterr().err
    own = LOSS(answers_of(model, batch))
    assert float(total_loss(model, batch, LOSS, None).detach()) == pytest.approx(float(own.sum()))
    assert torch.equal(losses_of(model, batch, LOSS, None), own.detach())
    assert not torch.allclose(own, LOSS(answers_of(model.inner, batch)))


def test_a_model_without_an_output_layer_is_called_as_a_whole() -> None:
    model = tiny("llama")
    model.get_output_embeddings = lambda: None
    assert Projection.of(model) is None


def test_looking_at_a_model_leaves_its_mode_and_the_random_numbers_alone() -> None:
    model = tiny("llama", attention_dropout=0.5).train()
    state = torch.get_rng_state()
    assert Projection.of(model) is not None
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("positions", "exact"), [(4, True), (200, False)])
def test_few_positions_meet_the_vocabulary_in_float32(positions: int, exact: bool) -> None:
    projection = Projection.of(tiny("llama"))
    assert projection is not None
    hidden = torch.randn(positions, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = projection.logits(hidden)
    assert torch.equal(found, hidden @ projection.head.weight.detach().T) is exact
