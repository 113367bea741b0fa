"""Engines beside PyTorch for a model folder: converted once, in the model cache, by the folder's fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from slmops.errors import MissingExtraError
from slmops.export.gguf import Precision
from slmops.models.cache import cache_dir, entry_path, fingerprint, make_entry, read_entry
from slmops.models.fit import check_disk, physical_cores
from slmops.models.load import context_length, parameter_count
from slmops.progress import say
from slmops.runtimes.base import RUNTIMES, OpenRuntime, Runtime
from slmops.teachers.engines import Candidate
from slmops.training.machine import autocast_type

_DISK_BYTES = 9
"""A weight, at most, while a model is converted: in float32, once more, and in 8 bits."""
_OPENVINO = "openvino-genai"
_LOADING_SHARE = 0.3
"""Of the time to convert and load a model, that of loading."""


@dataclass(frozen=True)
class _Conversion:
    """How a model folder becomes one that an engine loads.

    Args:
        make: Converts the first folder to the second.
        version: Raised when it makes other files of the same folder.
        start: Seconds it takes for any model.
        weights: Seconds it takes, with loading, for 10⁶ weights.
        options: Given to the engine's function that loads a model.
    """

    make: Callable[[Path, Path, Precision], None]
    version: int
    start: float
    weights: float
    options: Mapping[str, Any]


def open_engine(engine: str, folder: Path, precision: str) -> Runtime:
    """Load a model folder in Hugging Face layout with an engine, converted once where it needs that.

    Args:
        engine: Registry name.
        folder: The model.
        precision: As in ``training.machine.autocast_type``; see :func:`weight_precision`.

    Raises:
        UsageError: No such engine.
        MissingExtraError: It is not installed.
        ModelError: It cannot take this model.
    """
    opener: OpenRuntime = RUNTIMES.get(engine)
    conversion = _conversions().get(engine)
    options = {} if conversion is None else conversion.options
    return opener(converted(engine, folder, weight_precision(engine, precision)), **options)


def weight_precision(engine: str, precision: str) -> Precision:
    """How an engine beside PyTorch keeps the weights.

    8 bits, but 16 with OpenVINO where the processor multiplies bfloat16: there it would expand them at every step. With one
    core it is 8 bits too, since OpenVINO does not take 16 there.
    """
    wide = engine == _OPENVINO and autocast_type(precision) is not None and physical_cores() > 1
    return "float16" if wide else "int8"


def converting_candidates(folder: Path, parameters: int, precision: str) -> Iterator[Candidate]:
    """The engines beside PyTorch that are installed, the one that is usually faster first."""
    for engine, conversion in _conversions().items():
        try:
            RUNTIMES.get(engine)
        except MissingExtraError as error:
            say(f"  {engine} is not tried: {error.fix}")
            continue
        cost = conversion.start + conversion.weights * parameters / 1e6
        if read_entry(_place(engine, folder, weight_precision(engine, precision))) is not None:
            cost *= _LOADING_SHARE
        yield Candidate(engine, cost, partial(open_engine, engine, folder, precision))


def converted(engine: str, folder: Path, precision: Precision) -> Path:
    """The folder that an engine loads: the model's own, or its conversion in the model cache, made once.

    Raises:
        ModelError: It cannot take this model.
        ResourceError: The disk is full.
    """
    conversion = _conversions().get(engine)
    if conversion is None:
        return folder
    place = _place(engine, folder, precision)

    def make(target: Path) -> Mapping[str, Any]:
        check_disk(cache_dir(), _DISK_BYTES * parameter_count(folder) / 1e6)
        say(f"  converting to {precision} for {engine}, once")
        conversion.make(folder, target, precision)
        return {"source": str(folder)}

    make_entry(place, make)
    return place


def _conversions() -> dict[str, _Conversion]:
    from slmops.export import onnx, openvino

    def to_onnx(model: Path, target: Path, precision: Precision) -> None:
        onnx.export_onnx(model, target, precision, max_length=context_length(model))
        target.with_name(f"{target.name}.log").unlink(missing_ok=True)

    return {
        _OPENVINO: _Conversion(openvino.export_openvino, openvino.CONVERSION, 2.0, 0.15, {"reuse": True}),
        "ort-genai": _Conversion(to_onnx, 1, 8.0, 0.2, {}),
    }


def _place(engine: str, folder: Path, precision: Precision) -> Path:
    return entry_path(f"{engine}-{precision}", fingerprint(folder), _conversions()[engine].version)
