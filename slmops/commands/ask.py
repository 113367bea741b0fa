"""``slmops ask``: one question to a served model through the official client."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slmops.commands.common import new_app

app = new_app()

_SHOWN = 5
"""Labels of a classification head whose probability is printed."""


@app.command()
def ask(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, of a package, or of a model")],
    question: Annotated[str, typer.Argument(help="What to ask")],
) -> None:
    """Serve the model on a free port of this machine, ask one question through the openai client, and print the answer."""
    from slmops.runtimes.folders import served_folder
    from slmops.serving.client import ask as ask_served

    answer, probabilities = ask_served(served_folder(folder), question)
    print(f"question  {question}\nanswer    {answer}")
    for label, share in list(probabilities.items())[:_SHOWN]:
        print(f"{share:9.1%} {label}")
