"""The folder of a bottleneck adapter: its settings and weights, which base it stands on, and that base's configuration.

It is a model by itself: ``config.json`` and tokenizer lie in it, and :func:`slmops.models.load.load_model` puts it on its base.
Plain weights are not in it, and cannot be made of it: what stands behind a layer, with a non-linearity, is no part of its weights.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from slmops.errors import ModelError
from slmops.files import read_json, write_json

BottleneckKind = Literal["houlsby", "pfeiffer"]
"""After attention and feed-forward network (Houlsby et al. 2019), or after the latter alone (Pfeiffer et al. 2021)."""

BOTTLENECK_CONFIG = "bottleneck_config.json"
BOTTLENECK_WEIGHTS = "bottleneck_model.safetensors"


@dataclass(frozen=True)
class BottleneckFolder:
    """What ``bottleneck_config.json`` says.

    Args:
        base_model_name_or_path: The base: a path, a name of the catalogue or a hub id.
        base_fingerprint: Of the base's files, to notice another one.
        kind: Where the adapters stand, and which non-linearity they have.
        size: Values a token has within an adapter.
        parameters: Weights of base and adapters.
    """

    base_model_name_or_path: str
    base_fingerprint: str
    kind: BottleneckKind
    size: int
    parameters: int

    @classmethod
    def read(cls, path: Path) -> BottleneckFolder:
        """That of a folder; no weights are read.

        Raises:
            ModelError: The weights are missing, or a value of the settings is.
        """
        file = path / BOTTLENECK_CONFIG
        if not (path / BOTTLENECK_WEIGHTS).is_file():
            raise ModelError(f"no {BOTTLENECK_WEIGHTS} here", where=str(path), fix="the folder is incomplete: train it again")
        try:
            values: Any = read_json(file)
            found = cls(**values)
        except (ValueError, TypeError) as error:
            raise ModelError(f"not the settings of a bottleneck adapter: {error}", where=str(file)) from error
        if found.kind not in ("houlsby", "pfeiffer"):
            raise ModelError(f"the kind {found.kind!r} is not known", where=str(file), fix="houlsby or pfeiffer")
        return found

    def write(self, path: Path) -> None:
        """Write the settings."""
        write_json(path / BOTTLENECK_CONFIG, asdict(self))


def is_bottleneck(path: Path) -> bool:
    """Whether a folder holds a bottleneck adapter."""
    return (path / BOTTLENECK_CONFIG).is_file()


def refuse_bottleneck(path: Path) -> None:
    """Refuse a bottleneck adapter where plain weights are needed.

    Raises:
        ModelError: The folder is one; the message says what can be done with it.
    """
    if is_bottleneck(path):
        folder = BottleneckFolder.read(path)
        raise ModelError(
            f"plain weights are needed here, and a bottleneck adapter ({folder.kind}) cannot be merged into its base's",
            where=str(path),
            fix="serve, ask, evaluate or teach with it as it is, by the torch runtime, and train it further with "
            f"--continue_adapter; else take its base, {folder.base_model_name_or_path}, or train with --method lora",
        )
