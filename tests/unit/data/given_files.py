"""Small data files that a test lists, and what is read from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slmops.data.sources import FilesSource, RawSplits


def given(folder: Path, rows: Iterable[Mapping[str, Any]] | str | bytes, name: str = "train.jsonl") -> Path:
    file = folder / name
    if isinstance(rows, bytes):
        file.write_bytes(rows)
    else:
        file.write_text(rows if isinstance(rows, str) else "\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def read(folder: Path, rows: Iterable[Mapping[str, Any]] | str | bytes, name: str = "train.jsonl", **options: Any) -> RawSplits:
    return FilesSource(train=given(folder, rows, name), **options).read()


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def reasons(splits: RawSplits) -> list[str]:
    return [bad.reason for bad in splits.rejected]
