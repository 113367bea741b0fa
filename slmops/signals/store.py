"""Signals on disk: memory-mapped arrays with random access by row, bound to what they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slmops.data.rows import Row
from slmops.errors import FingerprintError
from slmops.files import atomic, digest, read_json, write_json
from slmops.signals.topk import TopK

INDEX = "index.json"
_ARRAYS = ("ids", "logprobs", "tail")


def row_key(row: Row) -> str:
    """What a signal belongs to: the question and the answer whose tokens it is about."""
    return digest([row.id, row.answer])[:20]


def write_signals(folder: Path, rows: Sequence[Row], signals: Sequence[TopK], fingerprints: Mapping[str, str]) -> None:
    """Write one signal a row; the index is written last.

    Args:
        folder: Where to; created if absent.
        rows: The rows with the answers the signals are about.
        signals: As many, in the same order.
        fingerprints: What the signals depend on: ``teacher``, ``template``, ``form`` (k and rounding).
    """
    joined = TopK.concatenate(signals)
    for name in _ARRAYS:
        with atomic(folder / f"{name}.npy", "wb") as file:
            np.save(file, getattr(joined, name))
    spans, start = {}, 0
    for row, signal in zip(rows, signals, strict=True):
        spans[row_key(row)] = [start, len(signal)]
        start += len(signal)
    write_json(folder / INDEX, {"fingerprints": dict(fingerprints), "rows": spans})


@dataclass(frozen=True)
class SignalStore:
    """Signals of a folder written by :func:`write_signals`."""

    arrays: TopK
    spans: Mapping[str, tuple[int, int]]

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
        arrays = TopK(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS))
        return cls(arrays, {key: (start, length) for key, (start, length) in index["rows"].items()})

    def get(self, row: Row) -> TopK:
        """The signal at the answer tokens of a row.

        Raises:
            FingerprintError: There is none for this question and answer.
        """
        span = self.spans.get(row_key(row))
        if span is None:
            raise FingerprintError(
                "no cached signal for this row and answer", where=row.origin or row.id, fix="the data changed: run the stage again"
            )
        start, length = span
        return self.arrays[start : start + length]
