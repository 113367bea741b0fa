"""The header of a GGUF file (version 2 or 3): metadata and the list of tensors, read in a fraction of a second.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from slmops.errors import ModelError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KEPT_ARRAY = 64  # longer arrays (the vocabulary) are skipped


@dataclass(frozen=True)
class GgufTensor:
    """A tensor: its name, number of values, ggml type number and offset in the data section, in bytes."""

    name: str
    values: int
    type: int
    offset: int


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says about itself; arrays of more than 64 values are left out of ``metadata``."""

    metadata: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...]
    data_start: int

    @property
    def parameters(self) -> int:
        """Number of weights; llama.cpp's own table of frequencies is none."""
        return sum(tensor.values for tensor in self.tensors if not tensor.name.startswith("rope_freqs"))

    @property
    def context_length(self) -> int | None:
        """Tokens, where the file tells."""
        value = self.metadata.get(f"{self.metadata.get('general.architecture')}.context_length")
        return int(value) if value is not None else None

    @property
    def license(self) -> str:
        """The licence as the file spells it, or ``unknown``."""
        return str(self.metadata.get("general.license", "unknown"))


def read_gguf_header(file: Path) -> GgufHeader:
    """Read metadata and tensor list.

    Raises:
        ModelError: Not a GGUF file, a version of it that is not known, or one that is cut short in its header.
    """
    try:
        with file.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise ModelError("not a GGUF file", where=str(file), fix="get the file again, or give a folder with safetensors")
            (version,) = _unpack(stream, "I")
            if version not in (2, 3):
                raise ModelError(f"GGUF version {version} is not known", where=str(file), fix="convert it with a newer llama.cpp")
            tensor_count, key_count = _unpack(stream, "QQ")
            metadata: dict[str, Any] = {}
            for _ in range(key_count):
                key = _string(stream)
                value = _value(stream, _unpack(stream, "I")[0])
                if value is not None:
                    metadata[key] = value
            tensors = tuple(_tensor(stream) for _ in range(tensor_count))
            alignment = int(metadata.get("general.alignment", 32))
            data_start = math.ceil(stream.tell() / alignment) * alignment
    except (struct.error, UnicodeDecodeError, KeyError, OverflowError, MemoryError) as error:
        raise ModelError("the GGUF file is damaged or cut short", where=str(file), fix="get the file again") from error
    return GgufHeader(metadata, tensors, data_start)


def _unpack(stream: IO[bytes], layout: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{layout}", stream.read(struct.calcsize(f"<{layout}")))


def _string(stream: IO[bytes]) -> str:
    (length,) = _unpack(stream, "Q")
    text = stream.read(length)
    if len(text) != length:
        raise struct.error("end of file")
    return text.decode("utf-8")


def _value(stream: IO[bytes], kind: int) -> Any:
    if kind == _STRING:
        return _string(stream)
    if kind != _ARRAY:
        return _unpack(stream, _SCALARS[kind])[0]
    item, count = _unpack(stream, "IQ")
    if count <= _KEPT_ARRAY:
        return [_value(stream, item) for _ in range(count)]
    if item == _STRING:
        for _ in range(count):
            stream.seek(_unpack(stream, "Q")[0], 1)
    else:
        stream.seek(struct.calcsize(f"<{_SCALARS[item]}") * count, 1)
    return None


def _tensor(stream: IO[bytes]) -> GgufTensor:
    name = _string(stream)
    (dimensions,) = _unpack(stream, "I")
    shape = _unpack(stream, f"{dimensions}Q")
    kind, offset = _unpack(stream, "IQ")
    return GgufTensor(name, math.prod(shape), kind, offset)
