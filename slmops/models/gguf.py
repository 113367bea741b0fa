"""Convert a GGUF file to a model folder in Hugging Face layout, in float32."""

from __future__ import annotations

import contextlib
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.errors import MissingExtraError, ModelError
from slmops.models.gguf_header import GgufHeader, read_gguf_header
from slmops.models.load import quiet_transformers
from slmops.progress import duration, say

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONVERSION = 1
"""Raised when the conversion makes other files from the same GGUF: converted models in the cache are then made again."""

# The vocabularies that split numbers into digits before anything else (llama.cpp, src/llama-vocab.cpp). transformers
# builds them with GPT-2's rule, which tokenizes two spaces before a number in another way than the model learned.
_SINGLE_DIGITS = {"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"}


def convert_gguf(source: Path, target: Path) -> None:
    """Write the model of a GGUF file to the folder ``target``: safetensors, config and tokenizer with its chat template.

    Quantized weights are unpacked to float32: their values have more digits than bfloat16 holds, so a narrower type
    would change the model a second time.

    Raises:
        ModelError: The file is damaged, cut short, or of an architecture or tokenizer that transformers does not know.
        MissingExtraError: torch, transformers or gguf is not installed.
    """
    header = read_gguf_header(source)
    _check_complete(source, header)
    say(f"converting {source.name} ({source.stat().st_size / 1e6:.0f} MB) to safetensors, once; about 20 s for 100 MB")
    started = time.monotonic()
    quiet_transformers()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # transformers draws a bar here that cannot be switched off
            model, tokenizer = _load(source)
    except MissingExtraError:
        raise
    except Exception as error:  # the readers of GGUF raise anything, from KeyError to AttributeError, for a file they do not know
        architecture = header.metadata.get("general.architecture", "unknown")
        raise ModelError(
            f"transformers cannot read this GGUF file (architecture {architecture!r}): {type(error).__name__}: {error}",
            where=str(source),
            fix="use the model's original safetensors folder",
        ) from error
    _finish_tokenizer(tokenizer, header)
    if header.context_length:
        tokenizer.model_max_length = header.context_length
    _agree_on_special_tokens(model, tokenizer)
    model.save_pretrained(str(target))
    tokenizer.save_pretrained(str(target))
    for file in target.iterdir():
        file.chmod(0o644)  # safetensors makes its file readable by the owner alone
    say(f"converted in {duration(time.monotonic() - started)}")


def _check_complete(source: Path, header: GgufHeader) -> None:
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    except ModuleNotFoundError as error:
        raise MissingExtraError("gguf", "train") from error
    size = source.stat().st_size
    for tensor in header.tensors:
        try:
            block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.type)]
        except (ValueError, KeyError) as error:
            raise ModelError(
                f"the tensor {tensor.name} has an unknown type ({tensor.type})", where=str(source), fix="pip install -U gguf"
            ) from error
        if header.data_start + tensor.offset + tensor.values // block * block_bytes > size:
            raise ModelError(
                f"the GGUF file is cut short: {tensor.name} ends after it", where=str(source), fix="get the file again"
            )


def _load(source: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch", "train") from error
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where: dict[str, Any] = {
        "pretrained_model_name_or_path": str(source.parent),
        "gguf_file": source.name,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    # Without dequantize transformers keeps the blocks of the file and then refuses to save.
    model, info = AutoModelForCausalLM.from_pretrained(
        **where, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32, output_loading_info=True
    )
    if info["missing_keys"]:
        raise ValueError(f"tensors are missing: {', '.join(sorted(info['missing_keys'])[:3])}")
    return model, AutoTokenizer.from_pretrained(**where)


def _finish_tokenizer(tokenizer: Any, header: GgufHeader) -> None:
    from tokenizers import pre_tokenizers

    if header.metadata.get("tokenizer.ggml.pre") in _SINGLE_DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    if tokenizer.eos_token is None:
        raise ModelError("the GGUF file names no end-of-sequence token", fix="use the model's original safetensors folder")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    for key in ("is_local", "local_files_only"):  # where it was read from is no property of the tokenizer
        tokenizer.init_kwargs.pop(key, None)


def _agree_on_special_tokens(model: Any, tokenizer: Any) -> None:
    vars(model.config).pop("_model_name_or_path", None)
    model.generation_config._from_model_config = False
    for config in (model.config, model.generation_config):
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(config, key, getattr(tokenizer, key))
