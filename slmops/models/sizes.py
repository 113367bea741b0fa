"""How big a model is after a cut, before it is cut."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slmops.errors import ConfigError
from slmops.models.bpe import TOKENIZER
from slmops.models.depth import LAYER_KEY
from slmops.models.load import OUTPUT_WEIGHTS, context_length, is_tied, parameter_count, read_config, tensor_infos, weight_files
from slmops.models.resolve import Pending, ResolvedModel
from slmops.models.vocabulary import TABLES

Precision = Literal["float32", "int8", "int4"]

BYTES: dict[Precision, float] = {"float32": 4.0, "int8": 1 + 4 / 32, "int4": 0.5 + 4 / 32 + 0.5 / 32}
"""Bytes a weight: blocks of 32 share a float32 scale and, with 4 bits, a zero point of 4 bits."""

_UNKNOWN_SHARE = 0.45
_UNITS = {"k": 1e3, "m": 1e6, "b": 1e9, "mb": 1.0, "gb": 1e3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Target:
    """How small or fast a model shall be.

    Args:
        unit: What is counted.
        value: Number of weights, units of 10⁶ bytes, or milliseconds.
    """

    unit: Literal["parameters", "MB", "ms"]
    value: float

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``30M`` (weights; also K, B), ``20MB`` (also GB) or ``25ms`` (also s); upper and lower case are one.

        Raises:
            ConfigError: It is none of these.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip().lower())
        unit = match[2] if match else ""
        if match is None or unit not in _UNITS or float(match[1]) == 0:
            raise ConfigError(
                f"{text!r} is no target", where="target", fix="write 30M (weights), 20MB (size of the package) or 25ms (a request)"
            )
        kind: Literal["parameters", "MB", "ms"] = "MB" if unit in ("mb", "gb") else "ms" if unit in ("ms", "s") else "parameters"
        return cls(kind, float(match[1]) * _UNITS[unit])

    def __str__(self) -> str:
        return f"{self.value:,.0f} parameters" if self.unit == "parameters" else f"{self.value:,.6g} {self.unit}"


@dataclass(frozen=True)
class Anatomy:
    """Where the weights of a model are.

    Args:
        layers: Number of layers.
        vocabulary: Rows of the embedding.
        layer: Weights of a layer, on average.
        token: Weights of a token: of the embedding and of the output layer, one row where these are tied.
        rest: All other weights.
        tied: Whether embedding and output layer are one table.
        positions_mb: Tables of angles that a package holds, in units of 10⁶ bytes.
        tokenizer_mb: Size of the tokenizer, in the same unit.
    """

    layers: int
    vocabulary: int
    layer: float
    token: int
    rest: int
    tied: bool
    positions_mb: float
    tokenizer_mb: float

    @classmethod
    def of(cls, model: Path) -> Anatomy:
        """Read it from the headers of the weights; nothing is loaded.

        Raises:
            ModelError: The folder holds no model.
        """
        config = read_config(model)
        text = {**config, **(config.get("text_config") or {})}
        tensors = {name: info.shape for file in weight_files(model) for name, info in tensor_infos(file).items()}
        tied = is_tied(config) or not any(name.endswith(OUTPUT_WEIGHTS) for name in tensors)
        numbers = {int(match["index"]) for name in tensors if (match := LAYER_KEY.fullmatch(name))}
        of_layers = sum(math.prod(shape) for name, shape in tensors.items() if LAYER_KEY.fullmatch(name))
        vocabulary = int(text["vocab_size"])
        tables = [shape for name, shape in tensors.items() if TABLES.fullmatch(name) and shape[0] == vocabulary]
        if tied:
            kept = [name for name in tensors if TABLES.fullmatch(name) and not name.endswith(OUTPUT_WEIGHTS)]
            tables = [tensors[name] for name in kept]
        token = sum(math.prod(shape[1:]) for shape in tables)
        layers = max(numbers, default=-1) + 1
        heads = int(text.get("num_attention_heads") or text.get("n_head") or 1)
        head = int(text.get("head_dim") or int(text.get("hidden_size") or text.get("n_embd") or 0) // heads)
        file = model / TOKENIZER
        return cls(
            layers,
            vocabulary,
            of_layers / max(layers, 1),
            token,
            parameter_count(model) - of_layers - token * vocabulary,
            tied,
            context_length(model) * head * 4 / 1e6,
            file.stat().st_size / 1e6 if file.is_file() else 0.0,
        )

    def parameters(self, layers: int, vocabulary: int) -> int:
        """Weights of a cut, tied ones once."""
        return round(self.layer * layers + self.token * vocabulary + self.rest)

    def megabytes(self, layers: int, vocabulary: int, precision: Precision) -> float:
        """Size of a cut in units of 10⁶ bytes: the model folder (float32), or the package for ONNX Runtime GenAI.

        An embedding that is not tied to the output layer stays in float32 in the latter.
        """
        weights = self.parameters(layers, vocabulary) * BYTES[precision] / 1e6
        if not self.tied:
            weights += self.token / 2 * vocabulary * (4 - BYTES[precision]) / 1e6
        angles = 0.0 if precision == "float32" else self.positions_mb
        return weights + angles + self.tokenizer_mb * vocabulary / self.vocabulary


def parameters_after_cut(model: ResolvedModel | Pending, layers: int | None, target: str | None = None) -> int:
    """Most weights of a model with so many layers left; for one that is not on this machine yet, a guess (0 if nothing is known).

    Args:
        model: The model.
        layers: How many are kept; ``None`` keeps all.
        target: Of a cut, where it says how many weights are left at most.
    """
    wanted = Target.parse(target) if target is not None else None
    most = wanted.value if wanted is not None and wanted.unit == "parameters" else math.inf
    if isinstance(model, Pending):
        return round(min(most, (model.parameters or 0) * (_UNKNOWN_SHARE if layers is not None or target else 1)))
    anatomy = Anatomy.of(model.path)
    whole = layers is None or layers >= anatomy.layers
    return round(min(most, model.parameters if whole else anatomy.parameters(layers or 0, anatomy.vocabulary)))
