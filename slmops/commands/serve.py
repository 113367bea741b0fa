"""``slmops serve``: a model behind the OpenAI API."""

from __future__ import annotations

from typing import Annotated

import typer

from slmops.commands import options as given
from slmops.commands.common import new_app

app = new_app()


@app.command()
def serve(
    folder: given.Servable,
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one")] = 8000,
    threads: Annotated[int | None, typer.Option(help="CPU threads")] = None,
) -> None:
    """Serve a model: POST /v1/chat/completions, GET /v1/models, GET /health."""
    from slmops.runtimes.folders import served_folder
    from slmops.serving.server import serve as serve_folder

    serve_folder(served_folder(folder), host, port, threads)
