"""``slmops adapters``: what has been trained."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slmops.commands import options as given
from slmops.commands.common import aligned, new_app

if TYPE_CHECKING:
    from slmops.models.trained import Trained

app = new_app()


@app.command()
def adapters(
    folder: Annotated[Path, typer.Argument(help="Where to look, with all folders below")] = Path(),
    as_json: given.AsJson = False,
) -> None:
    """List the adapters below a folder, with base, method, rank, layers, size, time and validation loss; and those in packages."""
    from slmops.models.trained import trained_adapters

    found = trained_adapters(folder)
    if as_json:
        print(json.dumps({"adapters": [asdict(adapter) for adapter in found]}, ensure_ascii=False))
    elif found:
        head = ("adapter", "base", "method", "rank", "layers", "MB", "made (UTC)", "loss", "where")
        print(aligned([head, *(_line(adapter) for adapter in found)]))
    else:
        print(f"no adapters below {folder}")


def _line(adapter: Trained) -> tuple[str, ...]:
    return (
        adapter.name,
        adapter.base,
        adapter.method,
        str(adapter.rank or ""),
        ",".join(adapter.targets),
        f"{adapter.size_mb:.1f}",
        adapter.made.removesuffix("+00:00").replace("T", " "),
        f"{adapter.validation_loss:.3f}" if adapter.validation_loss is not None else "",
        adapter.path,
    )
