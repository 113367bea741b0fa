"""From what a user points to, to the folder with the model."""

from __future__ import annotations

from pathlib import Path

from slmops.errors import ModelError

_INSIDE = ("", "package", "model")


def served_folder(folder: Path) -> Path:
    """The folder with the model to serve: the one given, the package of a run, or the model of an artifact.

    Raises:
        ModelError: There is none.
    """
    for inside in _INSIDE:
        place = folder / inside
        if (place / "genai_config.json").is_file() or (place / "config.json").is_file():
            return place
    if (folder / "report.json").is_file():
        raise ModelError(
            "this run packaged no model", where=str(folder), fix=f"read {folder / 'report.html'}: it says which gate failed"
        )
    what = "there is no model here" if folder.is_dir() else "there is no such folder"
    raise ModelError(what, where=str(folder), fix="point to the folder of a run, of a package or of a model")
