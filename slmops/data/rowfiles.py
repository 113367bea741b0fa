"""A file's rows: those with an answer, those without, and those set aside."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from slmops.data.columns import Columns, choose_layout
from slmops.data.folders import Part
from slmops.data.records import Record, Table
from slmops.data.rows import Row
from slmops.data.shapes import BadRow, Example, Layout
from slmops.data.split_syntax import Split
from slmops.errors import DataError, at

Role = Literal["train", "pool", "validation", "test"]
_LONGEST_RAW = 2000


@dataclass(frozen=True)
class Rejected:
    """A row that was set aside.

    Args:
        origin: ``file:line`` (in Parquet ``file:row``).
        reason: What is wrong; the text before the first colon or semicolon is its kind.
        raw: The row as it stood there, cut at 2,000 characters.
    """

    origin: str
    reason: str
    raw: str

    @property
    def kind(self) -> str:
        """What is wrong without the details, to count by."""
        return "duplicate" if self.reason.startswith("duplicate of ") else re.split("[:;] ", self.reason, maxsplit=1)[0]

    def as_dict(self) -> dict[str, str]:
        """For JSON lines."""
        return {"origin": self.origin, "reason": self.reason, "raw": self.raw}


class FileRows(NamedTuple):
    """The rows of one file, what the file was taken for, and the rows set aside, in the order of the file."""

    table: Table
    layout: Layout
    labelled: list[Row]
    unlabelled: list[Row]
    rejected: list[Rejected]


def read_rows(
    path: Path | Part,
    role: Role,
    columns: Columns,
    *,
    system_prompt: str | None = None,
    like: Layout | None = None,
    unlabelled: bool = False,
    split: Split | None = None,
) -> FileRows:
    """Read a data file, or a part of it.

    In a train file ``null`` for an answer makes a row unlabelled, and so does a file in which no row has an answer;
    an empty answer, or a row that lacks the field others have, is a bad row. In validation and test files every row needs an
    answer, but where nothing is labelled none may have one. In a pool file answers are not read.

    Args:
        path: The file, or the files of a split.
        role: What it is for.
        columns: What the user named.
        system_prompt: System turn for conversations that have none of their own.
        like: Layout of the train file.
        unlabelled: Whether no row of the train file has an answer.
        split: The part; absent: all of it.

    Raises:
        DataError: The file cannot be read, its columns cannot be told apart, or no row can be used.
        MissingExtraError: A Parquet file without pyarrow.
    """
    table = open_part(path if isinstance(path, Part) else Part.at(path), split, columns.names)
    layout = choose_layout(table, columns, needs_answer=role != "pool", like=like)
    examples = [_example(layout, record, role) for record in table.records]
    has_answers = any(isinstance(example, Example) and example.answer for example in examples)
    needed = role in ("validation", "test") and (has_answers or not unlabelled)
    result = FileRows(table, layout, [], [], [])
    for record, example in zip(table.records, examples, strict=True):
        origin = at(table.path, record.line)
        problem = example if isinstance(example, str) else _missing_answer(example, layout, role, has_answers, needed)
        if isinstance(example, str) or problem:
            result.rejected.append(Rejected(origin, problem or "", raw_text(record)))
            continue
        messages = example.messages
        if system_prompt and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system_prompt}, *messages]
        row = Row.of(messages, example.answer or None, origin)
        row = replace(row, made=_made(record.values), others=example.others, fields=example.fields)
        (result.unlabelled if row.answer is None else result.labelled).append(row)
    if not result.labelled and not result.unlabelled:
        places = [f"{bad.origin}: {bad.reason}" for bad in result.rejected[:5]]
        raise DataError(
            "\n  ".join([f"no row of the {role} file can be used; it was taken as {describe(layout)}", *places]),
            where=str(table.path),
            fix="mend the rows, or name the columns: --input_field NAME --answer_field NAME",
        )
    return result


def open_part(part: Part, split: Split | None, names: Sequence[str] = ()) -> Table:
    """The records of a split, or of some pieces of it.

    Raises:
        DataError: A file cannot be read, or the pieces hold nothing.
        MissingExtraError: Parquet or Arrow files without pyarrow.
    """
    table = part.read(names)
    return replace(table, records=split.of(table.records, str(part.name)) if split is not None else list(table.records))


def describe(layout: Layout) -> str:
    """What was taken for what, in words."""
    if layout.template is not None:
        return f"text_template {layout.template.text!r}"
    inputs = " and ".join(repr(name) for name in layout.inputs)
    if layout.shape == "messages":
        return f"chat turns in {inputs}, answer in " + (repr(layout.answer) if layout.answer else "the last assistant turn")
    if layout.tags is not None:
        return f"question in {inputs}, tags of its words in {layout.tags!r}"
    if layout.shape == "pieces" and layout.answer is None:
        return f"text in pieces in {inputs}, the answer their entities"
    return f"question in {inputs}, " + (f"answer in {layout.answer!r}" if layout.answer else "no answers") + f" ({layout.why})"


def _example(layout: Layout, record: Record, role: Role) -> Example | str:
    """What the record says, or the reason why it is a bad row."""
    if record.values is None:
        return record.problem
    try:
        return layout.example(record.values, with_answer=role != "pool")
    except BadRow as error:
        return str(error)


def _made(values: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The mark of a row that a teacher made, as :meth:`Row.as_dict` wrote it."""
    mark = (values or {}).get("made")
    return mark if isinstance(mark, dict) and "method" in mark and isinstance(mark.get("sources"), list) else None


def _missing_answer(example: Example, layout: Layout, role: Role, has_answers: bool, needed: bool) -> str | None:
    """Why a record without an answer is a bad row; ``None`` where it is none."""
    if role == "pool" or example.answer:
        return None
    field = f"field {layout.tags or layout.answer!r}" if layout.tags or layout.answer else "the last assistant turn"
    if needed:
        return f"no answer: {field}; every row of a {role} file needs one"
    if not has_answers or (example.answer is None and not example.absent):
        return None
    return f"missing field {layout.answer!r}" if example.absent else f"empty answer: {field}; null says that there is none"


def raw_text(record: Record) -> str:
    """A record as it stood there, cut at 2,000 characters."""
    text = record.raw if record.values is None else json.dumps(record.values, ensure_ascii=False, default=str)
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= _LONGEST_RAW else text[:_LONGEST_RAW] + "…"
