"""What the processor offers a training run: a fast number type and an allocator that keeps its memory."""

from __future__ import annotations

import ctypes
import sys

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KEEP_BYTES = 1 << 30


def autocast_type(precision: str) -> torch.dtype | None:
    """The type to compute in; ``None`` is plain float32. ``auto`` takes bfloat16 where the hardware multiplies it."""
    if precision == "float32":
        return None
    if precision == "bfloat16" or torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return None


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed buffers, which a training step takes again at once; elsewhere this does nothing.

    Without it, every step returns its activations to the system and page-faults them in again.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl and other C libraries
        return
    for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD, _M_TOP_PAD):
        mallopt(parameter, _KEEP_BYTES if parameter != _M_TOP_PAD else _KEEP_BYTES // 16)
