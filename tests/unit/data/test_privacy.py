"""Personal data leaves as placeholders and comes back; a labelled set says how much of it is found."""

from __future__ import annotations

import importlib.util
import random

import pytest

from slmops.data.iban import is_iban
from slmops.data.personal_data import by_pattern, passes_luhn
from slmops.data.privacy import mask, mask_text, open_finders
from slmops.errors import MissingExtraError, UsageError

# Marked by hand: {KIND|text}; numbers are made up. Some have no form that a pattern could know.
MARKED = """
Please write to {EMAIL|anna.schmidt@example.com} about my refund.
My addresses are {EMAIL|o'brien+shop@mail.example.co.uk} and {EMAIL|bob_77@example.org}.
Kontakt: {EMAIL|jürgen.müller@beispiel.de}, danke!
Call me on {PHONE|+49 30 901820} tomorrow.
My number is {PHONE|+1 (415) 555-2671}.
Reach me at {PHONE|(212) 555-0147} or {PHONE|212-555-0199}.
Tel. {PHONE|030 1234567}, Mobil {PHONE|0171-2345678}
My mobile is {PHONE|07700 900123}.
phone: {PHONE|5550123}
Text me at {PHONE|07911123456} please
WhatsApp {PHONE|+91 98765 43210}
+33 is France, my number is {PHONE|+33 1 42 68 53 00}.
Fax {PHONE|0041 44 668 18 00}
Pay to {IBAN|DE89 3704 0044 0532 0130 00} today.
IBAN {IBAN|GB82WEST12345698765432}, thanks.
Account {IBAN|FR14 2004 1010 0505 0001 3M02 606} was wrong.
Use card {CARD|4111 1111 1111 1111} exp 12/27.
Amex {CARD|378282246310005} was charged twice.
Mastercard {CARD|5555-5555-5555-4444} declined
The server {IP|203.0.113.77} is down, also {IP|2001:db8::8a2e:370:7334}.
Login from {IP|10.20.30.40} failed.
Clone {URL|https://bob:hunter22@git.example.com/repo.git} first.
postgres is at {URL|postgresql://admin:s3cr3t@db.example.com:5432/shop}
My key is {SECRET|sk-proj-abcdEFGH1234567890abcd}.
export AWS_KEY={SECRET|AKIAIOSFODNN7EXAMPLE}
token: {SECRET|ghp_abcdefghijklmnopqrstuvwxyz0123456789}
password = {SECRET|Tr0ub4dor&3}
Authorization: Bearer {SECRET|abcdef.0123456789-XYZ}
api_key: "{SECRET|9f8e7d6c5b4a}"
My SSN is {SSN|078-05-1120}.
Social security number {SSN|219 09 9999}
I was born on {BIRTH_DATE|12 March 1984} in Leeds.
DOB: {BIRTH_DATE|1984-03-12}
Date of birth {BIRTH_DATE|03/12/1984}, policy 5512.
Geboren am {BIRTH_DATE|12.03.1984} in Köln.
She was born {BIRTH_DATE|July 4, 1990}.
Mail {EMAIL|anna (at) example (dot) com} instead.
Patient, {BIRTH_DATE|12.03.1984}, female.
Ask for extension {PHONE|555 0123} there.
Customer {PHONE|3012345678} called twice.
My name is Anna and I live in Leeds.
Order 4711-2024 from 2024-05-03 has not arrived.
The meeting is on 12.05.2023 at 10:30:45.
Invoice 2023-000123, total 1,250.00 euros.
It costs 1 234 567 dollars.
Version 1.2.3.4 of the firmware is broken.
Section 4.3.2.1 says otherwise.
The year 1984 was cold; born in Leeds, she left.
What is 4111 1111 1111 1112 as a number?
My order number is 100200300400.
Is 3.14159265358979 close to pi?
The distance is 0123 km or so.
Use the @ sign, as in a@b.
Email me.
Call the function with 3 arguments.
The token economy is growing, and the secret of it is patience.
Password reset does not work.
The key: be patient.
localhost is 127.0.0.1.
Track parcel RR123456785DE or 1Z999AA10123456784.
ISBN 978-3-16-148410-0 is a book.
The score was 21-19 and 15-21.
At 09:15 add 00:10 to it.
Room 0815 on floor 3.
Flight LH 1234 leaves at 18:05 on 01/02/2024.
Between 2010-2020 and 1999-2005 it rained.
Rated 4.5/5 by 12,345 people.
The MAC is 00:1A:2B:3C:4D:5E.
Coordinates 52.520008, 13.404954.
""".strip().splitlines()


def unmarked(line: str) -> tuple[str, set[tuple[str, int, int]]]:
    text, spans, rest = "", set(), line
    while "{" in rest:
        before, _, rest = rest.partition("{")
        inside, _, rest = rest.partition("}")
        kind, _, value = inside.partition("|")
        text += before
        spans.add((kind, len(text), len(text) + len(value)))
        text += value
    return text + rest, spans


def found(text: str) -> set[tuple[str, int, int]]:
    return {(span.kind, span.start, span.end) for span in by_pattern(text)}


def test_precision_and_recall_of_the_patterns_on_the_marked_set() -> None:
    hits = claimed = expected = 0
    wrong = []
    for line in MARKED:
        text, spans = unmarked(line)
        got = found(text)
        hits, claimed, expected = hits + len(got & spans), claimed + len(got), expected + len(spans)
        wrong += [(kind, text[start:end], line) for kind, start, end in got ^ spans]
    assert expected >= 40
    assert hits / claimed >= 0.95, wrong
    assert hits / expected >= 0.9, wrong


def test_check_digits() -> None:
    assert passes_luhn("4111111111111111")
    assert not passes_luhn("4111111111111112")
    assert is_iban("DE89370400440532013000")
    assert not is_iban("DE88370400440532013000")
    assert "IBAN" not in {span.kind for span in by_pattern("DE88 3704 0044 0532 0130 00")}


# ---- masking


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_equal_pieces_get_one_placeholder_in_all_turns() -> None:
    turns = [
        user("I am eve@example.org, not bob@example.org."),
        {"role": "assistant", "content": "Hello eve@example.org"},
        user("?"),
    ]
    masked = mask(turns)
    assert [turn["content"] for turn in masked.messages] == [
        "I am [EMAIL_1], not [EMAIL_2].",
        "Hello [EMAIL_1]",
        "?",
    ]
    assert [turn["role"] for turn in masked.messages] == ["user", "assistant", "user"]
    assert masked.originals == {"[EMAIL_1]": "eve@example.org", "[EMAIL_2]": "bob@example.org"}
    assert masked.counts == {"EMAIL": 2}
    assert turns[0]["content"].startswith("I am eve@")


@pytest.mark.parametrize(
    ("answer", "restored"),
    [
        ("I wrote to [EMAIL_1].", "I wrote to eve@example.org."),
        ("I wrote to [email_1].", "I wrote to eve@example.org."),
        (r"I wrote to \[EMAIL\_1\].", "I wrote to eve@example.org."),
        ("[EMAIL_1], [ EMAIL_1 ], [EMAIL 1]", "eve@example.org, eve@example.org, eve@example.org"),
        ("I wrote to [EMAIL_9] and [1].", "I wrote to [EMAIL_9] and [1]."),
    ],
)
def test_answers_get_the_originals_back(answer: str, restored: str) -> None:
    assert mask([user("I am eve@example.org")]).unmask(answer) == restored


def test_what_was_found_once_is_masked_wherever_it_stands() -> None:
    hidden = "see eve@example.org_old"
    assert by_pattern(hidden) == []
    assert mask([user("I am eve@example.org"), user(hidden)]).messages[1]["content"] == "see [EMAIL_1]_old"


def test_placeholders_that_a_model_made_up_are_named() -> None:
    masked = mask([user("I am eve@example.org")])
    assert masked.invented("[EMAIL_1] or [email_7], see [NOTE_1]") == ["[EMAIL_7]"]


def test_a_placeholder_that_stands_in_the_text_is_not_given_again() -> None:
    text = "What does [EMAIL_1] mean in 'Dear [EMAIL_2]'? I am eve@example.org"
    masked = mask([user(text)])
    assert masked.messages[0]["content"] == "What does [EMAIL_1] mean in 'Dear [EMAIL_2]'? I am [EMAIL_3]"
    assert masked.unmask(masked.messages[0]["content"]) == text


def test_masking_and_unmasking_gives_back_the_very_text() -> None:
    pieces = [unmarked(line)[0] for line in MARKED] + ["[EMAIL_1]", r"\[PHONE_1\]", "\\", "[", "]", "[[", "é😀", "\n\t", "[SSN_1"]
    draw = random.Random(5)
    for _ in range(300):
        text = draw.choice(["", " "]).join(draw.choices(pieces, k=6))
        masked = mask([user(text)])
        assert masked.unmask(masked.messages[0]["content"]) == text
        assert not {value for value in masked.originals.values() if len(value) > 9 and value in masked.messages[0]["content"]}


def test_text_without_personal_data_is_left_alone() -> None:
    assert mask_text("Where is my parcel?") == "Where is my parcel?"
    assert mask([user("Where is my parcel?")]).originals == {}


def test_long_texts_take_no_time() -> None:
    for text in ("a" * 50_000, "1 " * 25_000, "a." * 25_000, "0" * 50_000, ":" * 50_000, "+1" * 25_000):
        mask_text(text)


# ---- the library


def test_a_finder_is_chosen_by_name() -> None:
    assert open_finders(["patterns"]) == [by_pattern]
    with pytest.raises(UsageError, match="unknown finder"):
        open_finders(["pattern"])


def test_the_phone_library_finds_numbers_of_many_countries() -> None:
    if importlib.util.find_spec("phonenumbers") is None:
        with pytest.raises(MissingExtraError, match=r"slmops\[privacy\]"):
            open_finders(["phonenumbers"])
        return
    masked = mask([user("Ring 0171 2345678, 06 12 34 56 78 or +48 601 234 567 on 12.05.2023.")], open_finders(["phonenumbers"]))
    assert masked.messages[0]["content"] == "Ring [PHONE_1], [PHONE_2] or [PHONE_3] on 12.05.2023."
