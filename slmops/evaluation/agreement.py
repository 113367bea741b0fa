"""How far people who judge the same rows agree: in percent, and beyond what chance alone would give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

Ratings = Sequence[Sequence[str | None]]
"""A line an item: the category each rater gave it, in the order of the raters; ``None`` where one gave none."""


def percent_agreement(ratings: Ratings) -> float | None:
    """Share of pairs of raters who say the same, of each item that two or more judged, averaged over these items.

    ``None`` where no item was judged twice.
    """
    shares = []
    for said in map(_given, ratings):
        pairs = list(combinations(said, 2))
        if pairs:
            shares.append(sum(one == other for one, other in pairs) / len(pairs))
    return sum(shares) / len(shares) if shares else None


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Agreement of two raters on the same items, less what chance gives by how often each uses a category (Cohen 1960).

    1 is full agreement and 0 that of chance; ``None`` where chance alone agrees always, or there is no item.
    """
    total = len(first)
    seen = sum(one == other for one, other in zip(first, second, strict=True))
    counts, others = Counter(first), Counter(second)
    chance = sum(counts[category] * others[category] for category in counts)
    return (seen * total - chance) / (total * total - chance) if total * total > chance else None


def krippendorff_alpha(ratings: Ratings) -> float | None:
    """Agreement of any number of raters for categories without an order (Krippendorff 2011); ratings may be missing.

    1 is full agreement and 0 that of chance; ``None`` where no item was judged twice, or only one category was ever used.
    """
    pairable = [given for given in map(_given, ratings) if len(given) > 1]
    totals = Counter(category for said in pairable for category in said)
    count = sum(totals.values())
    expected = count * count - sum(number * number for number in totals.values())
    if not expected:
        return None
    apart = 0.0
    for said in pairable:
        same = sum(number * number for number in Counter(said).values())
        apart += (len(said) ** 2 - same) / (len(said) - 1)
    return 1 - (count - 1) * apart / expected


def _given(said: Sequence[str | None]) -> list[str]:
    return [category for category in said if category is not None]
