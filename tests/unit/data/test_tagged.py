"""Tags mark fields, whatever the scheme; paths and lists lead into records; files without a header are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from given_files import given, read, reasons

from slmops.data.readers import NOT_UTF8, read_table
from slmops.data.sources import detect
from slmops.data.tagged import fields_of
from slmops.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("tags", "fields"),
    [
        ("O B-place I-place O B-place", {"place": ["New York", "Rome"]}),
        ("O B-place B-place O S-place", {"place": ["New", "York", "Rome"]}),
        ("O I-place I-place O I-name", {"place": ["New York"], "name": ["Rome"]}),
        ("O B-place E-place U-name B-name", {"place": ["New York"], "name": ["and", "Rome"]}),
        ("O place place O name", {"place": ["New York"], "name": ["Rome"]}),
        ("O O O O O", {}),
    ],
)
def test_tags_mark_fields(tags: str, fields: dict[str, list[str]]) -> None:
    assert json.loads(fields_of(["to", "New", "York", "and", "Rome"], tags.split())) == fields


CONLL = "-DOCSTART- O\n\nto O\nRome B-place\n. O\n\n \nEU S-org\nbarks\n\nhi\tO\nRené\tB-name\n"


def test_a_file_of_tagged_words_is_read_sentence_by_sentence(tmp_path: Path) -> None:
    lines = CONLL + "so O\n" * 20
    splits = read(tmp_path, lines, "train.txt")
    assert [(row.question, row.answer) for row in splits.labelled][:1] == [("to Rome .", '{"place": ["Rome"]}')]
    assert [(bad.origin, bad.reason) for bad in splits.rejected] == [(f"{tmp_path / 'train.txt'}:8", "no tag: the word 'barks'")]
    assert detect(tmp_path / "train.txt").format == "CoNLL"
    table = read_table(given(tmp_path, lines.encode("latin-1"), "latin.txt"))
    assert [(record.line, record.problem) for record in table.records if record.problem][-1] == (11, NOT_UTF8)


def test_a_column_of_tags_becomes_the_answer(tmp_path: Path) -> None:
    rows = [
        {"said": "to New York", "slots": "O city city", "intent": "go"},
        {"said": "hello", "slots": "O", "intent": "hi"},
        {"said": "to Rome", "slots": "O", "intent": "go"},
    ]
    splits = read(tmp_path, rows, input_field="said", tags_field="slots")
    assert [row.answer for row in splits.labelled] == ['{"city": ["New York"]}', "{}"]
    assert reasons(splits) == ["wrong number of tags: 1 in 'slots' for 2 words"]
    with pytest.raises(DataError, match="no column 'slot', which tags_field names"):
        read(tmp_path, rows, input_field="said", tags_field="slot")
    with pytest.raises(ConfigError, match="tags_field and answer_field exclude each other"):
        read(tmp_path, rows, input_field="said", tags_field="slots", answer_field="intent")


def test_a_text_in_pieces_is_put_together_and_its_entities_are_the_answer(tmp_path: Path) -> None:
    pieces = [{"text": "to "}, {"text": "Rome", "entity": "city"}, {"text": " or "}, {"text": "Bonn", "entity": "city"}]
    content = json.dumps({"Travel": [{"data": pieces}, {"data": [{"text": "hello"}]}, {"data": [{"text": " "}]}, {"data": "x"}]})
    splits = read(tmp_path, content, "train.json")
    assert [(row.question, row.answer) for row in splits.labelled] == [
        ("to Rome or Bonn", '{"city": ["Rome", "Bonn"]}'),
        ("hello", "{}"),
    ]
    assert reasons(splits) == ["empty field 'data'", "wrong type: the field 'data' is no list of pieces with a text"]


@pytest.mark.parametrize(
    ("row", "options", "question", "answer"),
    [
        (
            {"q": {"stem": "Who?", "choices": [{"label": "A", "text": "Ann"}, {"label": "B", "text": "Bo"}]}, "key": "B"},
            {"input_field": "q.stem,q.choices", "answer_field": "key"},
            "stem: Who?\nchoices:\n(A) Ann\n(B) Bo",
            "B",
        ),
        (
            {"source": ["One.", " Two."], "target": ["", "Sum.", "Other."]},
            {"input_field": "source", "answer_field": "target"},
            "One. Two.",
            "Sum.",
        ),
        (
            {"instruction": "Say it.", "instances": [{"input": "", "output": "It."}]},
            {"input_field": "instruction,instances.0.input", "answer_field": "instances.0.output"},
            "Say it.",
            "It.",
        ),
        ({"text": "to Rome", "slots": {"city": "Rome"}}, {"answer_field": "slots"}, "to Rome", '{"city": "Rome"}'),
        ({"a.b": "plain", "y": "z"}, {"input_field": "a.b", "answer_field": "y"}, "plain", "z"),
    ],
)
def test_paths_and_lists_lead_into_records(
    tmp_path: Path, row: dict[str, Any], options: dict[str, str], question: str, answer: str
) -> None:
    found, _ = read(tmp_path, [row, row], **options).labelled
    assert (found.question, found.answer) == (question, answer)


def test_a_path_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    rows = [{"q": {"stem": "Who?"}, "a": "x"}, {"q": {"stam": "Who?"}, "a": "x"}, {"q": {"stem": None}, "a": "x"}]
    splits = read(tmp_path, rows, input_field="q.stem", answer_field="a")
    assert reasons(splits) == ["missing field 'q.stem'", "empty field 'q.stem'"]
    with pytest.raises(DataError, match=r"no column 'q\.root', which input_field names"):
        read(tmp_path, rows, input_field="q.root", answer_field="a")


def test_further_texts_of_a_list_are_as_right(tmp_path: Path) -> None:
    rows = [{"source": "One.", "target": ["", "Sum.", "Other.", "Sum. "]}, {"source": "Two.", "target": ["Sum."]}]
    splits = read(tmp_path, rows, input_field="source", answer_field="target")
    assert [row.answers for row in splits.labelled] == [("Sum.", "Other."), ("Sum.",)]


def test_lists_of_other_things_are_bad_rows(tmp_path: Path) -> None:
    rows = [{"source": ["One."], "target": ["x"]}, {"source": ["One.", 2], "target": ["x"]}, {"source": ["One."], "target": [2]}]
    splits = read(tmp_path, rows, input_field="source", answer_field="target")
    assert reasons(splits) == [
        "wrong type: the field 'source' holds a list that is neither texts nor choices with label and text",
        "wrong type: the answer 'target' is a list, not text",
    ]


def test_a_file_without_a_header_has_its_columns_named_and_the_reasoning_before_the_answer(tmp_path: Path) -> None:
    content = "Is it wet?\tyes\tIt rains.\nIs it dry?\tno\t \nIs it hot?\n"
    options = {"column_names": ("q", "a", "why"), "input_field": "q", "answer_field": "a"}
    splits = read(tmp_path, content, "train.tsv", **options, rationale_field="why")
    assert [row.answer for row in splits.labelled] == ["It rains.\nAnswer: yes", "no"]
    assert reasons(splits) == ["wrong number of columns: 1 where the header has 3"]
    assert [row.answer for row in read(tmp_path, content, "train.tsv", **options).labelled] == ["yes", "no"]
