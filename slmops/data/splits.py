"""Stratified splits that depend on what the rows say and on the seed, not on their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from slmops.data.rows import Row
from slmops.files import digest


def take_share(
    rows: Sequence[Row],
    *,
    count: int,
    key: Callable[[Row], str],
    group: Callable[[Row], str],
    together: Callable[[Row], str] | None = None,
    seed: int,
) -> tuple[list[Row], list[Row]]:
    """Take ``count`` rows out, every group giving its share (largest remainder) and keeping at least one row.

    Args:
        rows: Rows with different keys.
        count: Rows to take; fewer are taken where the groups cannot give as many.
        key: What a row is ranked by, hashed with the seed.
        group: The stratum of a row.
        together: Rows with the same value are taken all or none, and count for the stratum most of them have; left out:
            every row by itself.
        seed: Another seed takes other rows.

    Returns:
        The rows taken and the rest, both in the order of ``rows``.
    """
    bundles: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        bundles.setdefault(together(row) if together else str(index), []).append(index)
    groups: dict[str, list[tuple[str, list[int]]]] = {}
    for members in bundles.values():
        strata = Counter(group(rows[index]) for index in members)
        stratum = min(strata, key=lambda name: (-strata[name], name))
        groups.setdefault(stratum, []).append((min(digest([seed, key(rows[index])]) for index in members), members))
    quotas = _quotas({name: sum(len(members) for _, members in bundled) for name, bundled in groups.items()}, count, seed)
    taken: set[int] = set()
    left = Counter(map(group, rows))
    for name, bundled in groups.items():
        room = quotas[name]
        for _, members in sorted(bundled):
            own = Counter(group(rows[index]) for index in members)
            # Rows that are taken together may be of several groups, and the last of another one.
            if len(members) <= room and all(left[other] > count for other, count in own.items()):
                taken.update(members)
                left.subtract(own)
                room -= len(members)
    return [row for index, row in enumerate(rows) if index in taken], [row for index, row in enumerate(rows) if index not in taken]


def _quotas(sizes: dict[str, int], count: int, seed: int) -> dict[str, int]:
    """How many rows each group gives: its share rounded down, then one more each by the largest remainder."""
    total = sum(sizes.values())
    shares = {name: count * size / total for name, size in sizes.items()}
    quotas = {name: min(int(shares[name]), sizes[name] - 1) for name in sizes}
    order = sorted(sizes, key=lambda name: (int(shares[name]) - shares[name], digest([seed, name])))
    while sum(quotas.values()) < count:
        open_groups = [name for name in order if quotas[name] < sizes[name] - 1]
        if not open_groups:
            break
        for name in open_groups[: count - sum(quotas.values())]:
            quotas[name] += 1
    return quotas
