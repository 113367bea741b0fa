"""Passes over activations in bfloat16, compiled by the machine's own C compiler: what PyTorch does in several operations, in one.

A processor with fast products spends most of a training step on what lies between them, at the speed of memory: each operation
reads all of its numbers and writes as many. ``native.c`` has the few that matter, forward and back. It is compiled once, in a
second, and kept in the cache. Where there is no compiler the same is done by PyTorch, up to rounding.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from slmops.files import digest
from slmops.models.cache import cache_dir

_SOURCE = Path(__file__).with_name("native.c")
_COMPILERS = ("cc", "gcc", "clang")
# No -ffast-math: it would have the whole process flush small numbers to zero, and lose values that are none.
_FLAGS = [
    "-O3",
    "-shared",
    "-fPIC",
    "-std=gnu11",
    "-fassociative-math",
    "-fno-signed-zeros",
    "-fno-trapping-math",
    "-freciprocal-math",
    "-fno-math-errno",
]
_OF_X86 = ("-march=native", "-mprefer-vector-width=512")
_SECONDS = 120


@dataclass(frozen=True)
class Kernels:
    """The compiled functions. Tensors are bfloat16 unless said otherwise, contiguous, and on the processor.

    Args:
        library: That holds them.
    """

    library: Any

    def norm(
        self, states: torch.Tensor, weight: torch.Tensor, epsilon: float, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Root mean square norm of float32 ``[N, H]`` by a float32 weight ``[H]``, and each row's scale, float32 ``[N]``.

        Args:
            states: Rows.
            weight: Of the norm.
            epsilon: That keeps the root from zero.
            dtype: Of what is found: bfloat16 or float32.
        """
        found, scales = torch.empty_like(states, dtype=dtype), states.new_empty(len(states))
        name = "norm_forward" if dtype is torch.bfloat16 else "wide_norm_forward"
        self._call(name, states, weight, ctypes.c_float(epsilon), found, scales, *states.shape)
        return found, scales

    def norm_back(
        self, above: torch.Tensor, states: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of the states and of the weight, float32; that from above is bfloat16 or float32."""
        of_states, of_weight = torch.empty_like(states), torch.zeros_like(weight)
        name = "norm_backward" if above.dtype is torch.bfloat16 else "wide_norm_backward"
        self._call(name, above, states, weight, scales, of_states, of_weight, *states.shape)
        return of_states, of_weight

    def gated(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """``silu(gate) · up``."""
        found = torch.empty_like(gate)
        self._call("gated_forward", gate, up, found, gate.numel())
        return found

    def gated_back(self, above: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of both."""
        of_gate, of_up = torch.empty_like(gate), torch.empty_like(up)
        self._call("gated_backward", above, gate, up, of_gate, of_up, gate.numel())
        return of_gate, of_up

    def spread(self, vectors: torch.Tensor, index: torch.Tensor, turn: Turn | None, heads: int) -> torch.Tensor:
        """Heads' vectors ``[U * heads, D]``, rotated by their nodes' angles, at places: ``[len(index), D]``."""
        found = vectors.new_empty(len(index), vectors.shape[1])
        self._call("spread", vectors, index, *_angles(turn), found, len(index), heads, vectors.shape[1])
        return found

    def collect(self, places: torch.Tensor, index: torch.Tensor, turn: Turn | None, heads: int, count: int) -> torch.Tensor:
        """Vectors at the places that an index names, rotated back, and zeros up to ``count`` of them: ``[count, D]``."""
        found = places.new_empty(count, places.shape[1])
        self._call("collect", places, index, *_angles(turn), found, len(index), count, heads, places.shape[1])
        return found

    def settle(self, vectors: torch.Tensor, index: torch.Tensor, places: int) -> torch.Tensor:
        """Vectors at the places that an index names, zeros elsewhere: ``[places, D]``."""
        found = vectors.new_empty(places, vectors.shape[1])
        self._call("settle", vectors, index, found, len(index), places, vectors.shape[1])
        return found

    def gather(self, above: torch.Tensor, index: torch.Tensor, turn: Turn | None, heads: int, count: int) -> torch.Tensor:
        """Back from :meth:`spread`: the sums of each vector's places, rotated back, ``[count, D]``."""
        width = above.shape[1]
        found, sums = above.new_empty(count, width), above.new_zeros(count, width, dtype=torch.float32)
        self._call("gather", above, index, *_angles(turn), sums, found, len(index), count, heads, width)
        return found

    def softmax_(self, scores: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Scores ``[groups, queries, keys]`` become weights; the queries are those of all places, once or several times."""
        keys = scores.shape[-1]
        self._call("softmax_forward", scores, ctypes.c_float(scale), scores.numel() // keys, keys, window or keys)
        return scores

    def softmax_back_(self, weights: torch.Tensor, above: torch.Tensor, scale: float) -> torch.Tensor:
        """Gradients of the weights become those of the scores."""
        keys = weights.shape[-1]
        self._call("softmax_backward", weights, above, ctypes.c_float(scale), weights.numel() // keys, keys)
        return above

    def stacked_columns(self, parts: list[torch.Tensor], width: int) -> torch.Tensor:
        """Matrices ``[n, columns]`` one below the other and zeros below, transposed: ``[columns, width]``."""
        found, first = parts[0].new_empty(parts[0].shape[1], width), 0
        for part in parts:
            self._call("transpose", part, found, first, *part.shape, width)
            first += len(part)
        found[:, first:] = 0
        return found

    def _call(self, name: str, *values: Any) -> None:
        getattr(self.library, name)(*(_given(value) for value in values))


Turn = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines of the nodes' angles, float32 ``[U, D]``."""


def kernels(dtype: torch.dtype | None) -> Kernels | None:
    """Those for a number type; ``None`` for others than bfloat16, and where nothing could be compiled."""
    return _kernels() if dtype is torch.bfloat16 else None


@functools.cache
def _kernels() -> Kernels | None:
    try:
        return Kernels(ctypes.CDLL(str(_compiled())))
    except (OSError, subprocess.SubprocessError):
        return None


def _compiled() -> Path:
    """The library, compiled for this processor if it was not."""
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise OSError("no C compiler")
    flags = [*_FLAGS, *(_OF_X86 if platform.machine() in ("x86_64", "AMD64") else ())]
    known = digest([_SOURCE.read_text(encoding="utf-8"), compiler, flags, platform.machine(), _processor()])
    target = cache_dir() / "native" / f"{known[:32]}.so"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / target.name
            subprocess.run(
                [compiler, *flags, str(_SOURCE), "-o", str(made), "-lm"], check=True, capture_output=True, timeout=_SECONDS
            )
            made.replace(target)
    return target


def _processor() -> str:
    """What this one can do: a home directory may be that of several machines."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next((line for line in lines if line.startswith("flags")), "")
    return platform.processor()


def _given(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        if not value.is_contiguous():  # the library would read, or write, what lies between
            raise ValueError(f"a tensor of strides {value.stride()} for a compiled function")
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return ctypes.c_void_p(None)
    return ctypes.c_int64(value) if isinstance(value, int) else value


def _angles(turn: Turn | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    return turn if turn is not None else (None, None)
