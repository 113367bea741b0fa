"""Write a model folder as a GGUF file with weights of 8 or 16 bits, for engines that read that format.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from slmops.errors import MissingExtraError, ModelError
from slmops.files import read_json
from slmops.models.load import context_length, read_config, weight_files

Precision = Literal["int8", "float16"]

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""Values of ``model_type`` that can be written; GGUF has the same names."""

_OTHER = "use another engine for this model"
_OUTPUT = "lm_head.weight"
_BLOCK = 32
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
# Of the regular expressions of tokenizers that split by one, a part that no other has, and llama.cpp's name for it.
_SPLITS = {"\\p{N}{1,3}": "llama-bpe", "|\\p{N}|": "qwen2"}


def write_gguf(model: Path, file: Path, precision: Precision = "int8") -> None:
    """Write weights, configuration and tokenizer of a model folder to ``file``.

    Matrices and the embedding become float16 or, with ``int8``, Q8_0: blocks of 32 weights of 8 bits with one float16 scale.
    Vectors stay float32. The rule by which llama.cpp cuts text into words is named where it is known, else ``default``: give an
    engine token ids then.

    Raises:
        ModelError: An architecture, tokenizer or shape that has no exact form in such a file.
        MissingExtraError: The package gguf is not installed.
    """
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise MissingExtraError("gguf", "train") from error
    config = read_config(model)
    _check(config, model)
    writer = gguf.GGUFWriter(str(file), config["model_type"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if precision == "float16" else gguf.LlamaFileType.MOSTLY_Q8_0)
    _write_facts(writer, config, context_length(model), gguf)
    _write_tokenizer(writer, model, int(config["vocab_size"]))
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, config["model_type"].upper()), int(config["num_hidden_layers"]))
    for name, tensor in _tensors(model, config):
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ModelError(f"the tensor {name} has no place in a GGUF file", where=str(model), fix=_OTHER)
        if tensor.ndim == 1:
            writer.add_tensor(target, tensor)
            continue
        if precision == "float16":
            writer.add_tensor(target, tensor.astype(np.float16))
            continue
        if tensor.shape[-1] % _BLOCK:
            raise ModelError(
                f"{name} has rows of {tensor.shape[-1]} weights, no multiple of {_BLOCK}", where=str(model), fix=_OTHER
            )
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(target, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _check(config: Mapping[str, Any], model: Path) -> None:
    """Refuse what such a file, or a reader of it, would drop in silence."""
    kind = config.get("model_type")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    heads = int(config.get("num_attention_heads") or 0)
    sliding = "sliding_attention" in (config.get("layer_types") or ()) or config.get("use_sliding_window")
    problems = {
        f"the architecture {kind!r} is none of {', '.join(ARCHITECTURES)}": kind not in ARCHITECTURES,
        f"positions of type {rope_type!r}": rope_type != "default",
        "rotation of a part of each head": rope.get("partial_rotary_factor", 1.0) != 1.0,
        "a sliding window": bool(sliding),
        f"the activation {config.get('hidden_act')!r}": config.get("hidden_act", "silu") != "silu",
        "biases beside the matrices": bool(config.get("mlp_bias") or (kind != "qwen2" and config.get("attention_bias"))),
        "heads that do not divide the width": kind != "qwen3" and heads * head_size(config) != config.get("hidden_size"),
    }
    for problem, found in problems.items():
        if found:
            raise ModelError(f"this model cannot be written as GGUF: {problem}", where=str(model), fix=_OTHER)


def head_size(config: Mapping[str, Any]) -> int:
    """Width of one attention head."""
    return int(config.get("head_dim") or config["hidden_size"] // max(int(config.get("num_attention_heads") or 1), 1))


def _write_facts(writer: Any, config: Mapping[str, Any], context: int, gguf: Any) -> None:
    heads = int(config["num_attention_heads"])
    rope = config.get("rope_parameters") or {}
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_context_length(context)
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_rope_dimension_count(head_size(config))
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))


def _write_tokenizer(writer: Any, model: Path, vocab_size: int) -> None:
    from slmops.models.load import load_tokenizer

    file = model / "tokenizer.json"
    content = read_json(file) if file.is_file() else {}
    bpe, rule = content.get("model", {}), json.dumps(content.get("pre_tokenizer"))
    if bpe.get("type") != "BPE" or '"ByteLevel"' not in rule:
        raise ModelError("only byte-level BPE tokenizers are written to GGUF", where=str(model), fix=_OTHER)
    tokens = [f"[PAD{index}]" for index in range(vocab_size)]
    types = [_UNUSED] * vocab_size
    for token, index in bpe["vocab"].items():
        tokens[index], types[index] = token, _NORMAL
    for added in content.get("added_tokens", ()):
        tokens[added["id"]] = added["content"]
        types[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_word_rule(content["pre_tokenizer"]))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"]])
    tokenizer = load_tokenizer(model)
    for add, token_id in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token_id is not None:
            add(int(token_id))
    writer.add_add_bos_token(False)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _word_rule(pre_tokenizer: Mapping[str, Any]) -> str:
    """llama.cpp's name for how text is cut before the merges."""
    parts = pre_tokenizer.get("pretokenizers") or [pre_tokenizer]
    if any(part.get("type") == "Digits" and part.get("individual_digits") for part in parts):
        return "smollm"
    patterns = [str(part.get("pattern", {}).get("Regex", "")) for part in parts if part.get("type") == "Split"]
    if not patterns:
        return "gpt-2"
    return next((name for mark, name in _SPLITS.items() if any(mark in pattern for pattern in patterns)), "default")


def _tensors(model: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name and float32 values of each tensor; an output layer that is the embedding is left out."""
    from safetensors import safe_open

    heads = int(config["num_attention_heads"])
    key_heads = int(config.get("num_key_value_heads") or heads)
    for file in weight_files(model):
        with safe_open(str(file), framework="pt") as stored:
            for name in sorted(stored.keys()):
                if name == _OUTPUT and config.get("tie_word_embeddings"):
                    continue
                values = np.ascontiguousarray(stored.get_tensor(name).float().numpy())
                if config["model_type"] == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
                    values = _interleaved(values, heads if "q_proj" in name else key_heads)
                yield name, values


def _interleaved(weight: Any, heads: int) -> Any:
    """Rows of each head in the order of llama.cpp, which rotates neighbours; Hugging Face's models rotate halves."""
    rows, columns = weight.shape
    return np.ascontiguousarray(weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns))
