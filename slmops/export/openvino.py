"""Export for OpenVINO GenAI: weights in a GGUF file, which that engine reads itself, and the tokenizer beside it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slmops.export.gguf import Precision, head_size, write_gguf
from slmops.files import read_json, write_json
from slmops.models.load import context_length, end_token_ids, load_tokenizer, read_config

WEIGHTS = "model.gguf"
FACTS = "export.json"
CONVERSION = 2
"""Raised when the same folder gives another export: those in the cache are then made again."""

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")


def export_openvino(model: Path, target: Path, precision: Precision = "int8") -> None:
    """Convert a model folder in Hugging Face layout; the folder ``target`` is there whole or not at all.

    It has ``model.gguf``, the tokenizer with its chat template, and ``export.json`` with the precision, the context length,
    the ids of the tokens that end an answer, and ``state_values``, the keys and values that attention keeps of a token.

    Raises:
        ModelError: An architecture or tokenizer that cannot be written as GGUF.
        MissingExtraError: The package gguf is not installed.
    """
    partial = target.with_name(f".{target.name}.partial")
    for leftover in (partial, target):
        if leftover.exists():
            shutil.rmtree(leftover)
    partial.mkdir(parents=True)
    try:
        write_gguf(model, partial / WEIGHTS, precision)
        for name in _TOKENIZER:
            if (model / name).is_file():
                shutil.copyfile(model / name, partial / name)
        facts = {"precision": precision, "context_length": context_length(model), "end_ids": sorted(_end_ids(model))}
        write_json(partial / FACTS, facts | {"state_values": _state_values(read_config(model))})
        partial.replace(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _state_values(config: Mapping[str, Any]) -> int:
    heads = int(config.get("num_key_value_heads") or config["num_attention_heads"])
    return 2 * int(config["num_hidden_layers"]) * heads * head_size(config)


def _end_ids(model: Path) -> frozenset[int]:
    file = model / "generation_config.json"
    settings = read_json(file) if file.is_file() else read_config(model)
    return end_token_ids(settings.get("eos_token_id"), load_tokenizer(model))
