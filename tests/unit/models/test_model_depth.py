"""A cut model computes what the original computes with the other layers taken out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from slmops.errors import ModelError
from slmops.models.depth import cut_depth, uniform_layers
from slmops.models.load import load_model, load_tokenizer, parameter_count, read_config, weight_files


@pytest.mark.parametrize(
    ("total", "keep", "layers"),
    [
        (30, 8, [0, 4, 8, 12, 17, 21, 25, 29]),
        (4, 4, [0, 1, 2, 3]),
        (4, 2, [0, 3]),
        (5, 3, [0, 2, 4]),
        (1, 1, [0]),
    ],
)
def test_layers_are_spread_evenly_between_first_and_last(total: int, keep: int, layers: list[int]) -> None:
    assert uniform_layers(total, keep) == layers


def test_every_spread_is_increasing_and_has_both_ends() -> None:
    for total in range(2, 40):
        for keep in range(2, total + 1):
            layers = uniform_layers(total, keep)
            assert layers == sorted(set(layers))
            assert (len(layers), layers[0], layers[-1]) == (keep, 0, total - 1)


@pytest.mark.parametrize(("total", "keep"), [(4, 5), (4, 1), (4, 0), (1, 2)])
def test_a_depth_that_does_not_exist_is_refused(total: int, keep: int) -> None:
    with pytest.raises(ModelError, match="cannot keep"):
        uniform_layers(total, keep)


@pytest.mark.parametrize("keep", [[0, 3], [0, 1, 2, 3], [1, 2]])
def test_logits_are_those_of_the_model_without_the_other_layers(tiny_model: Path, tmp_path: Path, keep: list[int]) -> None:
    import torch

    cut_depth(tiny_model, tmp_path, keep)
    model = load_model(tiny_model)
    model.model.layers = torch.nn.ModuleList(model.model.layers[number] for number in keep)
    for number, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = number
    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        assert load_model(tmp_path)(ids, use_cache=False).logits.equal(model(ids, use_cache=False).logits)


def test_config_and_tokenizer_come_along_and_sizes_shrink(tiny_model: Path, tmp_path: Path) -> None:
    cut_depth(tiny_model, tmp_path, [0, 3])
    assert read_config(tmp_path)["num_hidden_layers"] == 2
    assert (tmp_path / "generation_config.json").read_bytes() == (tiny_model / "generation_config.json").read_bytes()
    assert load_tokenizer(tmp_path)("refund")["input_ids"] == load_tokenizer(tiny_model)("refund")["input_ids"]
    assert parameter_count(tmp_path) == load_model(tmp_path).num_parameters() < parameter_count(tiny_model)


def test_shards_become_one_file_with_the_same_values(tiny_model: Path, tmp_path: Path) -> None:
    sharded, target = tmp_path / "sharded", tmp_path / "cut"
    load_model(tiny_model).save_pretrained(sharded, max_shard_size="100KB")
    assert len(weight_files(sharded)) > 1
    cut_depth(sharded, target, [0, 1, 2, 3])
    assert not (target / "model.safetensors.index.json").exists()
    original, cut = load_model(tiny_model).state_dict(), load_model(target).state_dict()
    assert all(tensor.equal(cut[name]) for name, tensor in original.items())


def test_lists_with_one_item_a_layer_are_cut_too(tmp_path: Path) -> None:
    """Gemma-like models alternate two kinds of attention; the kept layers keep their kind."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    kinds = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
    config = Qwen3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        use_sliding_window=True,
        sliding_window=4,
        layer_types=kinds,
    )
    Qwen3ForCausalLM(config).save_pretrained(tmp_path / "whole")
    cut_depth(tmp_path / "whole", tmp_path / "cut", [1, 2])
    assert read_config(tmp_path / "cut")["layer_types"] == kinds[1:3]
    whole, cut = load_model(tmp_path / "whole"), load_model(tmp_path / "cut")
    whole.model.layers = torch.nn.ModuleList([whole.model.layers[1], whole.model.layers[2]])
    whole.config.num_hidden_layers, whole.config.layer_types = 2, kinds[1:3]
    ids = torch.arange(20).reshape(1, 20)
    with torch.no_grad():
        assert cut(ids, use_cache=False).logits.equal(whole(ids, use_cache=False).logits)


def test_a_model_with_layers_named_h_is_cut(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=3, n_head=4, n_positions=32)).save_pretrained(tmp_path / "whole")
    cut_depth(tmp_path / "whole", tmp_path / "cut", [0, 2])
    whole, cut = load_model(tmp_path / "whole").state_dict(), load_model(tmp_path / "cut").state_dict()
    assert cut["transformer.h.1.mlp.c_fc.weight"].equal(whole["transformer.h.2.mlp.c_fc.weight"])
    assert read_config(tmp_path / "cut")["n_layer"] == 2


@pytest.mark.parametrize("keep", [[], [0, 4], [1, 0], [0, 0], [-1, 2]])
def test_layers_that_cannot_be_kept_are_refused(tiny_model: Path, tmp_path: Path, keep: list[int]) -> None:
    with pytest.raises(ModelError, match="cannot keep"):
        cut_depth(tiny_model, tmp_path / "cut", keep)
    assert not (tmp_path / "cut").exists()


def test_an_architecture_whose_layers_depend_on_their_number_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (source / "config.json").write_text(json.dumps(read_config(source) | {"sliding_window_pattern": 6}))
    with pytest.raises(ModelError, match="sliding_window_pattern"):
        cut_depth(source, tmp_path / "cut", [0, 3])


def test_a_config_that_disagrees_with_the_weights_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (source / "config.json").write_text(json.dumps(read_config(source) | {"num_hidden_layers": 5}))
    with pytest.raises(ModelError, match="expected 5 layers"):
        cut_depth(source, tmp_path / "cut", [0, 3])
