"""``slmops fit``: what a teacher and a student have in common, and what the student can learn from."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from slmops.commands import options as given
from slmops.commands.common import new_app
from slmops.models.pairing import pair
from slmops.models.resolve import resolve

app = new_app()


@app.command()
def fit(
    teacher: Annotated[str, typer.Option(help="Catalogue name, folder, .gguf file or hub id")],
    student: Annotated[str, typer.Option(help="The same")],
    student_layers: given.StudentLayers = None,
    as_json: given.AsJson = False,
) -> None:
    """Compare a teacher and a student: tokenizers, templates, context, layers, width, and which objectives are possible."""
    folders = [resolve(name).path for name in (teacher, student)]
    found = pair(folders[0], folders[1], names=(teacher, student), layers=student_layers)
    print(json.dumps(found.as_dict(), ensure_ascii=False) if as_json else found.table())
