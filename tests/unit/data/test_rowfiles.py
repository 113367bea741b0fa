"""What makes a row bad, and where rows without an answer go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from given_files import given, read, reasons, user

from slmops.data.readers import NOT_UTF8
from slmops.data.sources import FilesSource
from slmops.errors import DataError

# ---- bad rows

BAD_LINES: list[tuple[bytes, str]] = [
    (b'{"text": "broken", "label": "a"', "broken JSON: Expecting ',' delimiter at column 32"),
    (b'["text", "label"]', "not an object: a row is {...} with named fields, this is a list"),
    (b'{"text": "caf\xe9", "label": "a"}', NOT_UTF8),
    (b'{"label": "a"}', "missing field 'text'"),
    (b'{"text": null, "label": "a"}', "empty field 'text'"),
    (b'{"text": "  ", "label": "a"}', "empty field 'text'"),
    (b'{"text": 7, "label": "a"}', "wrong type: the field 'text' holds a number, not text"),
    (b'{"text": ["x"], "label": "a"}', "wrong type: the field 'text' holds a list, not text"),
    (
        b'{"text": "half \\ud83d", "label": "a"}',
        "half a character: the field 'text' holds one half of a surrogate pair, which no encoding can write",
    ),
    (b'{"te\\ud83dxt": "b", "label": "a"}', "half a character: the name of a field holds one half of a surrogate pair"),
    (b'{"text": "no label"}', "missing field 'label'"),
    (b'{"text": "empty label", "label": ""}', "empty answer: field 'label'; null says that there is none"),
    (b'{"text": "blank label", "label": " "}', "empty answer: field 'label'; null says that there is none"),
    (b'{"text": "list", "label": ["a"]}', "wrong type: the answer 'label' is a list, not text"),
    (b'{"text": "object", "label": {"a": 1}}', "wrong type: the answer 'label' is an object, not text"),
]


def test_every_kind_of_bad_row_is_set_aside_with_its_line_and_the_good_rows_stay(tmp_path: Path) -> None:
    lines = [b'{"text": "first", "label": "a"}', *(line for line, _ in BAD_LINES), b'{"text": "last", "label": "b"}']
    splits = read(tmp_path, b"\n".join(lines))
    assert [row.question for row in splits.labelled] == ["first", "last"]
    assert splits.pool == []
    file = tmp_path / "train.jsonl"
    expected = [(f"{file}:{number}", reason) for number, (_, reason) in enumerate(BAD_LINES, 2)]
    assert [(bad.origin, bad.reason) for bad in splits.rejected] == expected
    json.dumps([bad.as_dict() for bad in splits.rejected], ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ("hi", "wrong type: the field 'messages' holds text, not a list of turns"),
        ([], "empty field 'messages'"),
        (None, "missing field 'messages'"),
        (["hi"], "wrong type: turn 1 of 'messages' is text, not an object"),
        ([{"role": "tool", "content": "x"}], "unknown role: 'tool' in turn 1 of 'messages'; known are system, user, assistant"),
        ([{"content": "x"}], "unknown role: None in turn 1 of 'messages'; known are system, user, assistant"),
        ([user("hi"), {"role": "assistant", "content": None}], "wrong type: 'content' in turn 2 of 'messages' is null, not text"),
        ([{"role": "user", "content": [{"type": "text"}]}], "wrong type: 'content' in turn 1 of 'messages' is a list, not text"),
        ([user(" "), user("hi")], "empty turn: 'content' in turn 1 of 'messages'"),
        ([user("hi"), {"role": "assistant", "content": ""}], "empty answer: the last assistant turn; null says that there is none"),
        ([{"role": "system", "content": "x"}], "no question: in 'messages' no user turn stands before the answer"),
        ([{"role": "assistant", "content": "x"}], "no question: in 'messages' no user turn stands before the answer"),
    ],
)
def test_a_bad_conversation_is_set_aside(tmp_path: Path, messages: Any, reason: str) -> None:
    good = {"messages": [user("hi"), {"role": "assistant", "content": "hello"}]}
    splits = read(tmp_path, [good, {"messages": messages}, good])
    assert len(splits.labelled) == 2
    assert reasons(splits) == [reason]


def test_a_conversation_with_two_answers_is_set_aside(tmp_path: Path) -> None:
    rows = [{"messages": [user("a")], "label": "x"}, {"messages": [user("b")], "label": "y"}]
    both = {"messages": [user("c"), {"role": "assistant", "content": "z"}], "label": "y"}
    assert reasons(read(tmp_path, [*rows, both])) == ["two answers: the last turn of 'messages' and the field 'label'"]


def test_a_row_that_is_cut_in_the_report_keeps_its_start(tmp_path: Path) -> None:
    [bad] = read(tmp_path, [{"text": "a", "label": "b"}, {"text": "x" * 5000, "label": ""}]).rejected
    assert len(bad.raw) == 2001
    assert bad.raw.startswith('{"text": "xxx')


# ---- rows without an answer


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_null_for_an_answer_puts_a_row_into_the_pool(tmp_path: Path, nothing: float | None) -> None:
    splits = read(tmp_path, [{"text": "a", "label": "x"}, {"text": "b", "label": nothing}])
    assert ([row.question for row in splits.labelled], [row.question for row in splits.pool]) == (["a"], ["b"])


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": "a"}, {"text": "b"}],
        [{"text": "a", "label": None}, {"text": "b", "label": ""}, {"text": "c"}],
    ],
)
def test_a_file_without_any_answer_is_a_pool(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    splits = read(tmp_path, rows)
    assert (len(splits.labelled), len(splits.pool), splits.rejected) == (0, len(rows), [])


def test_answers_in_the_pool_file_are_not_read(tmp_path: Path) -> None:
    train = given(tmp_path, [{"text": "a", "label": "x"}])
    pool = given(tmp_path, [{"text": "b", "label": "x"}, {"text": "c"}, {"text": "d", "label": ["odd"]}], "pool.jsonl")
    splits = FilesSource(train=train, pool=pool).read()
    assert [(row.question, row.answer) for row in splits.pool] == [("b", None), ("c", None), ("d", None)]


def test_every_row_of_validation_and_test_needs_an_answer(tmp_path: Path) -> None:
    train = given(tmp_path, [{"text": "a", "label": "x"}])
    others = [{"text": "b", "label": "x"}, {"text": "c", "label": None}, {"text": "d"}]
    validation, test = given(tmp_path, others, "validation.jsonl"), given(tmp_path, others[:2], "test.jsonl")
    splits = FilesSource(train=train, validation=validation, test=test).read()
    assert ([row.question for row in splits.validation], [row.question for row in splits.test]) == (["b"], ["b"])
    assert [bad.origin for bad in splits.rejected] == [f"{validation}:2", f"{validation}:3", f"{test}:2"]
    assert reasons(splits)[0] == "no answer: field 'label'; every row of a validation file needs one"


def test_a_test_file_without_any_answer_is_refused(tmp_path: Path) -> None:
    train = given(tmp_path, [{"text": "a", "label": "x"}])
    test = given(tmp_path, [{"text": "b"}, {"text": "c"}], "test.jsonl")
    with pytest.raises(DataError, match=r"test\.jsonl: no row of the test file can be used") as raised:
        FilesSource(train=train, test=test).read()
    assert f"{test}:1: no answer" in str(raised.value)


def test_beside_unlabelled_training_rows_a_test_file_may_be_unlabelled_too(tmp_path: Path) -> None:
    train, test = given(tmp_path, [{"text": "a"}]), given(tmp_path, [{"text": "b"}, {"text": "c"}], "test.jsonl")
    some = given(tmp_path, [{"text": "b"}, {"text": "d", "label": "x"}], "validation.jsonl")
    splits = FilesSource(train=train, validation=some, test=test).read()
    assert [(row.question, row.answer) for row in splits.test] == [("b", None), ("c", None)]
    assert [(row.question, row.answer) for row in splits.validation] == [("d", "x")]
    assert [bad.origin for bad in splits.rejected] == [f"{some}:1"]


def test_the_other_files_are_read_like_the_train_file_though_they_are_smaller(tmp_path: Path) -> None:
    train = given(tmp_path, [{"said": f"phrase {n}", "tone": tone} for n, tone in enumerate(["joy", "fear"] * 3)])
    test = given(tmp_path, [{"tone": "joy", "said": "hooray"}], "test.jsonl")
    pool = given(tmp_path, "nr,said\n1,more\n2,and more\n", "pool.csv")
    splits = FilesSource(train=train, test=test, pool=pool).read()
    assert [(row.question, row.answer) for row in splits.test] == [("hooray", "joy")]
    assert [row.question for row in splits.pool] == ["more", "and more"]


def test_a_train_file_without_answers_goes_with_a_test_file_that_has_them(tmp_path: Path) -> None:
    train = given(tmp_path, [{"text": "a"}, {"text": "b"}])
    test = given(tmp_path, [{"text": "c", "label": "x"}], "test.jsonl")
    splits = FilesSource(train=train, test=test).read()
    assert (len(splits.pool), splits.test[0].answer) == (2, "x")
