"""``slmops generate-adapter``: one exported base whose adapters are switched per request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slmops.commands import options as given
from slmops.commands.common import aligned, new_app

if TYPE_CHECKING:
    from slmops.export.adapter_set import AdapterSet

app = new_app()


@app.command()
def generate_adapter(
    base: Annotated[str, typer.Option("--base_model_path", help="Model the adapters were trained on: folder, name or hub id")],
    adapters: Annotated[str, typer.Option("--adapter_paths", help="Folders of runs or of LoRA adapters, separated by commas")],
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="Folder of the package")],
    names: Annotated[str | None, typer.Option(help="Names of the adapters, separated by commas; left out: the folders'")] = None,
    precision: Annotated[str, typer.Option(help="Of the base's weights: int4, int4-mixed, w8a8, int8, float32")] = "float32",
    max_length: Annotated[
        int | None,
        typer.Option("--max_length", min=32, help="Prompt and answer together, in tokens; left out: the base's, at most 2048"),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Answers an adapter, at most, that are compared with the merged model's")] = 8,
    as_json: given.AsJson = False,
) -> None:
    """Make one ONNX model with several LoRA adapters as inputs, and compare its answers with those of each adapter merged."""
    from slmops.multi_adapter import generate_adapters

    made = generate_adapters(
        base,
        [Path(path.strip()) for path in adapters.split(",")],
        output_path,
        names=[name.strip() for name in names.split(",")] if names is not None else None,
        scheme=precision,
        max_length=max_length,
        rows=rows,
    )
    if as_json:
        print(json.dumps(made.model_dump(mode="json"), ensure_ascii=False))
        return
    print(_table(made))
    print(f"\npackage  {output_path}\nserve    slmops serve {output_path}")


def _table(made: AdapterSet) -> str:
    rows = [("adapter", "rank", "equal answers", "asked", "")]
    rows += [
        (
            name,
            rank,
            f"{agreement.equal} of {agreement.rows}",
            agreement.questions,
            "" if agreement.same_tokens else "the prompts have other tokens than the merged model's",
        )
        for name, rank, agreement in [
            ("(none)", "", made.agreement),
            *((entry.name, str(entry.rank), entry.agreement) for entry in made.adapters),
        ]
    ]
    return aligned(rows)
