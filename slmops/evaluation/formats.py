"""How figures are written in reports: few digits, a dash where nothing is known."""

from __future__ import annotations

from typing import Protocol

from slmops.evaluation.parts import Headline

DASH = "–"
_SHARES = ("share_of_teacher",)
_COUNTS = ("parameters",)
_MONEY = ("cost_per_million",)


class HasUnit(Protocol):
    """A measure of the table, or one of a report."""

    @property
    def unit(self) -> str:
        """Empty for a share or a score."""


def number(value: float | None) -> str:
    """Two or three significant digits: ``1,340``, ``38.5``, ``0.31``, ``0.0123``; ``–`` for None."""
    if value is None:
        return DASH
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.0995 else f"{value:.3g}"


def count(value: float | None) -> str:
    """Parameters as people say them: ``134.5 M``."""
    if value is None:
        return DASH
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.1f} {letter}"
    return f"{value:.0f}"


def percent(share: float | None) -> str:
    """A share as percent: 0.853 is ``85.3 %``."""
    return DASH if share is None else f"{100 * share:.1f} %"


def score(value: float | None) -> str:
    """A quality measure between 0 and 1 with three decimals."""
    return DASH if value is None else f"{value:.3f}"


def figure(key: str, value: float | None, measure: HasUnit | None = None) -> str:
    """A measure's value without its unit, in the way that fits the measure."""
    if key in _SHARES:
        return percent(value)
    if key in _COUNTS:
        return count(value)
    if value is not None and abs(value) <= 1 and key not in _MONEY and measure is not None and not measure.unit:
        return score(value)
    return number(value)


def inside(title: str) -> str:
    """A title as it stands inside a sentence: ``macro F1``, but ``ROUGE-L``."""
    return title if title[1:2].isupper() else title[:1].lower() + title[1:]


def signed(text: str, value: float) -> str:
    """The text of a difference with its sign in front (a true minus)."""
    return ("+" if value > 0 else "") + text.replace("-", "−")


def headline_value(item: Headline, value: float | None) -> str:
    """A headline's value or target in its unit: ``105 %``, ``84.2 % less``, ``6.8 ×``."""
    if value is None:
        return DASH
    if item.unit == "times":
        return f"{_rounded(value, item)} ×"
    if item.unit == "share":
        return f"{_rounded(100 * value, item)} %"
    return f"{_rounded(abs(value), item)} % {'less' if value >= 0 else 'more'}"


def _rounded(value: float, item: Headline) -> str:
    """One decimal, or two so that a target missed by little does not look reached."""
    close = not item.reached and item.value is not None and abs(item.value - item.target) < 0.002 * abs(item.target)
    return f"{value:.2f}" if close else f"{value:.1f}".removesuffix(".0")


def printable(text: str) -> str:
    """A text without control characters, which could move the terminal's cursor."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def chance(value: float | None) -> str:
    """A p-value: three decimals, ``< 0.001`` where these would be zero."""
    return DASH if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
