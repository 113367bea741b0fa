"""Loops and cut answers are found; verse, tables and lists are not taken for them."""

from __future__ import annotations

import json

import pytest

from slmops.data.quality.repetition import cut_off, loop

TABLE = "| name | value |\n|------|-------|\n" + "\n".join(f"| row {n} | {n * 7} |" for n in range(12))
PROSE = (
    "The parcel left our warehouse on Monday and reached the sorting centre a day later. From there it takes two working days "
    "to most places, and one more to islands and mountain villages. You can follow it on the page of the carrier."
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The answer is yes. " * 8, "is yes."),
        (PROSE + " I hope this helps you." * 6, "this helps"),
        ("very " * 40, "very"),
        ("hahahahahahahahahahahahahahaha", "ha"),
        ("好的好的好的好的好的好的好的好的好的好的好的好的好的", "好的"),
        ("\n".join(["- check the cable and restart"] * 6), "check the cable"),
    ],
)
def test_a_loop_is_found(text: str, said: str) -> None:
    found = loop(text)
    assert found is not None
    assert said in f"{found} {found}"


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        TABLE,
        "=" * 80,
        "1" + "0" * 60,
        "Loading..........................",
        "no no no no",
        "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.",
        " ".join(f"{n} times 7 is {n * 7}," for n in range(1, 12)),
        json.dumps([{"name": f"n{n}", "size": n} for n in range(10)], indent=1),
        "",
    ],
)
def test_ordinary_texts_are_no_loops(text: str) -> None:
    assert loop(text) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Use this:\n```python\nprint(1)", "an open code block"),
        ('{"label": "yes", "reasons": ["a", ', "JSON that does not end"),
        ("[[1, 2], [3,", "JSON that does not end"),
        ("You can return it within 30 days, and", "it ends with 'and'"),
        ("The parcel is on its way to the", "it ends with 'the'"),
        ("There are three ways to do this,", "it ends with ','"),
    ],
)
def test_a_cut_answer_is_found(text: str, why: str) -> None:
    assert cut_off(text) == why


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        "```python\nprint(1)\n```",
        '{"a": "the {"}',
        "[see the note] It costs 3 euros",
        "rock and",
        "Which bus does it depend on",
        "Solve for x and y",
        "It is rich in vitamin a",
        "",
    ],
)
def test_whole_answers_are_not_cut(text: str) -> None:
    assert cut_off(text) is None
