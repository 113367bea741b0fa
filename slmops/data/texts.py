"""Texts without questions and answers, which a model is to be at home in: each a file, or a row of a table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from slmops.data.folders import Part
from slmops.data.hub import HubSource, is_hub_data
from slmops.data.records import Table
from slmops.data.rowfiles import open_part, raw_text
from slmops.data.rows import Row
from slmops.data.shapes import BadRow, text_of
from slmops.data.sources import FilesSource, RawSplits, Rejected, TableSource
from slmops.data.split_syntax import SPLIT_NAMES, Split, split_name
from slmops.data.textfiles import read_whole_text
from slmops.errors import ConfigError, DataError, at, nearest
from slmops.files import digest

_ROWS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".tab", ".parquet", ".arrow")
_TEXTS = (".txt", ".md", ".markdown", ".rst", ".text")
_SLOT = re.compile(r"\{(\w+)\}")


class Texts(BaseModel):
    """Texts as rows without an answer, the text being what a user would say.

    Args:
        train: A file whose ending is none of a table: one text. A folder with text files, in it or below: one each; those that
            are called after a split, where ``train.*`` is among them, belong to it. A table, a folder of tables or a hub data set
            (``owner/name``, ``owner/name:config``): a text a row.
        validation: The same, for validation; held out of ``train`` when left out.
        train_split: Part of the texts, such as ``train[:90%]``.
        validation_split: Part that validates.
        text_field: Column of the text in tables; left out: ``text``, or the only one.
        text_template: Text with a slot for every column, in place of one column.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: str
    validation: Path | None = None
    train_split: str | None = None
    validation_split: str | None = None
    text_field: str | None = None
    text_template: str | None = None

    def fingerprint(self) -> str:
        """Hash of the options and of the contents."""
        options = [self.text_field, self.text_template, self.train_split, self.validation_split]
        table = self._table
        if table is not None:
            return digest([options, table.fingerprint()])
        return digest([options, {role: [Part.at(file).digest() for file in files] for role, files in self._files().items()}])

    def read(self) -> RawSplits:
        """Read all texts.

        Raises:
            DataError: A file is missing, no text, or without one; a table has no such column.
            ConfigError: A column and a template are named.
            MissingExtraError: A package for hub data sets, Parquet or Arrow is missing.
        """
        if self.text_field is not None and self.text_template is not None:
            raise ConfigError("text_field and text_template exclude each other", where="text_field", fix="leave one of them out")
        table = self._table
        rejected: list[Rejected] = []
        if table is not None:
            parts = table.parts()
            train, validation = (
                self._of_table(open_part(*parts[role]), rejected) if role in parts else [] for role in ("train", "validation")
            )
        else:
            files = self._files()
            chosen = {
                "train": self._part(files, self.train_split or "train"),
                "validation": self._part(files, self.validation_split) if self.validation_split else files.get("validation", []),
            }
            train, validation = ([_of_file(file) for file in found] for found in chosen.values())
        if not train:
            places = [f"{bad.origin}: {bad.reason}" for bad in rejected[:5]]
            raise DataError("\n  ".join(["there is no text", *places]), where=self.train, fix="give texts, or name their column")
        return RawSplits([], train, validation, [], rejected)

    @property
    def _table(self) -> TableSource | None:
        """The tables that the texts stand in; ``None`` where they are files of text."""
        splits = {"train_split": self.train_split, "validation_split": self.validation_split, "validation": self.validation}
        path = Path(self.train)
        if is_hub_data(path):
            return HubSource(id=self.train, **splits)
        is_table = path.suffix.lower() in _ROWS if not path.is_dir() else not _texts_in(path)
        return FilesSource(train=path, **splits) if is_table else None

    def _files(self) -> dict[str, list[Path]]:
        train = Path(self.train)
        files: dict[str, list[Path]] = {"train": [train]}
        if train.is_dir():
            files = {"train": _texts_in(train)}
            named = {split_name(file.stem): file for file in files["train"] if file.parent == train and file.stem in SPLIT_NAMES}
            if "train" in named:
                files = {name: [file] for name, file in named.items()}
        if self.validation is not None:
            files["validation"] = _texts_in(self.validation) if self.validation.is_dir() else [self.validation]
        return files

    def _part(self, files: Mapping[str, Sequence[Path]], text: str) -> list[Path]:
        split = Split.parse(text)
        if split.name not in files:
            raise DataError(f"there is no split {split.name}", where=text, fix=f"there are {', '.join(sorted(files))}")
        return split.of(files[split.name], self.train)

    def _of_table(self, table: Table, rejected: list[Rejected]) -> list[Row]:
        fields = self._fields(table)
        rows = []
        for record in table.records:
            origin = at(table.path, record.line)
            try:
                if record.values is None:
                    raise BadRow(record.problem)
                values = {name: text_of(record.values, name, numbers=self.text_template is not None) for name in fields}
            except BadRow as error:
                rejected.append(Rejected(origin, str(error), raw_text(record)))
                continue
            text = values[fields[0]] if self.text_template is None else _filled(self.text_template, values)
            rows.append(Row.of(text, None, origin))
        return rows

    def _fields(self, table: Table) -> list[str]:
        """The columns that are asked for.

        Raises:
            DataError: One is not there.
        """
        columns = list(dict.fromkeys(name for record in table.records[:500] for name in record.values or ()))
        if self.text_template is not None:
            fields, where = list(dict.fromkeys(_SLOT.findall(self.text_template))), "text_template"
            if not fields:
                raise ConfigError(f"{self.text_template!r} has no {{field}}", where=where, fix='write it like "{text}"')
        else:
            fields, where = [self.text_field or (columns[0] if len(columns) == 1 else "text")], "text_field"
        for name in fields:
            if name.partition(".")[0] not in columns:
                what = f"there is no column {name!r} with a text"
                fix = f"{nearest(name, columns)}; name it with --input_field, or write --text_template"
                raise DataError(what, where=f"{table.path}, {where}", fix=fix)
        return fields


def _filled(template: str, values: Mapping[str, str]) -> str:
    return _SLOT.sub(lambda slot: values[slot.group(1)], template)


def _texts_in(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in _TEXTS)
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _of_file(file: Path) -> Row:
    return Row.of(read_whole_text(file), None, str(file))
