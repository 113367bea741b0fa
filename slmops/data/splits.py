"""Stratified splits that depend on what the rows say and on the seed, not on their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from slmops.data.rows import Row
from slmops.files import digest


def take_share(
    rows: Sequence[Row], *, count: int, key: Callable[[Row], str], group: Callable[[Row], str], seed: int
) -> tuple[list[Row], list[Row]]:
    """Take ``count`` rows out, every group giving its share (largest remainder) and keeping at least one row.

    Args:
        rows: Rows with different keys.
        count: Rows to take; fewer are taken where the groups cannot give as many.
        key: What a row is ranked by, hashed with the seed.
        group: The stratum of a row.
        seed: Another seed takes other rows.

    Returns:
        The rows taken and the rest, both in the order of ``rows``.
    """
    groups: dict[str, list[tuple[str, int]]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(group(row), []).append((digest([seed, key(row)]), index))
    quotas = _quotas({name: len(members) for name, members in groups.items()}, count, seed)
    taken = {index for name, members in groups.items() for _, index in sorted(members)[: quotas[name]]}
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
