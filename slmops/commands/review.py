"""``slmops review``: blind side-by-side sheets for people, and reading their verdicts back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from slmops.commands import options as given
from slmops.commands.common import new_app
from slmops.errors import UsageError
from slmops.evaluation.formats import printable
from slmops.tasks.judge import RUBRIC

app = new_app()

RESULT, UNREAD = "review.json", "rejected-verdicts.jsonl"


@app.command()
def review(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Folders of finished runs or measurements; with --read, the files of verdicts"),
    ] = None,
    a: Annotated[
        str | None, typer.Option("--a", help="One model: a row of the run, such as packaged, or a file of answers")
    ] = None,
    b: Annotated[str | None, typer.Option("--b", help="The other one")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows that each rater is shown, of those whose answers differ")] = 50,
    raters: Annotated[int, typer.Option(min=1, help="People who judge; each gets the same rows")] = 2,
    rubric: Annotated[str, typer.Option(help="What makes an answer the better one, for the raters")] = RUBRIC,
    seed: Annotated[int, typer.Option(help="Draws rows, sides and order")] = 0,
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="Where the sheets and their key go")] = Path("review"),
    read: Annotated[bool, typer.Option("--read", help="Read verdicts back")] = False,
    key: Annotated[Path | None, typer.Option(help="The key.json written with the sheets; review.json is written beside it")] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals, with --read")] = 0.95,
    as_json: given.AsJson = False,
) -> None:
    """Make blind sheets in which people compare the answers of two models; then, with --read, say who won and how sure that is.

    slmops review runs/x --a packaged --b teacher, then slmops review --read verdicts-*.csv --key review/key.json
    """
    if read:
        if key is None or not sources or a is not None or b is not None:
            raise UsageError(
                "--read takes files of verdicts and --key, nothing else",
                fix="write for example: slmops review --read verdicts-rater-1.csv verdicts-rater-2.csv --key review/key.json",
            )
        _read(sources, key, confidence, as_json)
        return
    if a is None or b is None or key is not None:
        raise UsageError(
            "name the two models to compare by --a and --b" if key is None else "--key is for --read",
            fix="write for example: slmops review runs/support-routing --a packaged --b teacher",
        )
    _make(sources or [], (a, b), rows, raters, seed, rubric, output_path, as_json)


def _make(
    sources: list[Path],
    models: tuple[str, str],
    rows: int,
    raters: int,
    seed: int,
    rubric: str,
    folder: Path,
    as_json: bool,
) -> None:
    from slmops.evaluation.pairs import find_answers, side_by_side
    from slmops.evaluation.review import KEY, REJECTED, make_review, write_review

    if models[0] == models[1]:
        raise UsageError(f"--a and --b are both {models[0]!r}", fix="name two models")
    a, b = (find_answers(name, sources) for name in models)
    paired = side_by_side(a, b)
    made = make_review(paired, rows=rows, raters=raters, seed=seed, rubric=rubric)
    files = write_review(made, paired, folder)
    found = {
        "review": made.key.review,
        "a": made.key.a,
        "b": made.key.b,
        "compared": made.key.compared,
        "equal": made.key.equal,
        "shown": len(made.key.rows),
        "rejected": len(paired.rejected),
        "sheets": [str(file) for file in files],
        "key": str(folder / KEY),
    }
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    print(f"rows      {found['shown']:,} to compare; {found['equal']:,} of {found['compared']:,} have equal answers and are ties")
    if paired.rejected:
        print(f"set aside {len(paired.rejected):,}, in {folder / REJECTED}")
    print("sheets    " + ", ".join(f"{folder / rater}.html" for rater in made.key.raters) + " (or .csv): one for each rater")
    print(f"key       {folder / KEY}: not for raters")
    print(f"then      slmops review --read verdicts-*.csv --key {folder / KEY}")


def _read(files: list[Path], key_file: Path, confidence: float, as_json: bool) -> None:
    from slmops.evaluation.review import read_key
    from slmops.evaluation.verdicts import read_verdicts, summary
    from slmops.files import write_json, write_jsonl

    key = read_key(key_file)
    verdicts, rejected = read_verdicts(files, key)
    found = summary(key, verdicts, rejected, confidence)
    folder = key_file.parent
    write_jsonl(folder / UNREAD, [line.as_dict() for line in rejected])
    write_json(folder / RESULT, found)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        print(_printable(_table(found, folder)))


def _table(found: Mapping[str, Any], folder: Path) -> list[str]:
    rows, different, agreement, position = (found[name] for name in ("rows", "where_different", "agreement", "position"))
    names = {"a": found["a"], "b": found["b"], "tie": "tie", "both bad": "both bad"}
    word = {"A better": f"{found['a']} is better", "B better": f"{found['b']} is better"}.get(found["word"], found["word"])
    lines = [
        f"win rate  {_share(found)} of {found['a']} over {found['b']}, {found['confidence']:.0%} interval: {word}",
        f"rows      {rows['compared']:,} compared, {rows['equal']:,} with equal answers (ties), "
        f"{rows['judged']:,} of {rows['shown']:,} shown ones judged: {_share(different)} where answers differ",
        "verdicts  " + ", ".join(f"{names[choice]} {count:,}" for choice, count in found["verdicts"].items()),
    ]
    for one in found["raters"]:
        missing = f", {len(one['missing']):,} without a verdict" if one["missing"] else ""
        lines.append(f"{one['rater']:<9} {_share(one) if one['interval'] else 'no verdict'}{missing}")
    if agreement["rows"]:
        beyond = "".join(f", {name} {agreement[name]:.3f}" for name in ("kappa", "alpha") if agreement[name] is not None)
        lines.append(f"agreement {agreement['percent']:.1%}{beyond} on {agreement['rows']:,} rows")
    if position["interval"]:
        low, high = position["interval"]
        bias = "raters favour a side" if position["biased"] else "no liking for a side can be told"
        lines.append(f"position  the first answer was chosen {position['first']:.1%} [{low:.1%}, {high:.1%}] of the time: {bias}")
    if found["rejected"]:
        lines.append(f"set aside {found['rejected']:,} lines, in {folder / UNREAD}")
    return [*lines, f"result    {folder / RESULT}"]


def _share(part: Mapping[str, Any]) -> str:
    low, high = part["interval"]
    return f"{part['win_rate']:.3f} [{low:.3f}, {high:.3f}]"


def _printable(lines: list[str]) -> str:
    """Lines for a terminal; names of models come from files."""
    return "\n".join(map(printable, lines))
