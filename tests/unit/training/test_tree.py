"""What rows begin with alike is computed once: the same states and gradients as row by row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from slmops.data.templates import IGNORED, Encoded
from slmops.training.batches import collate
from slmops.training.cores import Cores
from slmops.training.projection import Projection
from slmops.training.tree import Tree
from slmops.training.tree_attention import Heads, TreeBatch, attend

VOCABULARY = 31


def row(ids: str, answer: int) -> Encoded:
    """A row of a letter a token; the last ``answer`` of them are trained."""
    tokens = [ord(letter) - ord("a") + 1 for letter in ids]
    return Encoded(tuple(tokens), (*[IGNORED] * (len(tokens) - answer), *tokens[-answer:]))


ROWS = [row("abcdefgh", 3), row("abcx", 1), row("abcdefgi", 2), row("abcdefgh", 2), row("zabcdyyyyy", 6), row("abcd", 2)]


def test_a_tree_by_hand() -> None:
    """``abcd`` and ``abx`` predict their last token, ``ab`` its ``b``: nobody reads what ends a row."""
    tree = Tree.of(collate([row("abcd", 1), row("abx", 1), row("ab", 1)], 0))
    assert tree.input_ids.tolist() == [[1, 2, 3]]  # a, b, c
    assert tree.position_ids.tolist() == [[0, 1, 2]]
    assert tree.nodes.tolist() == [[0, 1, 2], [0, 1, 0], [0, 0, 0]]
    assert tree.owners.tolist() == [0, 1, 2]
    assert tree.twins.tolist() == [[3, 4, 6], [0, 1, 0]]  # a and b of the second row, a of the third
    assert tree.answers.tolist() == [0, 1, 2]
    assert tree.answer_index.tolist() == [2, 1, 0]
    shared, which = tree.sharing
    assert shared.tolist() == [0, 1]
    assert which.tolist() == [[1, 0, 1], [0, 1, 0]]


def test_rows_without_a_common_token_have_nodes_of_their_own() -> None:
    tree = Tree.of(collate([row("abc", 1), row("bca", 1)], 0))
    assert tree.input_ids.tolist() == [[1, 2, 2, 3]]
    assert tree.twins.shape == (2, 0)


def test_many_nodes_are_filled_up_to_one_of_few_numbers() -> None:
    rows = [Encoded(tuple(range(start, start + 50)), (*[IGNORED] * 49, 0)) for start in (0, 100)]
    tree = Tree.of(collate(rows, 0))
    assert len(tree.owners) == 98
    assert tree.input_ids.shape == (1, 100)


def test_a_window_hides_what_is_too_far_behind() -> None:
    tree = Tree.of(collate([row("abcde", 1)], 0))
    mask = Heads(tree, 2, 1).mask(torch.zeros(1), 2)
    hidden = float("-inf")
    own = [[0, hidden, hidden, hidden], [0, 0, hidden, hidden], [hidden, 0, 0, hidden], [hidden, hidden, 0, 0]]
    assert mask.tolist() == [own + own]


FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-many": {"num_key_value_heads": 4},
    "qwen2": {},
    "qwen3": {"head_dim": 4},
    "phi3": {},
    "gemma2": {"query_pre_attn_scalar": 8, "attn_logit_softcapping": 1.5, "sliding_window": 3},
    "gemma3_text": {"query_pre_attn_scalar": 8, "sliding_window": 4},
    "mistral": {"sliding_window": 3},
    "cohere": {"logit_scale": 0.25},
    "granite": {"attention_multiplier": 0.4, "residual_multiplier": 0.5},
}


def tiny(family: str, **values: Any) -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 4}
    values = {"num_key_value_heads": 2, "vocab_size": VOCABULARY, "initializer_range": 0.3, "pad_token_id": 0, **shape, **values}
    config = AutoConfig.for_model(family.partition("-")[0], **values)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()


def states_and_gradients(model: Any, projection: Projection) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    states = projection.hidden(collate(ROWS, 0))
    weights = torch.linspace(-1, 1, states.numel()).view(states.shape)
    (states * weights).sum().backward()
    return states.detach(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_gradients_are_those_of_the_rows(family: str) -> None:
    model = tiny(family, **FAMILIES[family])
    projection = Projection.of(model)
    assert projection is not None
    assert projection.tree is not None
    seen: list[int] = []
    hook = model.base_model.layers[0].register_forward_hook(lambda _, given, __: seen.append(given[0].shape[:2].numel()))
    states, gradients = states_and_gradients(model, projection)
    hook.remove()
    assert seen == [16]  # "abcdefg" and "zabcdyyyy", each token once
    assert model.config._attn_implementation == "eager"
    own_states, own_gradients = states_and_gradients(model, projection.whole)
    torch.testing.assert_close(states, own_states, atol=1e-6, rtol=1e-5)
    assert gradients.keys() == own_gradients.keys()
    for name, gradient in own_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, atol=2e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_in_bfloat16_it_differs_by_no_more_than_rounding() -> None:
    model = tiny("llama")
    projection = Projection.of(model)
    assert projection is not None
    exact, _ = states_and_gradients(model, projection)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states, gradients = states_and_gradients(model, projection)
    torch.testing.assert_close(states.float(), exact, atol=0.2, rtol=0.1)
    assert all(one.dtype == torch.float32 for one in gradients.values())


def test_an_adapters_gradients_are_the_same() -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny("llama"), LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=4))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    projection = Projection.of(model)
    assert projection is not None
    assert projection.tree is not None
    _, gradients = states_and_gradients(model, projection)
    _, own = states_and_gradients(model, projection.whole)
    assert gradients.keys() == own.keys()
    for name, gradient in own.items():
        torch.testing.assert_close(gradients[name], gradient, atol=2e-5, rtol=1e-4)


def test_threads_may_share_a_model() -> None:
    model = tiny("llama").eval()
    projection = Projection.of(model)
    assert projection is not None
    shared = replace(projection, last=None)

    def one(part: list[Encoded]) -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([shared.hidden(collate(part, 0)) for _ in range(20)])

    parts = [ROWS[:3], ROWS[3:]]
    expected = [one(part) for part in parts]
    torch.set_num_threads(max(2, torch.get_num_threads()))
    with Cores(2) as cores:
        for _ in range(5):
            for found, own in zip(cores.each(one, parts), expected, strict=True):
                torch.testing.assert_close(found, own)
    assert model.config._attn_implementation == "eager"


def test_a_model_that_drops_at_random_keeps_its_rows() -> None:
    projection = Projection.of(tiny("llama", attention_dropout=0.1))
    assert projection is not None
    assert projection.tree is None


def test_a_layer_that_mixes_tokens_in_another_way_keeps_its_rows() -> None:
    """Its states say so, whatever its configuration does."""
    model = tiny("llama")
    mixing = model.base_model.layers[0].mlp
    mixing.register_forward_hook(lambda _, __, states: states.cumsum(1))
    projection = Projection.of(model)
    assert projection is not None
    assert projection.tree is None


def test_a_layer_without_its_tree_says_so() -> None:
    vectors = torch.zeros(1, 2, 3, 4)
    with pytest.raises(RuntimeError, match="tree"):
        attend(None, vectors, vectors, vectors, None)
    tree = TreeBatch(Tree.of(collate([row("abcd", 1)], 0)))
    assert attend(None, vectors, vectors, vectors, None, tree=tree)[0].shape == (1, 3, 2, 4)
