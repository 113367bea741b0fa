"""Several texts in one reply, however a model lays them out."""

from __future__ import annotations

import pytest

from slmops.teachers.listed import read_texts

WANTED = ["Where is it?", "Has it left yet?"]


@pytest.mark.parametrize(
    "reply",
    [
        '["Where is it?", "Has it left yet?"]',
        'Sure! Here they are:\n```json\n["Where is it?",\n "Has it left yet?"]\n```',
        '{"paraphrases": ["Where is it?", "Has it left yet?"]}',
        '[{"text": "Where is it?"}, {"text": "Has it left yet?", "label": "x"}]',
        '{"1": "Where is it?", "2": "Has it left yet?"}',
        '["Where is it?", "Has it left yet?", "And n',
        "1. Where is it?\n2. Has it left yet?",
        "Here are two:\n\n1) Where is it?\n2) Has it left yet?\n",
        '- "Where is it?"\n- "Has it left yet?"',
        "* Where is it?\n\n* Has it left yet?",
        "Where is it?\n\nHas it left yet?",
        "Where is it?\nHas it left yet?",
        "<text>Where is it?</text>\n<text>Has it left yet?</text>",
    ],
)
def test_two_texts(reply: str) -> None:
    assert read_texts(reply, 2) == WANTED


def test_no_more_than_asked_for_and_none_of_nothing() -> None:
    assert read_texts("1. a\n2. b\n3. c", 2) == ["a", "b"]
    assert read_texts("", 2) == []
    assert read_texts('["", " "]', 2) == []


def test_one_text_may_have_several_lines() -> None:
    text = "Premise: it rains.\n\nHypothesis: it is wet."
    assert read_texts(text, 1) == [text]
    assert read_texts(f'["{text}"]'.replace("\n", "\\n"), 1) == [text]
    assert read_texts("1. Premise: a\nHypothesis: b\n2. Premise: c\nHypothesis: d", 2) == [
        "Premise: a\nHypothesis: b",
        "Premise: c\nHypothesis: d",
    ]


def test_quotes_inside_a_text_stay() -> None:
    assert read_texts('["He said \\"no\\""]', 1) == ['He said "no"']
    assert read_texts('"a" and "b"', 1) == ['"a" and "b"']
    assert read_texts("“Where is it?”", 1) == ["Where is it?"]
