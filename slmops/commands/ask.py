"""``slmops ask``: one question to a served model through the official client."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slmops.commands.common import new_app

app = new_app()


@app.command()
def ask(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, of a package, or of a model")],
    question: Annotated[str, typer.Argument(help="What to ask")],
    adapter: Annotated[str | None, typer.Option(help="Of a package with several adapters, the one that answers")] = None,
) -> None:
    """Serve the model on a free port of this machine, ask one question through the openai client, and print the answer."""
    from slmops.export.adapter_set import AdapterSet
    from slmops.runtimes.folders import served_folder
    from slmops.serving.client import ask_once

    place = served_folder(folder)
    if adapter is not None:
        AdapterSet.check(place, adapter)
    answer = ask_once(place, question, adapter)
    print(f"question  {question}\nanswer    {answer}")
