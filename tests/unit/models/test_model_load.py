"""Facts of a model folder from its files alone, and loading that refuses what is damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from slmops.errors import ModelError
from slmops.models.load import (
    context_length,
    load_model,
    load_tokenizer,
    parameter_count,
    read_config,
    tensor_infos,
    weight_files,
)


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_parameters_are_counted_as_torch_counts_them(tiny_model: Path) -> None:
    assert parameter_count(tiny_model) == load_model(tiny_model).num_parameters()


def test_a_tied_output_layer_that_is_stored_too_counts_once(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    expected = parameter_count(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert parameter_count(folder) == expected
    config = read_config(folder) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    assert parameter_count(folder) == expected + tensors["lm_head.weight"].numel()


def test_shards_are_found_by_their_index(tiny_model: Path, tmp_path: Path) -> None:
    model = load_model(tiny_model)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(weight_files(tmp_path)) > 1
    assert parameter_count(tmp_path) == parameter_count(tiny_model)
    weight_files(tmp_path)[1].unlink()
    with pytest.raises(ModelError, match="incomplete"):
        weight_files(tmp_path)


def test_the_context_length_is_read_from_the_config(folder: Path) -> None:
    assert context_length(folder) == 256
    (folder / "config.json").write_text('{"text_config": {"max_position_embeddings": 99}}')
    assert context_length(folder) == 99
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="context length"):
        context_length(folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_model_is_loaded_for_evaluation_in_the_type_asked_for(tiny_model: Path, dtype: str, attention: str) -> None:
    model = load_model(tiny_model, dtype=dtype, attention=attention)  # type: ignore[arg-type]  # parameters are plain strings
    assert not model.training
    assert str(model.dtype) == f"torch.{dtype}"
    assert model.config._attn_implementation == attention


def test_a_tokenizer_without_padding_token_pads_with_its_end_token(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"


def test_weights_that_are_cut_short_are_refused_from_their_header(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="cut short"):
        tensor_infos(file)
    with pytest.raises(ModelError):
        load_model(folder)


def test_a_tensor_that_is_missing_is_an_error_not_a_random_start(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.2.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.layers\.2\.mlp\.up_proj\.weight"):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"12345678", b"\xff" * 64, b"\x02" + bytes(7) + b"{}"])
def test_a_file_that_is_not_safetensors_is_refused_or_empty(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    if content.endswith(b"{}"):
        assert tensor_infos(file) == {}
    else:
        with pytest.raises(ModelError, match="not a safetensors file"):
            tensor_infos(file)


def test_a_folder_without_tokenizer_or_with_a_broken_one_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer here"):
        load_tokenizer(folder)


def test_a_config_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        read_config(tmp_path)
