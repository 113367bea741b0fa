"""Balance of the labels, diversity of the texts, and the rows that are left out to balance them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from slmops.data.rows import Row
from slmops.files import digest


def evenness(counts: Iterable[int]) -> float:
    """Entropy of the labels as a share of the largest there could be: 1 is even, 0 is one label alone."""
    sizes = [count for count in counts if count]
    total = sum(sizes)
    if len(sizes) < 2:
        return 0.0
    return -sum(size / total * math.log(size / total) for size in sizes) / math.log(len(sizes))


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Different word n-grams as a share of all (distinct-n, Li et al. 2016); ``None`` where there are none."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        words = text.casefold().split()
        grams = list(zip(*(words[start:] for start in range(n)), strict=False))
        total += len(grams)
        seen.update(grams)
    return len(seen) / total if total else None


def over_represented(rows: Sequence[Row], ratio: float, key: Callable[[Row], str], seed: int) -> dict[str, tuple[int, int]]:
    """The rows to leave out so that no label has more than ``ratio`` times the rows of the median label.

    Args:
        rows: Labelled rows.
        ratio: At least 1.
        key: What a row is ranked by, hashed with the seed.
        seed: Another seed leaves out other rows.

    Returns:
        Key of each row to leave out: how many rows its label has, and how many of them stay.
    """
    by_label: dict[str, list[str]] = {}
    for row in rows:
        by_label.setdefault(str(row.answer), []).append(key(row))
    most = math.ceil(ratio * median(map(len, by_label.values()))) if by_label else 0
    return {
        name: (len(keys), most) for keys in by_label.values() for name in sorted(keys, key=lambda name: digest([seed, name]))[most:]
    }


def alike_labels(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Labels that differ in case, white space, hyphens or underscores alone, and are probably one."""
    forms: dict[str, list[str]] = {}
    for label in sorted(labels):
        forms.setdefault("".join(sign for sign in label.casefold() if sign.isalnum()) or label, []).append(label)
    return [tuple(names) for names in forms.values() if len(names) > 1]


def rare_labels(counts: Counter[str], least: int = 5) -> list[str]:
    """Labels with fewer than ``least`` rows."""
    return sorted(label for label, count in counts.items() if count < least)
