"""``slmops ask``: one question to a served model through the official client."""

from __future__ import annotations

from typing import Annotated

import typer

from slmops.commands import options as given
from slmops.commands.common import new_app

app = new_app()

_SHOWN = 5
"""Labels of a classification head whose probability is printed."""


@app.command()
def ask(
    folder: given.Servable,
    question: Annotated[str, typer.Argument(help="What to ask")],
    adapter: Annotated[str | None, typer.Option(help="Of a package with several adapters, the one that answers")] = None,
) -> None:
    """Serve the model on a free port of this machine, ask one question through the openai client, and print the answer."""
    from slmops.export.adapter_set import AdapterSet
    from slmops.runtimes.folders import served_folder
    from slmops.serving.client import ask as ask_served

    place = served_folder(folder)
    if adapter is not None:
        AdapterSet.check(place, adapter)
    answer, probabilities = ask_served(place, question, adapter)
    print(f"question  {question}\nanswer    {answer.strip()}")  # text templates have a space before the answer
    for label, share in list(probabilities.items())[:_SHOWN]:
        print(f"{share:9.1%} {label}")
