"""What the verbs share."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from slmops.artifact import Artifact, StageKey, complete, is_complete
from slmops.config import Recipe
from slmops.errors import UsageError
from slmops.files import read_json
from slmops.progress import duration
from slmops.teachers.plan import RequestPlan
from slmops.workspace import Step

if TYPE_CHECKING:
    from slmops.finetuning import Finetuned


def new_app() -> typer.Typer:
    """A typer application in which hyphens and underscores in a flag are one."""
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"token_normalize_func": _one_spelling, "help_option_names": ["-h", "--help"]},
    )


def print_plan(steps: list[Step]) -> None:
    """What would be done, a line a stage."""
    width = max(len(step.stage) for step in steps)
    for step in steps:
        print(f"  {step.state:<6} {step.stage:<{width}}  {step.why}".rstrip())


def do(recipe: Recipe, *, as_json: bool) -> None:
    """Run a recipe and print what came of it: a table and where everything lies, or with ``as_json`` the report.

    Raises:
        GateError: No model passes the gates.
        InconclusiveError: Some might, with more test rows.
    """
    from slmops.evaluation.terminal import render_table
    from slmops.pipeline import PACKAGE, run

    outcome = run(recipe)
    report = read_json(outcome.root / "report.json")
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        print(render_table(report))
        print(f"\nreport   {outcome.root / 'report.html'}")
        if outcome.packaged is not None:
            print(f"package  {outcome.root / PACKAGE}\nserve    slmops serve {outcome.root}")
    outcome.raise_for_gates()


def _one_spelling(name: str) -> str:
    return name.replace("-", "_")


def print_requests(plan: RequestPlan | None, teachers: Sequence[str], as_json: bool) -> None:
    """Print what asking teachers will need; ``None`` where nothing is paid."""
    if plan is None:
        names = ", ".join(teachers)
        print(json.dumps({"teacher": names, "cost": 0.0}) if as_json else f"{names}: on this machine, no cost")
    else:
        print(json.dumps(plan.as_dict(), ensure_ascii=False) if as_json else plan.describe())


def print_facts(artifact: Artifact, table: Callable[[dict[str, Any]], str], as_json: bool) -> None:
    """Print what a teacher did: a table, or with ``as_json`` the facts as they are."""
    facts = dict(artifact.manifest.facts)
    print(json.dumps(facts, ensure_ascii=False) if as_json else table(facts))


def rejected_lines(facts: Mapping[str, Any], file: Path) -> list[str]:
    """How many rows were rejected and why, for a table of what a teacher did."""
    if not facts["rejected"]:
        return []
    reasons = ", ".join(f"{count:,} × {reason}" for reason, count in facts["reasons"].items())
    return [f"rejected  {facts['rejected']:,} in {file} ({reasons})"]


def cost_lines(facts: Mapping[str, Any]) -> list[str]:
    """What was masked and what it cost, for a table of what a teacher did."""
    lines = []
    if facts.get("masked"):
        lines.append("masked    " + ", ".join(f"{count:,} × {kind}" for kind, count in facts["masked"].items()))
    if "cost" in facts:
        tokens = facts["prompt_tokens"] + facts["completion_tokens"]
        lines.append(f"cost      ${facts['cost']:,.4f} for {tokens:,} tokens in {facts['calls']:,} answers")
    return lines


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table of text, columns two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def run_name(output_path: Path) -> str:
    """The name of a run that goes into a folder: its own, with what a name may have."""
    allowed = "".join(
        sign if sign.isascii() and (sign.isalnum() or sign in "._-") else "-" for sign in output_path.resolve().name.lower()
    )
    return allowed.strip("._-") or "model"


def make_model(output_path: Path, key: StageKey, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Make the folder of a model, unless it is there; what a killed attempt left is made again.

    Args:
        output_path: The folder.
        key: What it is made of; equal keys stand for equal folders.
        make: Fills the folder it is given and returns its facts.

    Raises:
        UsageError: Something else is in the folder.
    """
    if is_complete(output_path) and (made := Artifact.load(output_path)).id == key.id:
        return dict(made.manifest.facts)
    if output_path.exists() and any(output_path.iterdir()):
        raise UsageError("something else is here already", where=str(output_path), fix="remove it, or choose another folder")
    started = time.time()
    partial = output_path.absolute().with_name(f".{output_path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    facts = make(partial)
    complete(partial, key, started=started, facts=facts)
    if output_path.exists():
        output_path.rmdir()
    partial.replace(output_path)
    return facts


def print_finetuned(done: Finetuned, as_json: bool) -> None:
    """Print what came of a fine-tuning: where everything lies, and what the loss says."""
    from slmops.evaluation.finetune_page import PAGE, terminal_lines
    from slmops.training.diagnosis import Diagnosis

    facts = done.facts
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    print(f"method    {facts['method']} on {facts['base']}")
    print(f"trained   {facts['rows']:,} rows, {facts['steps']:,} updates, {duration(facts['seconds'])}")
    if texts := facts.get("texts"):
        before, after = (f"{value:,.2f}" if value is not None else "?" for value in texts["perplexity"].values())
        print(f"texts     {texts['tokens']:,} tokens in {texts['blocks']:,} blocks, perplexity {before} → {after}")
    print("".join(f"{line}\n" for line in terminal_lines(facts)), end="")
    print(f"result    {Diagnosis(**facts['diagnosis'])}")
    print(f"report    {done.root / PAGE}")
    print("\n".join(f"{name:<9} {done.root / name}" for name in ("model", "adapter") if (done.root / name).is_dir()))
