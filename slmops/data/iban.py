"""International bank account numbers (ISO 13616): their length by country and their check digits."""

from __future__ import annotations

_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18 "
    "FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 "
    "LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 "
    "SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)


def iban_length(country: str) -> int | None:
    """Characters of a country's account numbers, check digits included; ``None`` where the country has none."""
    place = _LENGTHS.find(country.upper())
    return int(_LENGTHS[place + 2 : place + 4]) if place >= 0 else None


def is_iban(letters: str) -> bool:
    """Whether the check digits fit: with the first four characters at the end, the number is 1 modulo 97."""
    moved = letters[4:] + letters[:4]
    return int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1
