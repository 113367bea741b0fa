"""Work in chunks that are fixed by content: a chunk is one batch and the unit of resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from slmops.files import digest
from slmops.progress import progress

T = TypeVar("T")


def in_chunks(
    items: Sequence[T],
    *,
    size: int,
    length: Callable[[T], int],
    key: Callable[[T], str],
    folder: Path,
    suffix: str,
    make: Callable[[Sequence[T], Path], None],
    what: str,
) -> Iterator[tuple[Sequence[T], Path]]:
    """Make one file for each chunk of items of like length, leaving out those that an earlier run finished.

    The chunks depend on the items alone, not on their order, so answers that depend on the batch are the same on resume.

    Args:
        items: What to work on.
        size: Items a chunk.
        length: Items are sorted by it, so that a batch needs little padding.
        key: Identity of an item; the keys of a chunk name its file.
        folder: Where the files go.
        suffix: Of the files, with its dot.
        make: Works on a chunk and writes its file, whole or not at all.
        what: For progress.

    Yields:
        Every chunk and its file, in the chunks' order.
    """
    ordered = sorted(items, key=lambda item: (length(item), key(item)))
    chunks = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    named = [(chunk, folder / f"chunk-{digest([key(item) for item in chunk])[:20]}{suffix}") for chunk in chunks]
    finished = sum(len(chunk) for chunk, file in named if file.is_file())
    folder.mkdir(parents=True, exist_ok=True)
    with progress(what, len(ordered), "rows", done=finished) as advance:
        for chunk, file in named:
            if not file.is_file():
                make(chunk, file)
                advance(len(chunk))
            yield chunk, file
