"""Parquet and Arrow files, whose records are made when they are asked for: a part of a large set costs only that part."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from slmops.data.records import Record
from slmops.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import pyarrow

_PARQUET = b"PAR1"
_ARROW_FILE = b"ARROW1"
_ARROW_STREAM = b"\xff\xff\xff\xff"
_BATCH = 1000


class Columnar(Sequence[Record]):
    """The rows of an Arrow table as records, numbered from 1 as they stand in it.

    Class labels, which such files hold as numbers with the names beside them (``ClassLabel`` of the library ``datasets``), are
    their names; a number below 0, which stands for no label, is ``None``.
    """

    def __init__(self, table: pyarrow.Table, first: int = 1) -> None:
        self._table, self._first = table, first
        self._labelled = {name: feature for name, feature in _features(table).items() if _has_labels(feature)}

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[Record]:
        number = self._first
        for batch in self._table.to_batches(max_chunksize=_BATCH):
            for values in batch.to_pylist():
                named = {name: _named(values[name], feature) for name, feature in self._labelled.items()}
                yield Record(number, {**values, **named})
                number += 1

    @overload
    def __getitem__(self, place: int) -> Record: ...

    @overload
    def __getitem__(self, place: slice) -> Columnar: ...

    def __getitem__(self, place: int | slice) -> Record | Columnar:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            if step != 1:
                raise ValueError("records are taken without gaps")
            return Columnar(self._table.slice(start, max(0, stop - start)), self._first + start)
        (record,) = self[range(len(self))[place] :][:1]
        return record


def format_of(path: Path) -> str | None:
    """``Parquet`` or ``Arrow``, by how a file begins; ``None`` for another one or none."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_ARROW_FILE))
    except OSError:
        return None
    if start.startswith(_PARQUET):
        return "Parquet"
    return "Arrow" if start.startswith((_ARROW_FILE, _ARROW_STREAM)) else None


def read_columnar(files: Sequence[Path]) -> Columnar:
    """The records of files of one set, one behind the other; Arrow files are mapped, not read.

    Raises:
        DataError: One is damaged, or has other columns than the first.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
    tables = [_read(path) for path in files]
    try:
        return Columnar(pyarrow.concat_tables(tables))
    except pyarrow.ArrowException as error:
        raise DataError(
            f"its files have different columns: {error}", where=str(files[0].parent), fix="name one file, or write them again"
        ) from error


def _read(path: Path) -> pyarrow.Table:
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    kind = format_of(path)
    try:
        if kind == "Parquet":
            return pyarrow.parquet.read_table(path)
        mapped = pyarrow.memory_map(str(path))
        with path.open("rb") as file:
            is_stream = file.read(len(_ARROW_STREAM)) == _ARROW_STREAM
        return (pyarrow.ipc.open_stream(mapped) if is_stream else pyarrow.ipc.open_file(mapped)).read_all()
    except (pyarrow.ArrowException, OSError) as error:
        what = f"the {kind or 'Arrow'} file cannot be read: {error}"
        raise DataError(what, where=str(path), fix="write it again") from error


def _features(table: pyarrow.Table) -> Mapping[str, Any]:
    """What ``datasets`` notes of the columns in a file's schema."""
    noted = (table.schema.metadata or {}).get(b"huggingface")
    info = json.loads(noted).get("info") if noted else None
    features = (info or {}).get("features") or {}
    return {name: feature for name, feature in features.items() if name in table.column_names}


def _has_labels(feature: Any) -> bool:
    if isinstance(feature, list):
        return any(map(_has_labels, feature))
    return isinstance(feature, Mapping) and (_is_label(feature) or any(map(_has_labels, feature.values())))


def _is_label(feature: Mapping[str, Any]) -> bool:
    return feature.get("_type") == "ClassLabel" and bool(feature.get("names"))


def _named(value: Any, feature: Any) -> Any:
    """A value with the names of its class labels in the place of their numbers."""
    if value is None or not _has_labels(feature):
        return value
    if isinstance(feature, list):
        return [_named(item, feature[0]) for item in value]
    if _is_label(feature):
        return feature["names"][value] if 0 <= value < len(feature["names"]) else None
    inner = feature.get("feature") if "_type" in feature else None
    if isinstance(value, list):
        return [_named(item, inner) for item in value]
    if inner is not None:  # a list of objects, which older versions keep as an object of lists
        return {name: _named(items, [inner[name]]) for name, items in value.items()}
    return {name: _named(item, feature[name]) for name, item in value.items()}
