"""The adapters there are below a folder; neither weights nor a framework are loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slmops.errors import ModelError
from slmops.export.adapter_set import SET_FILE, AdapterSet
from slmops.files import read_json
from slmops.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from slmops.models.resolve import FINETUNED
from slmops.progress import say

_WORK = "artifacts"
"""Folder of a run whose results lie at the run's top, too."""


@dataclass(frozen=True)
class Trained:
    """An adapter on disk.

    Args:
        path: Its folder; of one in a package its file.
        name: The run's or the folder's; in a package the one that requests use.
        base: What its base model is called.
        method: Such as ``lora``.
        rank: Largest rank of a layer, ``None`` where there is no such thing.
        targets: Adapted layers.
        size_mb: Of its weights, in units of 10⁶ bytes.
        made: When its weights were written, UTC, as ISO 8601.
        validation_loss: Lowest of its training, in nats a token, where known.
        package: The package it is in, ``None`` for a folder of its own.
    """

    path: str
    name: str
    base: str
    method: str
    rank: int | None
    targets: tuple[str, ...]
    size_mb: float
    made: str
    validation_loss: float | None = None
    package: str | None = None


def trained_adapters(root: Path) -> list[Trained]:
    """All adapters below a folder, by path: folders of PEFT and of runs, and those in packages.

    A folder that cannot be read is said and left out.

    Raises:
        ModelError: There is no such folder.
    """
    if not root.is_dir():
        raise ModelError("there is no such folder", where=str(root), fix="give the folder that adapters were trained into")
    return sorted(_walked(root), key=lambda found: found.path)


def _walked(root: Path) -> Iterator[Trained]:
    for place, folders, files in os.walk(root):
        folder = Path(place)
        folders[:] = [name for name in folders if not name.startswith(".") and name != _WORK]
        try:
            if SET_FILE in files and (package := AdapterSet.read(folder)) is not None:
                folders.clear()
                yield from _packaged(folder, package)
            elif ADAPTER_CONFIG in files and (folder / ADAPTER_WEIGHTS).is_file():
                yield _trained(folder)
        except (ModelError, ValueError, AttributeError, OSError) as error:
            say(f"{folder}: left out, as it cannot be read: {error}")


def _trained(folder: Path) -> Trained:
    config: Mapping[str, Any] = read_json(folder / ADAPTER_CONFIG)
    run = folder.parent / FINETUNED
    facts: Mapping[str, Any] = read_json(run) if run.is_file() else {}
    targets = config.get("target_modules") or ()
    ranks = [rank for rank in (config.get("r"), *(config.get("rank_pattern") or {}).values()) if rank is not None]
    looks = [point["validation"] for point in facts.get("curve", ()) if point["validation"] is not None]
    kind = str(config.get("peft_type", "adapter")).lower()
    return Trained(
        path=str(folder),
        name=(folder.parent if facts else folder).resolve().name,
        base=str(config.get("base_model_name_or_path")),
        method=str(facts.get("method") or ("dora" if config.get("use_dora") else kind)),
        rank=max(ranks, default=None),
        targets=(targets,) if isinstance(targets, str) else tuple(sorted(targets)),
        **_file_facts(folder / ADAPTER_WEIGHTS),
        validation_loss=min(looks, default=None),
    )


def _packaged(folder: Path, package: AdapterSet) -> Iterator[Trained]:
    for entry in package.adapters:
        yield Trained(
            path=str(folder / entry.file),
            name=entry.name,
            base=package.base,
            method="lora",
            rank=entry.rank,
            targets=entry.targets,
            **_file_facts(folder / entry.file),
            package=str(folder),
        )


def _file_facts(file: Path) -> dict[str, Any]:
    state = file.stat()
    return {
        "size_mb": round(state.st_size / 1e6, 3),
        "made": datetime.fromtimestamp(state.st_mtime, UTC).isoformat(timespec="seconds"),
    }
