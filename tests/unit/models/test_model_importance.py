"""Layers that turn what passes through them are kept, those that leave it as it is go."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmops.errors import ModelError
from slmops.models.importance import block_influence, describe_influence, important_layers
from slmops.models.load import load_model

ROWS = [[5, 9, 200, 31, 7], [300, 2, 2, 100]]


@pytest.fixture(scope="module")
def idle_second(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose layer 1 adds nothing."""
    folder = tmp_path_factory.mktemp("idle")
    model = load_model(tiny_model)
    model.model.layers[1].self_attn.o_proj.weight.data.zero_()
    model.model.layers[1].mlp.down_proj.weight.data.zero_()
    model.save_pretrained(folder)
    return folder


def test_a_layer_that_does_nothing_has_no_influence(idle_second: Path) -> None:
    influence = block_influence(idle_second, ROWS)
    assert influence[1] == pytest.approx(0, abs=1e-6)
    assert min(influence[:1] + influence[2:]) > 1e-5
    assert 1 not in important_layers(influence, 3)


def test_it_is_the_mean_over_tokens_of_what_the_layers_hidden_states_say(tiny_model: Path) -> None:
    import torch

    model = load_model(tiny_model)
    turned = []
    with torch.no_grad():
        for row in ROWS:
            states = model(torch.tensor([row]), output_hidden_states=True).hidden_states
            turned.append(1 - torch.cosine_similarity(states[0][0], states[1][0], dim=-1))
    assert block_influence(tiny_model, ROWS)[0] == pytest.approx(float(torch.cat(turned).mean()), abs=1e-5)


def test_the_most_important_layers_stay_in_their_order() -> None:
    influence = [0.5, 0.1, 0.3, 0.1, 0.9]
    assert important_layers(influence, 3) == [0, 2, 4]
    assert important_layers(influence, 4) == [0, 1, 2, 4]
    assert "[0: 0.500] 1: 0.100 [2: 0.300]" in describe_influence(influence, [0, 2, 4])


@pytest.mark.parametrize("keep", [0, 6])
def test_a_depth_that_does_not_exist_is_refused(keep: int) -> None:
    with pytest.raises(ModelError, match="cannot keep"):
        important_layers([0.1] * 5, keep)


def test_without_texts_nothing_can_be_measured(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="no text"):
        block_influence(tiny_model, [[]])


def test_many_rows_are_measured_by_some_of_them(tiny_model: Path) -> None:
    assert block_influence(tiny_model, ROWS[:1] * 1000) == pytest.approx(block_influence(tiny_model, ROWS[:1]), abs=1e-6)
