"""Phone numbers by Google's rules for every country (``phonenumbers``, whose metadata lie in its wheel)."""

from __future__ import annotations

import phonenumbers

from slmops.data.personal_data import Span, looks_like_date, without_overlaps

_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "IN")


def by_phone_library(text: str) -> list[Span]:
    """Phone numbers in international form of all countries, and in the national forms of a few."""
    if not any(map(str.isdigit, text)):
        return []
    found = [match for region in _REGIONS for match in phonenumbers.PhoneNumberMatcher(text, region)]
    return without_overlaps([Span("PHONE", match.start, match.end) for match in found if not looks_like_date(match.raw_string)])
