"""``slmops merge`` and ``slmops unmerge``: an adapter into its base's weights, and out of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from slmops.artifact import StageKey
from slmops.commands import options as given
from slmops.commands.common import make_model, new_app
from slmops.errors import UsageError
from slmops.models.adapter import Adapter, unmerge_adapter
from slmops.models.bottleneck_folder import refuse_bottleneck
from slmops.models.cache import MODEL_FILES
from slmops.models.resolve import adapter_at, resolve
from slmops.workspace import link_or_copy

merge_app = new_app()
unmerge_app = new_app()

Output = Annotated[Path, typer.Option("--output_path", "-o", help="Folder of the model that is made")]


@merge_app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder of an adapter, or of the run that trained it")],
    output_path: Output,
    as_json: given.AsJson = False,
) -> None:
    """Write the base of an adapter with the adapter merged into its weights: a model for whatever takes one."""
    place = _adapter(adapter)
    found = resolve(place)

    def make(folder: Path) -> dict[str, Any]:
        for file in found.path.iterdir():
            if MODEL_FILES.fullmatch(file.name):
                link_or_copy(file, folder / file.name)
        return {"of": found.source, "license": found.license, "parameters": found.parameters}

    _print(make_model(output_path, StageKey("merge", "model", 1, {}, {"model": found.fingerprint}), make), output_path, as_json)


@unmerge_app.command()
def unmerge(
    merged: Annotated[Path, typer.Argument(help="Folder of a model that the adapter was merged into")],
    adapter: Annotated[Path, typer.Option("--adapter", help="Folder of that adapter, or of the run that trained it")],
    output_path: Output,
    as_json: given.AsJson = False,
) -> None:
    """Subtract a LoRA adapter from weights that it was merged into: the base again, up to rounding."""
    low_rank = Adapter.read(_adapter(adapter))
    found = resolve(merged)

    def make(folder: Path) -> dict[str, Any]:
        unmerge_adapter(low_rank, found.path, folder)
        return {"of": f"{merged} less the adapter {adapter}", "license": found.license, "parameters": found.parameters}

    parents = {"model": found.fingerprint, "adapter": low_rank.fingerprint}
    _print(make_model(output_path, StageKey("unmerge", "model", 1, {}, parents), make), output_path, as_json)


def _adapter(folder: Path) -> Path:
    """The adapter of a folder, one that can be merged."""
    place = adapter_at(folder)
    if place is None:
        raise UsageError(
            "there is no adapter here", where=str(folder), fix="give the folder of an adapter, or of the run that trained it"
        )
    refuse_bottleneck(place)
    return place


def _print(facts: dict[str, Any], output_path: Path, as_json: bool) -> None:
    print(json.dumps(facts, ensure_ascii=False) if as_json else f"model  {output_path}\nof     {facts['of']}")
