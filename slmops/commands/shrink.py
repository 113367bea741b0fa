"""``slmops shrink``: a smaller model of a model, to a size or a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from slmops.artifact import StageKey
from slmops.commands import options as given
from slmops.commands.common import make_model, new_app
from slmops.config import build
from slmops.data.rows import Row
from slmops.data.sources import FilesSource, look_at
from slmops.errors import UsageError
from slmops.files import digest
from slmops.models.cutplan import CutPlan
from slmops.models.resolve import ResolvedModel, resolve
from slmops.models.shrink import Wish, cut_model, plan_cut
from slmops.models.timing import Request, measure_request
from slmops.progress import say
from slmops.sections import StudentSection

app = new_app()


@app.command()
def shrink(
    model: Annotated[str, typer.Option(help="What to cut: catalogue name, folder, .gguf file or hub id")],
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="Folder of the smaller model")],
    target: Annotated[
        str | None, typer.Option(help="30M weights, 20MB of the package (see --precision), or 25ms a request on this machine")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", "--data_name", help="Training rows: they say which tokens and layers are needed")
    ] = None,
    pool: Annotated[Path | None, typer.Option(help="More of them, without answers")] = None,
    layers: Annotated[int | None, typer.Option(min=2, help="Layers to keep; left out: what the target allows")] = None,
    keep: Annotated[
        str,
        typer.Option(
            help="Which layers: first, uniform (evenly spread), importance (those that change most of what passes through), "
            "copying (those that copy words), or their numbers from 0: 0,1,2,16,17,29"
        ),
    ] = "first",
    vocabulary: Annotated[
        str | None, typer.Option(help="all, trim, or a number of tokens; left out: what the target allows, else all")
    ] = None,
    precision: Annotated[
        Literal["float32", "int8", "int4"], typer.Option(help="Of what a target in MB is the size: 32, 8 or 4 bits a weight")
    ] = "int4",
    chat_template: Annotated[str, typer.Option("--chat_template", help="own, compact, plain or a .jinja file")] = "own",
    text_template: given.TextTemplate = None,
    input_field: given.InputField = None,
    answer_field: given.AnswerField = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan and stop")] = False,
    as_json: given.AsJson = False,
) -> None:
    """Cut layers and vocabulary of a model; the plan is printed before anything is cut. The width is never cut.

    The smaller model knows less until it is trained: it is a student, not a replacement.
    """
    asked = {"layers": layers, "keep": _keep(keep), "vocabulary": _vocabulary(vocabulary)}
    wish = Wish.of(build(StudentSection, {**asked, "target": target, "target_precision": precision}, where="shrink"))
    if not wish.cuts:
        raise UsageError("nothing says how small the model shall be", where="shrink", fix="give --target 20MB, or --layers 8")
    columns = {"text_template": text_template, "input_field": input_field, "answer_field": answer_field}
    rows = _rows({"train": data or pool, "pool": pool if data else None}, columns)
    found = resolve(model)
    texts, request = _texts(found, rows, chat_template, text_template)
    planned = plan_cut(found.path, wish, rows=texts, request=request)
    if plan:
        print(json.dumps(planned.as_dict(), ensure_ascii=False) if as_json else planned.table())
        return
    say(planned.table())
    facts = _make(found, planned, StageKey("shrink", "model", 1, asdict(wish), _parents(found, texts)), output_path)
    print(json.dumps(facts, ensure_ascii=False) if as_json else _done(facts, planned, output_path))


def _make(found: ResolvedModel, planned: CutPlan, key: StageKey, output_path: Path) -> dict[str, Any]:
    """Write the model, unless it is there."""

    def cut(folder: Path) -> dict[str, Any]:
        cut_model(found.path, folder, planned, folder / "between")
        shutil.rmtree(folder / "between", ignore_errors=True)
        facts = {**planned.as_dict(), "license": found.license, "of": found.reference}
        if planned.timing is not None:
            facts["measured_ms"] = round(measure_request(folder, planned.timing.request), 2)
        return facts

    return make_model(output_path, key, cut)


def _done(facts: dict[str, Any], planned: CutPlan, output_path: Path) -> str:
    lines = [f"model  {output_path}"]
    if "measured_ms" in facts:
        parent = f", {facts['parent']['ms']:,.1f} of the model it is cut from" if planned.timing else ""
        lines.append(f"time   {facts['measured_ms']:,.1f} ms measured, {facts['cut']['ms']:,.1f} estimated{parent}")
    return "\n".join(lines)


def _vocabulary(text: str | None) -> Literal["all", "trim"] | int | None:
    if text is None or text in ("all", "trim"):
        return text  # type: ignore[return-value]  # mypy does not narrow by membership
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"{text!r} is no size of a vocabulary", where="--vocabulary", fix="give all, trim, or a number of tokens")
    return int(text)


def _keep(text: str) -> str | list[str]:
    return text.split(",") if "," in text or text.isdecimal() else text


def _rows(files: dict[str, Path | None], columns: dict[str, str | None]) -> list[Row]:
    values = {**{role: str(path) for role, path in files.items() if path}, **{name: text for name, text in columns.items() if text}}
    if "train" not in values:
        return []
    source = build(FilesSource, values, where="shrink")
    say(look_at(source).describe())
    read = source.read()
    return [*read.labelled, *read.pool]


def _texts(
    found: ResolvedModel, rows: Sequence[Row], chat_template: str, text_template: str | None
) -> tuple[list[list[int]], Request]:
    """Token ids of the rows, and a request as long as they are."""
    if not rows:
        return [], Request()
    from slmops.data.templates import choose_template
    from slmops.models.load import load_tokenizer

    template = choose_template(load_tokenizer(found.path), chat_template, text_template)
    return template.token_ids(rows), Request.of(template, rows)


def _parents(found: ResolvedModel, texts: Sequence[Sequence[int]]) -> dict[str, str]:
    return {"base": found.fingerprint, **({"texts": digest([list(row) for row in texts])} if texts else {})}
