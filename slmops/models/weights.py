"""Writing a safetensors file from parts of others, a tensor at a time and without loading the model."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from slmops.errors import ModelError
from slmops.files import atomic
from slmops.models.load import TensorInfo

_COPY_BYTES = 1 << 24
_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class Rows:
    """Some rows of a tensor, in a new order.

    Args:
        info: The whole tensor; its first dimension is chosen from.
        numbers: Rows to take, in order; -1 is a new row, the mean of ``averaged``.
        averaged: Rows of which new ones are the mean.
    """

    info: TensorInfo
    numbers: tuple[int, ...]
    averaged: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result."""
        return (len(self.numbers), *self.info.shape[1:])


Part = TensorInfo | Rows
"""A whole tensor, or rows of one."""


def write_safetensors(target: Path, tensors: Mapping[str, tuple[Path, Part]]) -> None:
    """Write tensors of other safetensors files under new names.

    Format: https://huggingface.co/docs/safetensors (length of the header, JSON header, data).

    Args:
        target: File to write; it is there whole or not at all.
        tensors: New name to the file a tensor is in and what is taken of it.

    Raises:
        ModelError: Rows are chosen from a tensor of a type that has no rows of whole numbers of bytes.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (file, part) in tensors.items():
        info = part.info if isinstance(part, Rows) else part
        if isinstance(part, Rows) and info.dtype not in _BYTES:
            raise ModelError(f"rows of {name} cannot be chosen, its type is {info.dtype}", where=str(file))
        size = math.prod(part.shape) * _BYTES[info.dtype] if isinstance(part, Rows) else info.end - info.start
        header[name] = {"dtype": info.dtype, "shape": list(part.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic(target, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for file, part in tensors.values():
            if isinstance(part, Rows):
                _write_rows(file, part, out)
            else:
                with file.open("rb") as stream:
                    _copy(stream, out, part.start, part.end)


def _copy(stream: IO[bytes], out: IO[bytes], start: int, end: int) -> None:
    stream.seek(start)
    for position in range(start, end, _COPY_BYTES):
        out.write(stream.read(min(_COPY_BYTES, end - position)))


def _write_rows(file: Path, rows: Rows, out: IO[bytes]) -> None:
    info = rows.info
    width = (info.end - info.start) // info.shape[0]
    table = np.memmap(file, np.uint8, "r", info.start, (info.shape[0], width))
    numbers = np.array(rows.numbers)
    for start in range(0, len(numbers), step := max(1, _COPY_BYTES // width)):
        chosen = numbers[start : start + step]
        block = table[chosen]
        if (chosen < 0).any():
            mean = _floats(table[list(rows.averaged)], info.dtype).mean(0, dtype=np.float64).astype(np.float32)
            block[chosen < 0] = np.frombuffer(_stored(mean, info.dtype), np.uint8)
        out.write(block.tobytes())


def _floats(table: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "BF16":
        return (table.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return table.view({"F32": np.float32, "F16": np.float16}[dtype]).astype(np.float32)


def _stored(values: np.ndarray, dtype: str) -> bytes:
    if dtype != "BF16":
        return values.astype({"F32": np.float32, "F16": np.float16}[dtype]).tobytes()
    bits = values.view(np.uint32)  # to the nearest, ties to even
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()
