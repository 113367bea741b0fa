"""Where personal data and secrets stand in a text: patterns with checksums, and the registry of finders.

The patterns need no package. They find what has a form; names and postal addresses have none, so they are not found.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from slmops.data.iban import iban_length, is_iban
from slmops.registry import Entry, Registry


@dataclass(frozen=True)
class Span:
    """A piece of personal data: the kind in capitals, and where it starts and ends."""

    kind: str
    start: int
    end: int


Finder = Callable[[str], Iterable[Span]]
"""Finds personal data in a text."""

FINDERS = Registry(
    "finder",
    {
        "patterns": Entry("slmops.data.personal_data:by_pattern"),
        "phonenumbers": Entry("slmops.data.phone_numbers:by_phone_library", extra="privacy"),
    },
)
_RISKY = re.compile(r"[@\d]|://|(?i:key|token|secret|passw|pwd|bearer)")

_EMAIL = re.compile(r"(?<![\w.%+'-])[\w.%+'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w@])")
_URL = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s/:@]{1,100}:[^\s/@]{1,200}@[^\s<>\"')\]]+")
_KNOWN_SECRETS = re.compile(
    r"\bsk-[A-Za-z0-9_-]{16,}|\b(?:ghp|gho|ghs|ghu|ghr)_[A-Za-z0-9]{30,}|\bgithub_pat_\w{22,}|\bglpat-[\w-]{20,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bxox[abeoprs]-[\w-]{10,}|\bAIza[\w-]{35}|\bhf_[A-Za-z0-9]{30,}|\bnpm_[A-Za-z0-9]{36}"
    r"|\bpypi-[\w-]{40,}|\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[\s\S]{0,8000}?-----END [A-Z ]{0,30}PRIVATE KEY-----"
)
_NAMED_SECRETS = re.compile(
    r"(?i:\b(?:password|passwort|passwd|pwd|passphrase|client[_ -]?secret|secret[_ -]?key|secret|api[_ -]?key"
    r"|access[_ -]?(?:key|token)|auth[_ -]?token|refresh[_ -]?token|token)\b[\"']?\s*(?:is\s*:|[:=])\s*[\"']?|\bbearer\s+)"
    r"([^\s\"',;<>]{6,500})"
)
_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_VERSION = re.compile(r"(?i:version|release|build|firmware|section|v\.?|chapter|§)\s*$")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?=[ -]?[A-Za-z0-9])")
_CARD = re.compile(r"(?<![\d.,+-])[2-6]\d{3}(?:[ -]?\d){9,15}(?![\d]|[.,]\d)")
_SSN = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
_SSN_CUE = re.compile(
    r"(?i:\b(?:ssn|social security(?: (?:number|no\.?))?)\b[^\d\n]{0,12})"
    r"((?!000|666|9\d\d)\d{3}[ .]?(?!00)\d{2}[ .]?(?!0000)\d{4})(?!\d)"
)
_MONTH = (
    r"(?:jan|feb|mar|mär|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez|févr|avr|juin|juil|août|déc|ene|abr|ago|dic)"
    r"[a-zéûô]*\.?"
)
_BIRTH = re.compile(
    r"(?i:\b(?:date of birth|birth ?-?(?:date|day)|d\.?o\.?b\b\.?|born|geboren|geburtsdatum|geb\.|née? le|date de naissance"
    r"|fecha de nacimiento|nacid[oa] el|nat[oa] il)[^\d\n]{0,24}?"
    rf"(\d{{1,4}}[./-]\d{{1,2}}[./-]\d{{1,4}}|\d{{1,2}}(?:st|nd|rd|th|\.)? (?:of |de )?{_MONTH},? (?:de )?\d{{4}}"
    rf"|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}}))(?!\d)"
)
_PHONE = re.compile(
    r"(?<![\w.,/+-])(?:(?:\+|00)[1-9]\d{0,2}[ ./-]?(?:\(0?\d{1,4}\)[ ./-]?)?\d(?:[ ./-]?\d){5,12}"
    r"|\(\d{2,5}\)[ ./-]?\d{2,5}(?:[ ./-]?\d{2,5}){1,3}"
    r"|[2-9]\d{2}[-. ]\d{3}[-. ]\d{4}"
    r"|0\d{1,4}[ /-]\d{2,8}(?:[ -]?\d{2,5}){0,3})(?![\w]|[.,/-]\d)"
)
_PHONE_CUE = re.compile(
    r"(?i:\b(?:phone|telephone|tel|mobile|cell|call(?: me| us)?|text me|fax|whatsapp|handy|telefon|téléphone|teléfono|portable)\b"
    r"(?: (?:number|no|nummer))?[^\d\n+($£€%]{0,12})(\+?\(?\d[\d ()./-]{4,16}\d)(?![\d]|[.,]\d)"
)
_DATE = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}$")


def by_pattern(text: str) -> list[Span]:
    """E-mail, URL with a password, secret, IBAN, card, IP, US social security number, date of birth, phone.

    IBANs (mod 97), cards (Luhn) and IP addresses are checked; a date of birth needs a word such as "born" before it.
    """
    if not _RISKY.search(text):
        return []
    return without_overlaps([span for find in _FINDERS for span in find(text)])


def find_all(text: str, finders: Sequence[Finder]) -> list[Span]:
    """What several finders find, in order and without overlaps."""
    return without_overlaps([span for finder in finders for span in finder(text)])


def without_overlaps(spans: Sequence[Span]) -> list[Span]:
    """Spans in the order of the text; of overlapping ones the first given stays."""
    kept: list[Span] = []
    for span in spans:
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda span: span.start)


def passes_luhn(digits: str) -> bool:
    """Whether the last digit of a card number fits the others (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def looks_like_date(text: str) -> bool:
    """Whether digits with separators are a date rather than a phone number."""
    return _DATE.match(text) is not None


def _matches(kind: str, pattern: re.Pattern[str], group: int = 0) -> Finder:
    return lambda text: [Span(kind, *match.span(group)) for match in pattern.finditer(text)]


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        length, end, letters = iban_length(match.group()[:2]), match.end(), match.group()
        while length and len(letters) < length and end < len(text):
            if text[end].isascii() and text[end].isalnum():
                letters += text[end]
            elif text[end] not in " -" or text[end - 1] in " -":
                break
            end += 1
        whole = end == len(text) or not text[end].isalnum()
        if length == len(letters) and whole and is_iban(letters):
            yield Span("IBAN", match.start(), end)


def _cards(text: str) -> Iterator[Span]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        if 13 <= len(digits) <= 19 and len(set(digits)) > 1 and passes_luhn(digits):
            yield Span("CARD", *match.span())


def _addresses(text: str) -> Iterator[Span]:
    for match in (*_IPV4.finditer(text), *_IPV6.finditer(text)):
        address = _parsed(match.group())
        if address is None or address.is_loopback or address.is_unspecified or _VERSION.search(text[: match.start()][-16:]):
            continue
        yield Span("IP", *match.span())


def _parsed(text: str) -> Any:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _phones(text: str) -> Iterator[Span]:
    for group, matches in ((1, _PHONE_CUE.finditer(text)), (0, _PHONE.finditer(text))):
        for match in matches:
            number = match.group(group)
            digits = sum(map(str.isdigit, number))
            if (6 if group else 9) <= digits <= 15 and not looks_like_date(number):
                yield Span("PHONE", *match.span(group))


_FINDERS: tuple[Finder, ...] = (
    _matches("URL", _URL),
    _matches("SECRET", _KNOWN_SECRETS),
    _matches("SECRET", _NAMED_SECRETS, 1),
    _matches("EMAIL", _EMAIL),
    _ibans,
    _cards,
    _addresses,
    _matches("SSN", _SSN),
    _matches("SSN", _SSN_CUE, 1),
    _matches("BIRTH_DATE", _BIRTH, 1),
    _phones,
)
