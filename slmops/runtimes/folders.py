"""From what a user points to, to the folder with the model and the engine that runs it."""

from __future__ import annotations

from pathlib import Path

from slmops.errors import ModelError
from slmops.models.resolve import is_adapter, resolve

_INSIDE = ("", "package", "model")
_ENGINES = (("genai_config.json", "ort-genai"), ("config.json", "torch"), ("model.gguf", "openvino-genai"))
"""A file that tells what a folder holds, and the registry name of the engine that runs it."""


def served_folder(folder: Path) -> Path:
    """The folder with the model: the one given, the package of a run, the model of an artifact, or base and adapter as one.

    Raises:
        ModelError: There is none.
    """
    for inside in _INSIDE:
        if known_engine(folder / inside) is not None:
            return folder / inside
    if is_adapter(folder):
        return resolve(folder).path
    if (folder / "report.json").is_file():
        raise ModelError(
            "this run packaged no model", where=str(folder), fix=f"read {folder / 'report.html'}: it says which gate failed"
        )
    what = "there is no model here" if folder.is_dir() else "there is no such folder"
    raise ModelError(what, where=str(folder), fix="point to the folder of a run, of a package or of a model")


def engine_of(folder: Path) -> str:
    """Registry name of the engine that runs what is in a folder.

    Raises:
        ModelError: It holds no model.
    """
    engine = known_engine(folder)
    if engine is not None:
        return engine
    names = " or ".join(name for name, _ in _ENGINES)
    what = f"no {names} here" if folder.is_dir() else "no such folder"
    raise ModelError(what, where=str(folder), fix="point to the folder of a packaged or a Hugging Face model")


def known_engine(folder: Path) -> str | None:
    """The same, ``None`` where it holds no model."""
    return next((engine for name, engine in _ENGINES if (folder / name).is_file()), None)
