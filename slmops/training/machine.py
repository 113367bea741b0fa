"""What the processor offers a training run: a fast number type, an allocator that keeps its memory, the same sums every time."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_KEEP_BYTES = 1 << 30


def autocast_type(precision: str) -> torch.dtype | None:
    """The type to compute in; ``None`` is plain float32. ``auto`` takes bfloat16 where the hardware multiplies it."""
    if precision == "float32":
        return None
    if precision == "bfloat16" or torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return None


def stays_on_cpu(model: torch.nn.Module) -> bool:
    """Whether a model is on the processor and will be trained there: the trainer moves it to a GPU where there is one."""
    return not torch.cuda.is_available() and all(one.device.type == "cpu" for one in model.parameters())


@contextmanager
def evaluated(model: torch.nn.Module) -> Iterator[None]:
    """While it lasts, a model is without dropout; then it is in the mode it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def few_logits(model: torch.nn.Module, dtype: torch.dtype | None) -> torch.Tensor | None:
    """A model's logits of a few tokens, by which changes to it are tried; ``None`` where a product has two number types.

    Args:
        model: A causal language model of transformers, or one with a classification head.
        dtype: Of autocast.
    """
    run: Any = model
    tokens = torch.arange(8).unsqueeze(0) % run.get_input_embeddings().weight.shape[0]
    with evaluated(model), torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        try:
            found: torch.Tensor = run(input_ids=tokens, use_cache=False).logits
        except RuntimeError:
            return None
    return found


def drops(model: torch.nn.Module) -> bool:
    """Whether anything in a model is dropped at random while it is trained."""
    config = getattr(model, "config", None)
    values = config.to_dict() if config is not None else {}
    named = any(isinstance(value, float) and value > 0 for name, value in values.items() if "drop" in name)
    return named or any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())


@contextmanager
def same_sums() -> Iterator[None]:
    """Take the algorithms that add in one order, so that a run gives the same bits again with as many threads.

    Without it PyTorch may add with atomics, and Intel's MKL may choose by how memory happens to be aligned. MKL reads its
    setting at its first use in the process; a value the user set stays.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO")
    before, before_warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    before_fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=before_warn)
        torch.utils.deterministic.fill_uninitialized_memory = before_fill


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed buffers, which a training step takes again at once; elsewhere this does nothing.

    Without it, every step returns its activations to the system and page-faults them in again. Threads take theirs from one heap:
    with heaps of their own, what one has freed the others cannot take.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl and other C libraries
        return
    for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD, _M_TOP_PAD):
        mallopt(parameter, _KEEP_BYTES if parameter != _M_TOP_PAD else _KEEP_BYTES // 16)
    mallopt(_M_ARENA_MAX, 1)
