"""Reading a model folder in Hugging Face layout: facts without torch, tokenizer and weights with it."""

from __future__ import annotations

import json
import math
import os
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from logging import DEBUG, ERROR
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from slmops.errors import MissingExtraError, ModelError
from slmops.files import read_json
from slmops.models.bottleneck_folder import BottleneckFolder, is_bottleneck, refuse_bottleneck
from slmops.progress import least_level

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")

_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
OUTPUT_WEIGHTS = ("lm_head.weight", "embed_out.weight")
_BUFFERS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
_REMOTE_CODE: ContextVar[bool] = ContextVar("remote_code", default=False)


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a safetensors file: element type as the file spells it (``F32``, ``BF16``…), shape and bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@contextmanager
def remote_code(trusted: bool) -> Iterator[None]:
    """While it lasts, Python code that lies in the folder of a model runs when that needs it, if the user trusts it; else never."""
    token = _REMOTE_CODE.set(trusted)
    try:
        yield
    finally:
        _REMOTE_CODE.reset(token)


def runs_remote_code() -> bool:
    """Whether the user trusts code from model folders."""
    return _REMOTE_CODE.get()


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder; where it has no padding token, the end token pads.

    Raises:
        ModelError: The folder has no tokenizer, or one that cannot be read.
        MissingExtraError: transformers is not installed.
    """
    quiet_transformers()
    from transformers import AutoTokenizer

    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError("no tokenizer here", where=str(path), fix=f"a model folder holds one of {', '.join(TOKENIZER_FILES)}")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=runs_remote_code()
        )
    except Exception as error:  # the backend raises bare Exception for a malformed tokenizer.json
        asks = "trust_remote_code" in str(error)
        fix = "read the code in its folder and train it with slmops finetune --trust_remote_code" if asks else None
        raise ModelError(f"the tokenizer cannot be read: {error}", where=str(path), fix=fix) from error
    if tokenizer.pad_token_id is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    path: Path, *, dtype: Literal["float32", "bfloat16"] = "float32", attention: Literal["eager", "sdpa"] = "sdpa"
) -> PreTrainedModel:
    """The model of a folder, in evaluation mode, on the CPU; only safetensors are read.

    Code of the folder runs within :func:`remote_code` alone.

    A bottleneck adapter is put on its base.

    Raises:
        ModelError: The folder's weights are damaged, lack a tensor or belong to an unknown architecture.
        MissingExtraError: torch or transformers is not installed.
    """
    if is_bottleneck(path):
        from slmops.models.bottleneck import load_bottlenecked

        return load_bottlenecked(path, dtype, attention)
    model = load_with("AutoModelForCausalLM", path, dtype, attention)
    _head_reads_contiguous(model)
    return model


def load_with(
    loader: str,
    path: Path,
    dtype: Literal["float32", "bfloat16"],
    attention: Literal["eager", "sdpa"],
    *,
    new: str | None = None,
    **options: Any,
) -> PreTrainedModel:
    """The same by one of the automatic classes of transformers.

    Args:
        loader: Name of the class.
        path: The folder.
        dtype: Of the weights in memory.
        attention: Which implementation.
        new: What names of weights begin with that the folder need not have.
        options: Further ones of ``from_pretrained``.

    Raises:
        ModelError: The folder's weights are damaged, lack a tensor or belong to an unknown architecture.
        MissingExtraError: torch or transformers is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch", "train") from error
    for file in weight_files(path):
        tensor_infos(file)
    quiet_transformers()
    import transformers
    from safetensors import SafetensorError

    try:
        model: PreTrainedModel
        model, info = getattr(transformers, loader).from_pretrained(
            str(path),
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=runs_remote_code(),
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"the model cannot be loaded: {error}", where=str(path)) from error
    missing = sorted(name for name in info["missing_keys"] if new is None or not name.startswith(new))
    if missing:
        raise ModelError(
            f"{len(missing)} tensors are missing from the weights, such as {missing[0]}",
            where=str(path),
            fix="get the model again; without them it would start from random numbers",
        )
    return model.eval()


def _head_reads_contiguous(model: PreTrainedModel) -> None:
    """Copy what the vocabulary projection reads: on a strided slice such as the last position it is 5 to 300 times slower."""
    head: Any = model.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))


def quiet_transformers() -> None:
    """Silence the loading bars and notes of transformers and switch off its and the hub's telemetry, in this process.

    At the log level debug its notes are shown.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
    try:
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise MissingExtraError("transformers", "train") from error
    logging.set_verbosity(DEBUG if least_level() <= DEBUG else ERROR)
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def read_config(path: Path) -> dict[str, Any]:
    """The content of ``config.json``.

    Raises:
        ModelError: It is missing or no JSON object.
    """
    file = path / CONFIG
    try:
        config = read_json(file)
    except OSError as error:
        raise ModelError("no config.json here", where=str(path), fix="give a model folder in Hugging Face layout") from error
    except ValueError as error:
        raise ModelError(f"not valid JSON: {error}", where=str(file)) from error
    if not isinstance(config, dict):
        raise ModelError("not a JSON object", where=str(file))
    return config


def context_length(path: Path) -> int:
    """Longest sequence the model was made for, prompt and answer together, in tokens.

    Raises:
        ModelError: ``config.json`` does not say.
    """
    config = read_config(path)
    for values in (config, config.get("text_config") or {}):
        for key in _CONTEXT_KEYS:
            if isinstance(values.get(key), int):
                return int(values[key])
    raise ModelError("the context length is not in it", where=str(path / CONFIG), fix=f"add one of {', '.join(_CONTEXT_KEYS)}")


def end_token_ids(configured: int | Sequence[int] | None, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of the tokens that end an answer: ``eos_token_id`` as generation settings have it, and the tokenizer's own."""
    more = configured if isinstance(configured, Sequence) else [configured]
    return frozenset(int(token) for token in [tokenizer.eos_token_id, *more] if token is not None)


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the output layer is the embedding."""
    return bool(config.get("tie_word_embeddings", (config.get("text_config") or {}).get("tie_word_embeddings", False)))


def parameter_count(path: Path) -> int:
    """Number of weights, from the headers of the safetensors files; an output layer tied to the embedding counts once.

    Raises:
        ModelError: A weights file is missing or damaged.
    """
    if is_bottleneck(path):
        return BottleneckFolder.read(path).parameters
    config = read_config(path)
    tied = is_tied(config)
    tensors = {name: info for file in weight_files(path) for name, info in tensor_infos(file).items()}
    return sum(
        math.prod(info.shape)
        for name, info in tensors.items()
        if not name.endswith(_BUFFERS) and not (tied and name.endswith(OUTPUT_WEIGHTS))
    )


def weight_files(path: Path) -> list[Path]:
    """The safetensors files that make up the model.

    Raises:
        ModelError: There are none, a file of the index is missing, or a bottleneck adapter stands between the weights.
    """
    refuse_bottleneck(path)
    index = path / WEIGHTS_INDEX
    if index.is_file():
        try:
            names = sorted(set(read_json(index)["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError("not a safetensors index", where=str(index), fix="get the model again") from error
    elif (path / WEIGHTS).is_file():
        names = [WEIGHTS]
    else:
        names = []
    missing = [name for name in names if not (path / name).is_file()]
    if not names or missing:
        raise ModelError(
            f"no {', '.join(missing) or WEIGHTS} here", where=str(path), fix="the folder is incomplete: get the model again"
        )
    return [path / name for name in names]


def tensor_infos(file: Path) -> dict[str, TensorInfo]:
    """Name, type, shape and place (bytes from the start of the file) of each tensor of a safetensors file.

    Raises:
        ModelError: The file is cut short or not in the safetensors format.
    """
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > file.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(stream.read(length))
        base = 8 + length
        tensors = {
            name: TensorInfo(info["dtype"], tuple(info["shape"]), base + info["data_offsets"][0], base + info["data_offsets"][1])
            for name, info in header.items()
            if name != "__metadata__"
        }
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"not a safetensors file: {error}", where=str(file), fix="get the file again") from error
    if tensors and max(info.end for info in tensors.values()) > file.stat().st_size:
        raise ModelError("the weights file is cut short", where=str(file), fix="get the file again")
    return tensors
