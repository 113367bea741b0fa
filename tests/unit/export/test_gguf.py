"""A model folder written as GGUF is the same model, in eight bits; what the format would lose is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from slmops.errors import ModelError
from slmops.export.gguf import write_gguf
from slmops.export.openvino import export_openvino
from slmops.models.gguf import convert_gguf
from slmops.models.gguf_header import read_gguf_header
from slmops.models.load import load_model, load_tokenizer, parameter_count
from slmops.testing.tiny import save_tiny_model

IDS = torch.tensor([[1, 40, 7, 300, 12, 90, 2, 33]])


@pytest.fixture(scope="module")
def back(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, written and read again."""
    root = tmp_path_factory.mktemp("gguf")
    write_gguf(tiny_model, root / "tiny.gguf")
    (root / "back").mkdir()
    convert_gguf(root / "tiny.gguf", root / "back")
    return root / "back"


def changed(model: Path, folder: Path, **values: object) -> Path:
    """A copy of a model folder with other values in its config."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | values), encoding="utf-8")
    return folder


def test_logits_stay_those_of_the_model_within_eight_bits(tiny_model: Path, back: Path) -> None:
    with torch.inference_mode():
        expected, found = (load_model(folder)(IDS).logits for folder in (tiny_model, back))
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()
    assert not torch.equal(found, expected)


def test_sixteen_bits_are_all_but_exact(tiny_model: Path, tmp_path: Path) -> None:
    write_gguf(tiny_model, tmp_path / "tiny.gguf", "float16")
    (tmp_path / "back").mkdir()
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "back")
    with torch.inference_mode():
        expected, found = (load_model(folder)(IDS).logits for folder in (tiny_model, tmp_path / "back"))
    assert (found - expected).abs().max() < 0.001 * expected.abs().max()
    assert read_gguf_header(tmp_path / "tiny.gguf").context_length == 256


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_other_architectures_keep_their_logits_too(kind: str, tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", kind=kind)
    write_gguf(model, tmp_path / "model.gguf")
    (tmp_path / "back").mkdir()
    convert_gguf(tmp_path / "model.gguf", tmp_path / "back")
    with torch.inference_mode():
        expected, found = (load_model(folder)(IDS).logits for folder in (model, tmp_path / "back"))
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()


def test_tokens_template_and_size_are_kept(tiny_model: Path, back: Path) -> None:
    original, again = load_tokenizer(tiny_model), load_tokenizer(back)
    for text in ("where is my parcel", "<|im_start|>user\nrefund<|im_end|>\n", " two  spaces\t 12 😀"):
        assert again(text)["input_ids"] == original(text)["input_ids"]
    assert again.chat_template == original.chat_template
    assert (again.eos_token_id, again.pad_token_id) == (original.eos_token_id, original.pad_token_id)
    assert parameter_count(back) == parameter_count(tiny_model)
    assert read_gguf_header(back.parent / "tiny.gguf").context_length == 256


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gpt_neox"}, "the architecture 'gpt_neox' is none of llama, qwen2, qwen3"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "positions of type 'llama3'"),
        ({"hidden_act": "gelu"}, "the activation 'gelu'"),
        ({"mlp_bias": True}, "biases beside the matrices"),
        ({"use_sliding_window": True}, "a sliding window"),
        ({"head_dim": 32}, "heads that do not divide the width"),
    ],
)
def test_what_a_reader_would_not_see_is_refused(values: dict, message: str, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        write_gguf(changed(tiny_model, tmp_path / "model", **values), tmp_path / "model.gguf")


def test_a_tokenizer_that_is_not_byte_level_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = changed(tiny_model, tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["pre_tokenizer"] = {"type": "Metaspace"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(ModelError, match="only byte-level BPE"):
        write_gguf(folder, tmp_path / "model.gguf")


def test_an_export_that_fails_leaves_nothing(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        export_openvino(changed(tiny_model, tmp_path / "model", hidden_act="gelu"), tmp_path / "exported")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
