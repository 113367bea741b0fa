"""Signals on disk: memory-mapped arrays with random access by row, bound to what they were made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slmops.data.rows import Row
from slmops.errors import DataError, FingerprintError
from slmops.files import atomic, digest, read_json, size_bytes, write_json
from slmops.signals.distribution import Distribution
from slmops.signals.forms import KINDS, kind_of

INDEX = "index.json"
_KEYS, _SPANS = "keys", "spans"


def row_key(row: Row) -> str:
    """What a signal belongs to: the question and the answer whose tokens it is about."""
    return digest([row.id, row.answer])[:20]


def write_signals(folder: Path, signals: Iterable[tuple[str, Distribution]], fingerprints: Mapping[str, str]) -> SignalStore:
    """Write the signals of rows one after the other, none of which is kept in memory; the index is written last.

    Args:
        folder: Where to; created if absent.
        signals: The key of each row (:func:`row_key`) and its signal, all of one form; of equal keys the first counts.
        fingerprints: What the signals depend on, by name.

    Raises:
        DataError: There is no signal to write.
        ValueError: They do not have the same form and shape.
    """
    (folder / INDEX).unlink(missing_ok=True)
    spans: dict[str, tuple[int, int, int, int]] = {}
    kind, positions, tokens = "", 0, 0
    with ExitStack() as stack:
        columns: dict[str, Callable[[np.ndarray], None]] = {}
        for key, signal in signals:
            if not columns:
                kind = kind_of(signal)
                arrays = {name: getattr(signal, name) for name in signal.names()}
                columns = {name: stack.enter_context(_column(folder / f"{name}.npy", like)) for name, like in arrays.items()}
            if key not in spans:
                spans[key] = (positions, positions + len(signal), tokens, tokens + signal.tokens)
                positions, tokens = spans[key][1], spans[key][3]
                for name, append in columns.items():
                    append(getattr(signal, name))
        if not spans:
            raise DataError("there is no answer to keep the teacher's distribution at", where=str(folder))
    keys = sorted(spans)
    for name, array in ((_KEYS, np.array(keys, "S20")), (_SPANS, np.array([spans[key] for key in keys], np.int64))):
        with atomic(folder / f"{name}.npy", "wb") as file:
            np.save(file, array)
    write_json(folder / INDEX, {"kind": kind, "fingerprints": dict(fingerprints), "rows": len(keys), "positions": positions})
    return SignalStore.open(folder, fingerprints)


@contextmanager
def _column(file: Path, like: np.ndarray) -> Iterator[Callable[[np.ndarray], None]]:
    """A ``.npy`` file that grows along its first axis; it is there whole or not at all."""
    rows = 0

    def header() -> None:
        facts = {"descr": np.lib.format.dtype_to_descr(like.dtype), "fortran_order": False, "shape": (rows, *like.shape[1:])}
        np.lib.format.write_array_header_1_0(out, facts)  # numpy leaves room for a first axis that grows

    def append(part: np.ndarray) -> None:
        nonlocal rows
        if part.dtype != like.dtype or part.shape[1:] != like.shape[1:]:
            raise ValueError(f"{part.dtype}{part.shape[1:]} after {like.dtype}{like.shape[1:]}: signals of another form or shape")
        out.write(np.ascontiguousarray(part).tobytes())
        rows += len(part)

    with atomic(file, "wb") as out:
        header()
        yield append
        out.seek(0)
        header()


@dataclass(frozen=True)
class SignalStore:
    """Signals of a folder written by :func:`write_signals`; all arrays are memory-mapped.

    Args:
        arrays: Of all rows.
        keys: bytes ``[R]``, sorted.
        spans: int64 ``[R, 4]``: where a row's positions and its tokens begin and end.
        size: Bytes of the arrays on disk, keys and spans among them.
    """

    arrays: Distribution
    keys: np.ndarray
    spans: np.ndarray
    size: int

    @classmethod
    def open(cls, folder: Path, fingerprints: Mapping[str, str]) -> SignalStore:
        """Open a folder for a use with these fingerprints.

        Raises:
            FingerprintError: The signals were made from something else; the message names what differs.
        """
        index = read_json(folder / INDEX)
        stored = index["fingerprints"]
        different = sorted(name for name in {*stored, *fingerprints} if stored.get(name) != fingerprints.get(name))
        if different:
            raise FingerprintError(
                f"the cached signals were made with another {' and another '.join(different)}",
                where=str(folder),
                fix="remove the folder; the next run makes them again",
            )
        kind = KINDS[index["kind"]]
        files = {name: folder / f"{name}.npy" for name in (*kind.names(), _KEYS, _SPANS)}
        found = {name: np.load(file, mmap_mode="r") for name, file in files.items()}
        keys, spans = found.pop(_KEYS), found.pop(_SPANS)
        return cls(kind(**found), keys, spans, sum(size_bytes(file) for file in files.values()))

    def __len__(self) -> int:
        """Rows."""
        return len(self.keys)

    @property
    def bytes_per_token(self) -> float:
        """On disk, for an answer token."""
        return self.size / max(1, len(self.arrays))

    def get(self, row: Row) -> Distribution:
        """The signal at the answer tokens of a row.

        Raises:
            FingerprintError: There is none for this question and answer.
        """
        key = row_key(row).encode()
        place = int(np.searchsorted(self.keys, key))
        if place == len(self.keys) or self.keys[place] != key:
            raise FingerprintError(
                "no cached signal for this row and answer", where=row.origin or row.id, fix="the data changed: run the stage again"
            )
        start, end, first, last = (int(value) for value in self.spans[place])
        return self.arrays.cut(slice(start, end), slice(first, last))
