"""Where rows come from: the registry of sources, what sources of tables share, and the one that reads files.

A row that cannot be used never stops a run by itself: it is set aside as :class:`Rejected`, with its file, line and reason.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, model_validator

from slmops.data.chat import TextTemplate
from slmops.data.columns import Columns, look_like_labels
from slmops.data.folders import Part, parts_in
from slmops.data.rowfiles import FileRows, Rejected, Role, describe, read_rows
from slmops.data.rows import Row
from slmops.data.shapes import Layout
from slmops.data.split_syntax import Split
from slmops.errors import ConfigError, DataError
from slmops.files import digest
from slmops.registry import Entry, Registry

_ROLES: tuple[Role, ...] = ("train", "pool", "validation", "test")

__all__ = ["SOURCES", "Detected", "FilesSource", "RawSplits", "Rejected", "Source", "TableSource", "detect", "look_at"]

SOURCES = Registry(
    "source",
    {
        "files": Entry("slmops.data.sources:FilesSource"),
        "hub": Entry("slmops.data.hub:HubSource"),
        "plain-text": Entry("slmops.data.plain_text:PlainText"),
        "texts": Entry("slmops.data.texts:Texts"),
        "support-messages": Entry("slmops.data.support_messages:SupportMessages"),
    },
)


@dataclass(frozen=True)
class RawSplits:
    """What a source gives, before anything is checked against a task or deduplicated.

    Args:
        labelled: Training rows with an answer.
        pool: Rows without one, for a teacher to answer.
        validation: Rows with an answer, or without where nothing is labelled; empty where the source has no such split.
        test: The same.
        rejected: Rows set aside while reading.
    """

    labelled: list[Row]
    pool: list[Row]
    validation: list[Row]
    test: list[Row]
    rejected: list[Rejected] = field(default_factory=list)


class Source(Protocol):
    """An entry of ``SOURCES``: a frozen pydantic model of its options (``extra="forbid"``) with these two methods."""

    def fingerprint(self) -> str:
        """Hash of the options and of the contents they point to: equal fingerprints give equal rows."""

    def read(self) -> RawSplits:
        """Read all rows.

        Raises:
            DataError: The data cannot be used as a whole.
        """


class TableSource(BaseModel, ABC):
    """Rows from tables, wherever these lie.

    Args:
        pool: Questions without answers; answers that stand there are not read.
        validation: Rows with answers, or without where no row of the training table has one; made from that when left out.
        test: The same.
        train_split: Part of the training table, such as ``train[:4096]`` (:class:`~slmops.data.split_syntax.Split`).
        validation_split: Part that validates, of its own table or, such as ``train[4096:]``, of the training table.
        test_split: The same for test rows.
        text_template: Literal text with slots such as ``"{phrase} => {tone}"``; the last slot is the answer's.
        input_field: Column of the question, or several, separated by commas; ``question.stem`` and ``instances.0.input``
            lead into objects and lists. A list of texts is one text, a list of choices (``label``, ``text``) one line each.
        answer_field: Column of the answer; of a list of texts the first, of an object its JSON.
        tags_field: Column with one tag a word of the question; the answer is JSON of the fields they mark.
        rationale_field: Column of the reasoning; it stands before the answer, as tasks with a chain of thought read it.
        column_names: The columns of CSV and TSV files that have no header.
        system_prompt: System turn for conversations that have none of their own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pool: Path | None = None
    validation: Path | None = None
    test: Path | None = None
    train_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    text_template: str | None = None
    input_field: str | None = None
    answer_field: str | None = None
    system_prompt: str | None = None
    tags_field: str | None = None
    rationale_field: str | None = None
    column_names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _options_fit_together(self) -> TableSource:
        if self.text_template is not None:
            for name in ("input_field", "answer_field", "tags_field", "rationale_field", "system_prompt"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"{name} and text_template exclude each other", where=name, fix="leave one of them out")
        if self.tags_field is not None and self.answer_field is not None:
            raise ConfigError("tags_field and answer_field exclude each other", where="tags_field", fix="leave one of them out")
        self.columns()  # refuses a malformed template now instead of when the files are read
        return self

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the options and of the contents; where the files lie does not matter."""

    @abstractmethod
    def _given(self) -> dict[str, Part]:
        """The tables of the data set itself, by the names of its splits."""

    def read(self) -> RawSplits:
        """Read all tables.

        Raises:
            DataError: A file is missing, of an unknown format, without a usable row, or its columns cannot be told apart.
            MissingExtraError: A Parquet or Arrow file without pyarrow.
        """
        parts = self.parts()
        part, split = parts["train"]
        train = read_rows(part, "train", self.columns(), system_prompt=self.system_prompt, split=split)
        files = [train]

        def rows(role: Role) -> FileRows:
            if role not in parts:
                return FileRows(train.table, train.layout, [], [], [])
            part, split = parts[role]
            files.append(
                read_rows(
                    part,
                    role,
                    self.columns(),
                    system_prompt=self.system_prompt,
                    like=train.layout,
                    unlabelled=not train.labelled,
                    split=split,
                )
            )
            return files[-1]

        pool, validation, test = rows("pool"), rows("validation"), rows("test")
        rejected = [bad for file in files for bad in file.rejected]
        chosen, measured = (file.labelled or file.unlabelled for file in (validation, test))
        return RawSplits(train.labelled, train.unlabelled + pool.unlabelled, chosen, measured, rejected)

    def tables(self) -> dict[str, Part]:
        """The table of each split, those of the data set and those that the options name."""
        named = {"pool": self.pool, "validation": self.validation, "test": self.test}
        return self._given() | {role: Part.at(path) for role, path in named.items() if path is not None}

    def parts(self) -> dict[Role, tuple[Part, Split | None]]:
        """The table of each role, and the part of it.

        Raises:
            DataError: There is no such split, or none to train on.
        """
        tables = self.tables()
        parts: dict[Role, tuple[Part, Split | None]] = {role: (tables[role], None) for role in _ROLES if role in tables}
        wanted: dict[Role, str | None] = {"train": self.train_split, "validation": self.validation_split, "test": self.test_split}
        known = f"there are {', '.join(sorted(tables))}"
        for role, text in wanted.items():
            if text is None:
                continue
            split = Split.parse(text)
            if split.name not in tables:
                raise DataError(f"there is no split {split.name}", where=f"{role}_split {text!r}", fix=known)
            parts[role] = (tables[split.name], split)
        if "train" not in parts:
            raise DataError("there is no split train", where="train_split", fix=f"{known}: name one with --train_split")
        return parts

    def columns(self) -> Columns:
        """The columns that the options name."""
        template = TextTemplate(self.text_template) if self.text_template is not None else None
        return Columns(
            self.input_field, self.answer_field, template, self.tags_field, self.rationale_field, tuple(self.column_names)
        )


class FilesSource(TableSource):
    """Rows from files: JSON lines, JSON, CSV, TSV, CoNLL, Parquet or Arrow. Relative paths are relative to the current directory.

    Args:
        train: Rows with answers, without, or both. An answer of ``null`` makes a row unlabelled; so does a file in which no
            row has an answer. A folder may hold ``train.*``, ``validation.*`` and ``test.*``, or what
            :func:`slmops.data.folders.parts_in` finds.
    """

    train: Path

    def fingerprint(self) -> str:
        """Hash of the options and of the files' contents; where the files lie does not matter."""
        options = self.model_dump(exclude={"train", "pool", "validation", "test"})
        return digest([options, {role: [part.files[0].suffix, part.digest()] for role, part in self.tables().items()}])

    def _given(self) -> dict[str, Part]:
        return parts_in(self.train) if self.train.is_dir() else {"train": Part.at(self.train)}


@dataclass(frozen=True)
class Detected:
    """What a data file was taken for.

    Args:
        path: The file.
        format: ``JSON lines``, ``JSON``, ``CSV``, ``TSV``, ``CoNLL``, ``Parquet`` or ``Arrow``.
        encoding: Such as ``UTF-8``.
        layout: Which fields are the question and the answer, and why.
        rows: Rows that can be used.
        labelled_share: Share of them with an answer.
        distinct_answers: Number of different answers.
        mean_characters: Mean length of a question, all its turns together.
        task_type: The guess: ``classification`` where few short answers repeat, else ``generation``.
        labels: The answers, most frequent first, where the guess is classification.
        rejected: Rows set aside.
    """

    path: Path
    format: str
    encoding: str
    layout: Layout
    rows: int
    labelled_share: float
    distinct_answers: int
    mean_characters: float
    task_type: str
    labels: tuple[str, ...]
    rejected: tuple[Rejected, ...]

    def describe(self) -> str:
        """One paragraph for people."""
        text = f"{self.path.name}: {self.format}, {self.encoding}, {self.rows:,} rows; taken as {describe(self.layout)}. "
        if self.labelled_share == 0:
            text += "No row has an answer, so the kind of task cannot be told. "
        else:
            text += f"{self.labelled_share:.0%} of the rows have an answer, {self.distinct_answers:,} different ones"
            shown = ", ".join(self.labels[:5]) + (", …" if len(self.labels) > 5 else "")
            text += f" ({shown}): {self.task_type}. " if self.labels else f": {self.task_type}. "
        text += f"A question has {self.mean_characters:.0f} characters on average."
        if self.rejected:
            bad = self.rejected[0]
            text += f" Bad rows set aside: {len(self.rejected):,}, the first at {bad.origin} ({bad.reason})."
        return text


def detect(
    path: Path, *, text_template: str | None = None, input_field: str | None = None, answer_field: str | None = None
) -> Detected:
    """Look at a file of training rows as :class:`FilesSource` would.

    Raises:
        DataError: The file cannot be read, or its columns cannot be told apart.
    """
    return look_at(FilesSource(train=path, text_template=text_template, input_field=input_field, answer_field=answer_field))


def look_at(source: TableSource) -> Detected:
    """What a source's training file was taken for.

    Raises:
        DataError: The file cannot be read, or its columns cannot be told apart.
    """
    part, split = source.parts()["train"]
    table, layout, labelled, unlabelled, rejected = read_rows(part, "train", source.columns(), split=split)
    answers = [row.answer or "" for row in labelled]
    is_classification = look_like_labels(answers)
    characters = [sum(len(turn["content"]) for turn in row.messages) for row in (*labelled, *unlabelled)]
    counts = Counter(answers)
    return Detected(
        path=table.path,
        format=table.format,
        encoding=table.encoding,
        layout=layout,
        rows=len(characters),
        labelled_share=len(labelled) / len(characters),
        distinct_answers=len(counts),
        mean_characters=sum(characters) / len(characters),
        task_type="classification" if is_classification else "generation",
        labels=tuple(label for label, _ in counts.most_common()) if is_classification else (),
        rejected=tuple(rejected),
    )
