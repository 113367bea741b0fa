"""Blind side-by-side sheets for people: what each rater sees, and the key that tells afterwards which model was which."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from slmops.data.rows import Message
from slmops.errors import ArtifactError, DataError, UsageError
from slmops.evaluation.pairs import Pair, Paired
from slmops.evaluation.review_page import render_sheet
from slmops.files import digest, read_json, write_json, write_jsonl, write_text

KEY, REJECTED = "key.json", "rejected.jsonl"
COLUMNS = ("review", "rater", "row", "question", "answer_1", "answer_2", "verdict", "comment")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Model = Literal["a", "b"]


class KeyRow(BaseModel):
    """A shown row: its id in the data and, by rater, the model whose answer stands first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    first: dict[str, Model]


class Key(BaseModel):
    """What ``key.json`` holds, which raters do not get.

    Args:
        review: Tells these sheets from others.
        a: Name of one model.
        b: Name of the other.
        seed: Draws rows, sides and order.
        rubric: What raters were told.
        raters: Their names.
        compared: Rows that both models answer.
        equal: Those of them with the same answer twice; they are ties and nobody is shown them.
        rows: Those that were shown, by their name in the sheets.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    review: str
    a: str
    b: str
    seed: int
    rubric: str
    raters: list[str]
    compared: int
    equal: int
    rows: dict[str, KeyRow]


@dataclass(frozen=True)
class Shown:
    """A row as a rater sees it; ``row`` is its name in the sheets."""

    row: str
    messages: tuple[Message, ...]
    answers: tuple[str, str]


@dataclass(frozen=True)
class Review:
    """Sheets by rater, and their key."""

    key: Key
    sheets: dict[str, tuple[Shown, ...]]


def make_review(paired: Paired, *, rows: int, raters: int, seed: int, rubric: str) -> Review:
    """Draw rows, sides and order; the same arguments give the same sheets.

    A row's sides are drawn once and swapped for every second rater, so that a liking for one side favours no model. Of
    more rows the first ones are the same.

    Args:
        paired: Two models' answers.
        rows: Most rows that each rater is shown, of those whose answers differ.
        raters: Sheets.
        seed: Draws.
        rubric: What makes an answer the better one.

    Raises:
        DataError: No two answers differ.
    """
    different = [pair for pair in paired.pairs if not pair.equal]
    if not different:
        raise DataError(
            f"{paired.a} and {paired.b} give the same answers to all {len(paired.pairs):,} questions: there is nothing to compare"
        )
    drawn = sorted(different, key=lambda pair: digest([seed, "rows", pair.id]))[:rows]
    content = [[pair.id, list(pair.messages), pair.a, pair.b] for pair in drawn]
    id = digest([paired.a, paired.b, content, raters, seed, rubric])[:12]
    names = [f"rater-{number}" for number in range(1, raters + 1)]
    tokens = {pair.id: f"r{digest([seed, pair.id])[:10]}" for pair in drawn}
    key = Key(
        review=id,
        a=paired.a,
        b=paired.b,
        seed=seed,
        rubric=rubric,
        raters=names,
        compared=len(paired.pairs),
        equal=len(paired.pairs) - len(different),
        rows={tokens[pair.id]: KeyRow(id=pair.id, first=_sides(names, seed, pair.id)) for pair in drawn},
    )
    return Review(key, {name: _sheet(key, name, drawn, tokens) for name in names})


def write_review(review: Review, paired: Paired, folder: Path) -> list[Path]:
    """Write the key and, for each rater, a CSV sheet and a page; the files for raters.

    Raises:
        UsageError: The folder has the key of another review, whose verdicts could no longer be read.
    """
    file = folder / KEY
    if file.is_file() and read_key(file).review != review.key.review:
        raise UsageError(
            "here lies the key of another review", where=str(file), fix="choose another --output_path, or remove that folder"
        )
    write_json(file, review.key.model_dump())
    write_jsonl(folder / REJECTED, [row.as_dict() for row in paired.rejected])
    files = []
    for rater, shown in review.sheets.items():
        sheet, page = folder / f"{rater}.csv", folder / f"{rater}.html"
        write_text(sheet, _csv(review.key.review, rater, shown))
        rows = [{"row": one.row, "turns": [dict(turn) for turn in one.messages], "answers": one.answers} for one in shown]
        write_text(page, render_sheet(review.key.review, rater, review.key.rubric, rows))
        files += [sheet, page]
    return files


def read_key(file: Path) -> Key:
    """Read ``key.json``.

    Raises:
        ArtifactError: There is none, or it is no key.
    """
    try:
        return Key.model_validate(read_json(file))
    except FileNotFoundError as error:
        raise ArtifactError("no such file", where=str(file), fix=f"give the {KEY} that was written with the sheets") from error
    except (ValidationError, ValueError) as error:
        raise ArtifactError("this is no key of a review", where=str(file), fix=f"give the {KEY} written with the sheets") from error


def _sides(raters: Sequence[str], seed: int, id: str) -> dict[str, Model]:
    drawn = int(digest([seed, "sides", id])[:8], 16)
    return {rater: "b" if (drawn + number) % 2 else "a" for number, rater in enumerate(raters)}


def _sheet(key: Key, rater: str, drawn: Sequence[Pair], tokens: dict[str, str]) -> tuple[Shown, ...]:
    shown = []
    for pair in sorted(drawn, key=lambda pair: digest([key.seed, rater, pair.id])):
        token = tokens[pair.id]
        answers = (pair.a, pair.b) if key.rows[token].first[rater] == "a" else (pair.b, pair.a)
        shown.append(Shown(token, pair.messages, answers))
    return tuple(shown)


def _csv(review: str, rater: str, shown: Sequence[Shown]) -> str:
    """The sheet for a spreadsheet program, which takes UTF-8 for what it is by the mark in front."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in shown:
        cells = (_question(one.messages), *one.answers)
        writer.writerow([review, rater, one.row, *map(_cell, cells), "", ""])
    return "\ufeff" + text.getvalue()


def _question(messages: Sequence[Message]) -> str:
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"[{turn['role']}]\n{turn['content']}" for turn in messages)


def _cell(text: str) -> str:
    """A text that no spreadsheet program takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
