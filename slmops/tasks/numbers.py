r"""Numbers as people and models write them: ``1,000``, ``$12.50``, ``3/4``, ``2 1/2``, ``\frac{1}{2}``, ``-5 %``, ``1.2e3``."""

from __future__ import annotations

import re
from fractions import Fraction

_DIGITS = r"(?:\d{1,3}(?:[,\u00a0\u202f]\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?<![A-Za-z0-9_.])(?P<sign>[-+])?\s?(?P<money>[$€£¥])?\s?(?P<sign2>-)?"
    rf"(?:(?P<whole>\d+)\s+(?P<top>\d+)/(?P<bottom>\d+)"
    rf"|(?P<number>{_DIGITS})(?:[eE](?P<power>[-+]?\d{{1,3}}))?(?:\s?/\s?(?P<below>{_DIGITS}))?)"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?[\d.,]+)\s*\}\s*\{\s*([\d.,]+)\s*\}")
_SHORT_FRACTION = re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)")
_TEXT = re.compile(r"\\(?:text|mathrm|mbox|textbf|mathbf)\s*\{([^{}]*)\}")
_REPLACED = (
    ("−", "-"),
    ("–", "-"),
    ("⁄", "/"),
    ("\\$", "$"),
    ("{,}", ","),
    ("\\,", ""),
    ("\\!", ""),
    ("\\ ", " "),
    ("\\%", "%"),
    ("½", " 1/2"),
    ("¼", " 1/4"),
    ("¾", " 3/4"),
)
_MOST_DIGITS = 200


def numbers_in(text: str) -> list[Fraction]:
    """All numbers of a text, in order; currency, percent signs and units are left out, signs and fractions are not.

    A minus between two numbers is taken for a subtraction, not for a sign.
    """
    plain = _without_latex(text)
    return [value for match in _NUMBER.finditer(plain) if (value := _value(match, plain)) is not None]


def is_number(text: str) -> bool:
    """Whether a text is one number with at most a few words of unit before or behind it."""
    return len(numbers_in(text)) == 1 and len(text.split()) <= 4 and "\n" not in text.strip()


def written(value: Fraction) -> str:
    """A number in its normal form: ``1000``, ``-0.25``, and ``1/3`` where no decimals end."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, places = value.denominator, 0
    for prime in (2, 5):
        count = 0
        while rest % prime == 0:
            rest //= prime
            count += 1
        places = max(places, count)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _value(match: re.Match[str], text: str) -> Fraction | None:
    if len(match[0]) > _MOST_DIGITS:
        return None
    if match["whole"] is not None:
        if int(match["bottom"]) == 0:
            return None
        value = int(match["whole"]) + Fraction(int(match["top"]), int(match["bottom"]))
    else:
        value = _decimal(match["number"]) * Fraction(10) ** int(match["power"] or 0)
        if match["below"] is not None:
            below = _decimal(match["below"])
            if below == 0:
                return None
            value /= below
    before = text[: match.start()].rstrip()[-1:]
    is_sign = match["sign2"] == "-" or (match["sign"] == "-" and not (before.isdigit() or before in (")", "%")))
    return -value if is_sign else value


def _decimal(text: str) -> Fraction:
    return Fraction(re.sub(r"[,\u00a0\u202f]", "", text))


def _without_latex(text: str) -> str:
    for old, new in _REPLACED:
        text = text.replace(old, new)
    text = _SHORT_FRACTION.sub(r" \1/\2", text)
    return _TEXT.sub(r" \1 ", _FRACTION.sub(r" \1/\2", text))
