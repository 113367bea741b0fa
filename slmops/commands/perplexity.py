"""``slmops perplexity``: how well models foresee plain texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from slmops.commands import options as given
from slmops.commands.common import new_app

app = new_app()


@app.command()
def perplexity(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Folder in Hugging Face layout, catalogue name or .gguf file, each may be NAME=MODEL; the first is compared with "
            "the others",
        ),
    ],
    test_data: Annotated[list[Path], typer.Option("--test_data", "--data", help="Text in UTF-8; may be given again")],
    context: Annotated[
        int | None, typer.Option(min=2, help="Tokens at once; absent: 1,024, or the model's own where that is less")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Tokens that a window adds to the one before; absent: half the context")
    ] = None,
    most_tokens: Annotated[int | None, typer.Option("--most_tokens", min=1, help="The first ones of a file; absent: all")] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals")] = 0.95,
    as_json: given.AsJson = False,
) -> None:
    """Perplexity of plain texts, by the token and by the byte, so that models with different tokenizers compare."""
    from slmops.evaluation.subjects import subjects_of
    from slmops.evaluation.text_perplexity import TextOptions, compare_on_texts, read_texts, render_table

    texts = read_texts(test_data)
    found = compare_on_texts(subjects_of(models), texts, TextOptions(context, stride, most_tokens, confidence))
    print(json.dumps(found, ensure_ascii=False) if as_json else render_table(found))
