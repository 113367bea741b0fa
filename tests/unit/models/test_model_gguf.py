"""A GGUF file becomes a model folder that computes the same; a damaged one is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slmops.errors import ModelError
from slmops.models.gguf import convert_gguf
from slmops.models.gguf_header import read_gguf_header
from slmops.models.load import load_model, load_tokenizer, parameter_count

WriteGguf = Callable[..., Path]


@pytest.fixture(scope="module")
def gguf_file(write_tiny_gguf: WriteGguf, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tiny_model, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def converted(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    convert_gguf(gguf_file, folder)
    return folder


def test_the_header_tells_size_context_and_licence(gguf_file: Path, tiny_model: Path) -> None:
    header = read_gguf_header(gguf_file)
    assert header.parameters == parameter_count(tiny_model)
    assert header.context_length == 256
    assert header.license == "apache-2.0"


def test_converted_weights_are_the_original_ones_bit_for_bit(converted: Path, tiny_model: Path) -> None:
    original, back = load_model(tiny_model).state_dict(), load_model(converted).state_dict()
    assert original.keys() == back.keys()
    for name, tensor in original.items():
        assert tensor.equal(back[name]), name


@pytest.mark.parametrize(
    "text",
    [
        "where is my parcel",
        "<|im_start|>user\nrefund<|im_end|>\n",
        "order  1234 costs €12.50 😀",
        " two  spaces\t\n",
    ],
)
def test_the_converted_tokenizer_gives_the_ids_of_the_original(converted: Path, tiny_model: Path, text: str) -> None:
    original, back = load_tokenizer(tiny_model), load_tokenizer(converted)
    assert back(text)["input_ids"] == original(text)["input_ids"]
    assert back.decode(back(text)["input_ids"]) == text


def test_special_tokens_and_chat_template_are_complete(converted: Path) -> None:
    tokenizer, config = load_tokenizer(converted), load_model(converted).config
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|im_end|>", "<|im_end|>", "<|im_start|>")
    assert config.eos_token_id == tokenizer.eos_token_id
    assert config.pad_token_id == tokenizer.pad_token_id
    assert tokenizer.model_max_length == 256
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True)
    assert rendered == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_numbers_are_split_into_digits_before_anything_else_where_the_file_says_so(
    write_tiny_gguf: WriteGguf, tiny_model: Path, tmp_path: Path
) -> None:
    """Former bug: transformers builds SmolLM's tokenizer with GPT-2's rule, so ``a  2`` had other ids than in training."""
    convert_gguf(write_tiny_gguf(tiny_model, tmp_path / "tiny.gguf", pre_tokenizer="smollm"), tmp_path / "out")
    splits = load_tokenizer(tmp_path / "out").backend_tokenizer.pre_tokenizer.pre_tokenize_str("a  24")
    assert [piece for piece, _ in splits] == ["a", "ĠĠ", "2", "4"]


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_refused(gguf_file: Path, tmp_path: Path, share: float) -> None:
    content = gguf_file.read_bytes()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match="cut short"):
        convert_gguf(broken, tmp_path / "out")


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(np.zeros(100).tobytes())
    with pytest.raises(ModelError, match="not a GGUF file"):
        convert_gguf(file, tmp_path / "out")


def test_an_unknown_architecture_is_named(write_tiny_gguf: WriteGguf, tiny_model: Path, tmp_path: Path) -> None:
    file = write_tiny_gguf(tiny_model, tmp_path / "tiny.gguf", architecture="martian")
    with pytest.raises(ModelError, match="martian"):
        convert_gguf(file, tmp_path / "out")
