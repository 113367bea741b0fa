"""Files of every format become records with their lines; what cannot be read is kept with the reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from slmops.data.readers import NOT_UTF8, read_table
from slmops.data.records import Table
from slmops.errors import DataError, MissingExtraError

_NO_PYARROW = "the extra 'parquet' is not installed"
ROWS = [{"text": "where is my parcel?", "label": "delivery"}, {"text": "money back, please", "label": "refund"}]


def given(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def values(table: Table) -> list[object]:
    return [record.values for record in table.records]


def problems(table: Table) -> list[tuple[int, str]]:
    return [(record.line, record.problem) for record in table.records if record.values is None]


LINES = "\n".join(json.dumps(row) for row in ROWS)
CSV = 'text,label\nwhere is my parcel?,delivery\n"money back, please",refund\n'


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("rows.jsonl", LINES, "JSON lines"),
        ("rows.json", LINES, "JSON lines"),  # the ending lies
        ("rows.txt", LINES, "JSON lines"),
        ("rows.csv", LINES, "JSON lines"),
        ("rows.json", json.dumps(ROWS), "JSON"),
        ("rows.jsonl", json.dumps(ROWS, indent=2), "JSON"),
        ("rows.json", json.dumps({"version": 1, "data": ROWS}), "JSON"),
        ("rows.json", json.dumps({"data": ROWS}, indent=1), "JSON"),
        ("rows.csv", CSV, "CSV"),
        ("rows.jsonl", CSV, "CSV"),
        ("rows.txt", CSV, "CSV"),
        ("rows.csv", CSV.replace("\n", "\r\n"), "CSV"),
        ("rows.csv", "text;label\nwhere is my parcel?;delivery\nmoney back, please;refund\n", "CSV"),
        ("rows.tsv", "text\tlabel\nwhere is my parcel?\tdelivery\nmoney back, please\trefund\n", "TSV"),
        ("rows.csv", "text\tlabel\nwhere is my parcel?\tdelivery\nmoney back, please\trefund\n", "TSV"),
    ],
)
def test_the_same_rows_come_out_of_every_format(tmp_path: Path, name: str, content: str, expected: str) -> None:
    table = read_table(given(tmp_path, name, content))
    assert values(table) == ROWS
    assert table.format == expected


def test_a_parquet_file_is_read_whatever_its_ending(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason=_NO_PYARROW)
    parquet = pytest.importorskip("pyarrow.parquet", reason=_NO_PYARROW)
    rows = [{"text": "a", "label": None}, {"text": "b", "label": "x"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.data")
    table = read_table(tmp_path / "rows.data")
    assert (table.format, values(table), [record.line for record in table.records]) == ("Parquet", rows, [1, 2])


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"slmops\[parquet\]"):
        read_table(given(tmp_path, "rows.parquet", b"PAR1...PAR1"))


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason=_NO_PYARROW)
    with pytest.raises(DataError, match=r"rows\.parquet: the Parquet file cannot be read"):
        read_table(given(tmp_path, "rows.parquet", b"PAR1...PAR1"))


def test_broken_lines_are_kept_with_line_and_column_and_the_good_ones_go_on(tmp_path: Path) -> None:
    content = b'{"text": "one"}\n\n{"text": "two"\n{"text": "caf\xe9"}\n["three"]\n{"text": "four"}\r\n'
    table = read_table(given(tmp_path, "rows.jsonl", content))
    assert [record.line for record in table.records] == [1, 3, 4, 5, 6]
    assert problems(table) == [
        (3, "broken JSON: Expecting ',' delimiter at column 15"),
        (4, NOT_UTF8),
        (5, "not an object: a row is {...} with named fields, this is a list"),
    ]
    assert table.records[1].raw == '{"text": "two"'
    assert table.records[2].raw == '{"text": "caf\ufffd"}'
    assert table.encoding == "UTF-8 with bytes that are not"


@pytest.mark.parametrize("broken", ['{"text": "a', "text: a", '{"text": "a" "b"}'])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_one_broken_line_of_two_is_still_only_a_bad_row(tmp_path: Path, name: str, broken: str) -> None:
    table = read_table(given(tmp_path, name, f'{broken}\n{{"text": "b"}}\n'))
    assert ([line for line, _ in problems(table)], table.records[1].values) == ([1], {"text": "b"})


@pytest.mark.parametrize("line", ["[" * 100_000, '{"n": ' + "1" * 5000 + "}", '{"a": 1} {"b": 2}'])
def test_a_line_that_upsets_the_json_parser_is_only_a_bad_row(tmp_path: Path, line: str) -> None:
    table = read_table(given(tmp_path, "rows.jsonl", f'{{"text": "a"}}\n{{"text": "b"}}\n{line}\n'))
    assert [line for line, _ in problems(table)] == [3]
    assert problems(table)[0][1].startswith("broken JSON: ")


def test_a_line_separator_inside_a_json_string_does_not_end_the_line(tmp_path: Path) -> None:
    table = read_table(given(tmp_path, "rows.jsonl", '{"text": "one\u2028still one\x85"}\n{"text": "two"}\n'))
    assert values(table) == [{"text": "one\u2028still one\x85"}, {"text": "two"}]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    table = read_table(given(tmp_path, "rows.csv", b"\xef\xbb\xbf" + CSV.encode()))
    assert values(table) == ROWS
    assert table.encoding == "UTF-8 with a byte order mark"


def test_objects_of_a_list_in_json_have_the_line_they_begin_on(tmp_path: Path) -> None:
    content = """{
 "note": "a \\"data\\": [ in a text", "meta": {"data": [1]},
 "data": [
  {
   "text": "a"
  },
  {"text": "b"}
]}"""
    table = read_table(given(tmp_path, "rows.json", content))
    assert [(record.line, record.values) for record in table.records] == [(4, {"text": "a"}), (7, {"text": "b"})]


def test_broken_json_that_is_one_document_says_line_and_column(tmp_path: Path) -> None:
    file = given(tmp_path, "rows.json", '[\n  {"text": "a"},\n  {"text": "b" "label": "c"}\n]')
    with pytest.raises(DataError) as raised:
        read_table(file)
    assert raised.value.where == f"{file}:3:16"
    assert "Expecting ',' delimiter (line 3, column 16)" in str(raised.value)


def test_a_row_of_a_json_array_that_is_not_utf8_is_set_aside_with_the_line_of_the_byte(tmp_path: Path) -> None:
    table = read_table(given(tmp_path, "rows.json", b'[\n{"text": "a"},\n{"label": "x",\n"text": "caf\xe9"},\n{"text": "b"}\n]'))
    assert problems(table) == [(4, NOT_UTF8)]
    assert [record.line for record in table.records] == [2, 4, 5]


def test_a_quoted_csv_field_may_hold_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    table = read_table(given(tmp_path, "rows.csv", 'text,label\n"one,\n""two""",a\nthree,b\n'))
    assert [(record.line, record.values) for record in table.records] == [
        (2, {"text": 'one,\n"two"', "label": "a"}),
        (4, {"text": "three", "label": "b"}),
    ]


def test_bad_csv_rows_are_kept_with_their_lines_and_reading_goes_on(tmp_path: Path) -> None:
    content = b'text,label\nfine,a\nno label\ntoo,many,columns\ncaf\xe9,a\n"never closed,a\nfine too,b\n"closed" badly,a\nlast,a\n'
    table = read_table(given(tmp_path, "rows.csv", content))
    assert [record.values["text"] for record in table.records if record.values] == ["fine", "fine too", "last"]
    assert problems(table) == [
        (3, "wrong number of columns: 1 where the header has 2"),
        (4, "wrong number of columns: 3 where the header has 2"),
        (5, NOT_UTF8),
        (6, "broken CSV: ',' expected after '\"'"),
        (8, "broken CSV: ',' expected after '\"'"),
    ]
    assert table.records[4].raw == '"never closed,a'


def test_a_quote_that_is_never_closed_costs_its_own_line_only(tmp_path: Path) -> None:
    rows = "".join(f"row {number},a\n" for number in range(3000))
    table = read_table(given(tmp_path, "rows.csv", f'text,label\n"opened,a\n{rows}'))
    assert problems(table) == [(2, "broken CSV: a quote is not closed within 1000 lines")]
    assert len(table.records) == 3001


def test_a_file_with_one_column_keeps_its_commas(tmp_path: Path) -> None:
    table = read_table(given(tmp_path, "pool.csv", 'text\nhello, world; and you\n"quoted, too"\n'))
    assert values(table) == [{"text": "hello, world; and you"}, {"text": "quoted, too"}]


def test_quotes_in_a_tsv_file_are_text_unless_they_wrap_whole_fields(tmp_path: Path) -> None:
    plain = read_table(given(tmp_path, "plain.tsv", 'text\tlabel\n"Yes" he said\ta\n"so\tb\n'))
    assert [record.values["text"] for record in plain.records if record.values] == ['"Yes" he said', '"so']
    wrapped = read_table(given(tmp_path, "wrapped.tsv", 'text\tlabel\n"He said ""yes"""\ta\nso\tb\n'))
    assert [record.values["text"] for record in wrapped.records if record.values] == ['He said "yes"', "so"]
    across = read_table(given(tmp_path, "across.tsv", 'text\tlabel\n"one\ntwo"\ta\n"three\tfour"\tb\n'))
    assert [record.values["text"] for record in across.records if record.values] == ["one\ntwo", "three\tfour"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"", "the file is empty"),
        ("rows.jsonl", b" \n\n", "the file is empty"),
        ("rows.csv", "text,label\n".encode("utf-16"), "this is UTF-16 text"),
        ("rows.csv", b"PK\x03\x04....", "Excel"),
        ("rows.jsonl.gz", b"\x1f\x8b....", "gunzip"),
        ("rows.bin", b"a\0b", "binary"),
        ("rows.csv", b"text,text\na,b\n", "the column 'text' is named twice"),
        ("rows.csv", b"t\xe9xt,label\na,b\n", "iconv -f latin1"),
    ],
)
def test_what_is_no_data_file_is_refused_with_what_it_is(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read_table(given(tmp_path, name, content))
    assert str(tmp_path / name) in str(raised.value)


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    given(tmp_path, "train.jsonl", LINES)
    with pytest.raises(DataError, match=r"did you mean 'train\.jsonl'\?"):
        read_table(tmp_path / "trian.jsonl")


def test_the_real_latin1_file_loses_one_row_and_says_which(shared_data: Path) -> None:
    table = read_table(shared_data / "extraction_snips" / "train_PlayMusic_full.json")
    assert len(table.records) == 2000
    [(line, problem)] = problems(table)
    assert problem == NOT_UTF8
    with pytest.raises(UnicodeDecodeError):
        table.path.read_bytes().split(b"\n")[line - 1].decode()
