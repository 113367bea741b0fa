"""File formats: JSON lines, JSON, CSV, TSV, CoNLL, Parquet and Arrow become records with the line they stand on.

The content decides; a file's ending only settles what the content leaves open. A record that cannot be read is kept with
the reason, and reading goes on behind it.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slmops.data.columnar import format_of, read_columnar
from slmops.data.records import Record, Table
from slmops.data.tagged import fields_of, is_tagged, sentences
from slmops.errors import DataError, at, nearest

NOT_UTF8 = "not UTF-8; if the file is latin-1, convert it with iconv -f latin1 -t utf-8"
_LONGEST_RECORD = 1000
"""Lines of one quoted CSV record; a quote that is never closed would otherwise swallow the rest of the file."""
_SINGLE_COLUMN = "\x1f"
_BAD_BYTE = re.compile("[\udc80-\udcff]")
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_BETWEEN = re.compile(r"[\s,:]*")
_JSON_START = re.compile(r'\s*(\[\s*[{\]]|\{\s*["}])')
_LINE_ENDINGS = (".jsonl", ".ndjson")
_WELL_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_OTHER_KINDS = (
    (b"\xff\xfe", "UTF-16 text", "convert it with iconv -f utf-16 -t utf-8"),
    (b"\xfe\xff", "UTF-16 text", "convert it with iconv -f utf-16 -t utf-8"),
    (b"PK\x03\x04", "a ZIP file or an Excel workbook", "unpack it, or save the sheet as CSV"),
    (b"\x1f\x8b", "a gzip file", "unpack it with gunzip"),
)


def read_table(path: Path, names: Sequence[str] = ()) -> Table:
    """Read a data file of any known format.

    Args:
        path: The file.
        names: The columns of a CSV or TSV file that has no header.

    Raises:
        DataError: No such file, empty, of a format that is not read here, or JSON that is broken as a whole.
        MissingExtraError: A Parquet or Arrow file, and pyarrow is not installed.
    """
    if (columnar := format_of(path)) is not None:
        return Table(path, columnar, "UTF-8", read_columnar([path]))
    data = _bytes(path)
    _refuse_other_kinds(path, data)
    text, encoding = _decode(data)
    if not text.strip():
        raise DataError("the file is empty", where=str(path), fix="give a file with one example a line")
    if _is_json(text, path.suffix.lower()):
        if _holds_json_lines(text, path.suffix.lower()):
            return Table(path, "JSON lines", encoding, list(_json_lines(text)))
        return Table(path, "JSON", encoding, list(_json_document(path, text)))
    lines = text.split("\n")
    if not names and is_tagged(lines):
        return Table(path, "CoNLL", encoding, list(_tagged(lines)))
    delimiter = _delimiter(lines, path.suffix.lower())
    header, records = _delimited(path, lines, delimiter, tuple(names))
    return Table(path, "TSV" if delimiter == "\t" else "CSV", encoding, records, header)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        siblings = [file.name for file in path.parent.iterdir() if file.is_file()] if path.parent.is_dir() else []
        fix = nearest(path.name, siblings) if siblings else f"there is no folder {path.parent}, or nothing is in it"
        raise DataError("no such file", where=str(path), fix=fix) from error
    except OSError as error:
        raise DataError(
            f"the file cannot be read: {error.strerror}", where=str(path), fix="give the path of a data file"
        ) from error


def _refuse_other_kinds(path: Path, data: bytes) -> None:
    formats = "JSON lines, JSON, CSV, TSV, Parquet and Arrow can be read"
    for magic, name, fix in _OTHER_KINDS:
        if data.startswith(magic):
            raise DataError(f"this is {name}", where=str(path), fix=f"{fix}; {formats}")
    if b"\0" in data[:4096]:
        raise DataError("this is a binary file", where=str(path), fix=formats)


def _decode(data: bytes) -> tuple[str, str]:
    """Text and encoding; bytes that are not UTF-8 become lone surrogates, which ``_BAD_BYTE`` finds again."""
    name = "UTF-8 with a byte order mark" if data.startswith(b"\xef\xbb\xbf") else "UTF-8"
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode("utf-8"), name
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape"), f"{name} with bytes that are not"


def _readable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _is_json(text: str, suffix: str) -> bool:
    if _JSON_START.match(text) or _first_lines(text)[1]:
        return True
    if suffix not in (".json", *_LINE_ENDINGS):
        return False
    return text.lstrip()[0] in "[{" or _delimiter(text.split("\n"), suffix) == _SINGLE_COLUMN


def _holds_json_lines(text: str, suffix: str) -> bool:
    lines, most_are_objects = _first_lines(text)
    if len(lines) == 1 and most_are_objects:
        return _list_key(_parsed(lines[0])) is None
    if most_are_objects or _parsed(text) is not None:
        return most_are_objects
    opens_a_list = lines[0].startswith("[") or lines[0].endswith(("[", "{", ","))
    return suffix in _LINE_ENDINGS or (not opens_a_list and any(isinstance(_parsed(line), dict) for line in lines))


def _first_lines(text: str) -> tuple[list[str], bool]:
    """The first lines that are not blank, and whether most of them look like an object each."""
    lines = [line for line in (line.strip() for line in text[:500_000].split("\n")) if line][:20]
    return lines, sum(line.startswith("{") and line.endswith("}") for line in lines) * 2 > len(lines)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _list_key(value: Any) -> str | None:
    """The key of the only list of rows in an object such as ``{"data": [...]}``; chat turns are no rows."""
    if not isinstance(value, dict):
        return None
    keys = [key for key, item in value.items() if isinstance(item, list) and item and all(isinstance(row, dict) for row in item)]
    return keys[0] if len(keys) == 1 and "role" not in value[keys[0]][0] else None


def _json_lines(text: str) -> Iterator[Record]:
    has_bad_bytes = _BAD_BYTE.search(text) is not None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        if has_bad_bytes and _BAD_BYTE.search(line):
            yield Record(number, None, NOT_UTF8, _readable(line))
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            yield Record(number, None, f"broken JSON: {error.msg} at column {error.colno}", line)
        except (ValueError, RecursionError) as error:
            yield Record(number, None, f"broken JSON: {error}", line)
        else:
            yield _object(number, value, line)


def _object(number: int, value: Any, raw: str) -> Record:
    if isinstance(value, dict):
        if "\\u" in raw and any(_HALF_PAIR.search(key) for key in value):
            return Record(number, None, "half a character: the name of a field holds one half of a surrogate pair", raw)
        return Record(number, value)
    return Record(number, None, f"not an object: a row is {{...}} with named fields, this is a {type(value).__name__}", raw)


def _json_document(path: Path, text: str) -> Iterator[Record]:
    """The objects of an array, or of the only list inside an object, each with the line it begins on."""
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"broken JSON: {error.msg} (line {error.lineno}, column {error.colno})",
            where=f"{at(path, error.lineno)}:{error.colno}",
            fix="mend it there, or write one object a line (JSON lines), where a broken row costs only itself",
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"broken JSON: {error}", where=str(path), fix="write one object a line (JSON lines)") from error
    key = _list_key(whole)
    if key is None and not isinstance(whole, list):
        yield _object(1, whole, text)
        return
    decoder = json.JSONDecoder()
    position = _skip(text, 0) + 1 if key is None else _list_start(text, key)
    line, counted = 1, 0
    while text[position := _skip(text, position)] != "]":
        line, counted = line + text.count("\n", counted, position), position
        value, end = decoder.raw_decode(text, position)
        raw = text[position:end]
        bad = _BAD_BYTE.search(raw)
        if bad:
            yield Record(line + raw.count("\n", 0, bad.start()), None, NOT_UTF8, _readable(raw))
        else:
            yield _object(line, value, raw)
        position = end


def _list_start(text: str, key: str) -> int:
    """Position behind the bracket that opens the list of that key, in valid JSON."""
    decoder = json.JSONDecoder()
    position = _skip(text, 0) + 1
    while True:
        name, position = decoder.raw_decode(text, _skip(text, position))
        position = _skip(text, position)
        if name == key:
            return position + 1
        _, position = decoder.raw_decode(text, position)


def _skip(text: str, position: int) -> int:
    gap = _BETWEEN.match(text, position)
    return gap.end() if gap else position


def _delimiter(lines: list[str], suffix: str) -> str:
    """The delimiter by which most of the first records have as many columns as the header."""
    best, best_score = _SINGLE_COLUMN, (0.0, 0)
    for delimiter in "\t,;|" if suffix in (".tsv", ".tab") else ",;\t|":
        widths = [len(fields) for _, _, fields, _ in _quoted_rows(lines[:200], delimiter) if fields]
        if widths and widths[0] > 1:
            score = (round(sum(width == widths[0] for width in widths) / len(widths), 1), widths[0])
            if score > best_score:
                best, best_score = delimiter, score
    return best


def _tagged(lines: list[str]) -> Iterator[Record]:
    """A record a sentence: its words with single spaces between them, and the fields that the tags mark as JSON text."""
    for first, last, words, tags, problem in sentences(lines):
        raw = "\n".join(lines[first - 1 : last])
        if problem or _BAD_BYTE.search(raw):
            yield Record(first, None, problem or NOT_UTF8, _readable(raw))
        else:
            yield Record(first, {"text": " ".join(words), "entities": fields_of(words, tags)})


def _delimited(path: Path, lines: list[str], delimiter: str, given: tuple[str, ...] = ()) -> tuple[tuple[str, ...], list[Record]]:
    literal = delimiter == "\t" and _quotes_are_text(lines)
    rows = _split_rows(lines, delimiter) if literal else _quoted_rows(lines, delimiter)
    if given:
        return given, [_named(given, lines, *row) for row in rows]
    first, _, header, problem = next(rows, (1, 1, None, "it is empty"))
    names = tuple(name.strip() for name in header or ())
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        problem = f"the column {twice[0]!r} is named twice"
    elif _BAD_BYTE.search("".join(names)):
        problem = NOT_UTF8
    if problem:
        raise DataError(
            f"the header cannot be used: {problem}", where=at(path, first), fix="the first line has to name the columns"
        )
    return names, [_named(names, lines, *row) for row in rows]


def _named(names: tuple[str, ...], lines: list[str], first: int, end: int, fields: list[str] | None, problem: str) -> Record:
    if fields is not None and len(fields) != len(names):
        problem = f"wrong number of columns: {len(fields)} where the header has {len(names)}"
    elif fields is not None and any(_BAD_BYTE.search(field) for field in fields if not field.isascii()):
        problem = NOT_UTF8
    if fields is None or problem:
        return Record(first, None, problem, _readable("\n".join(lines[first - 1 : end])))
    return Record(first, dict(zip(names, fields, strict=True)))


_Fields = tuple[int, int, list[str] | None, str]
"""First and last line (from 1), fields (``None`` if broken), problem."""


def _split_rows(lines: list[str], delimiter: str) -> Iterator[_Fields]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, number, line.rstrip("\r").split(delimiter), ""


def _quoted_rows(lines: list[str], delimiter: str) -> Iterator[_Fields]:
    """Records as RFC 4180 has them; behind a quote that is never closed, reading goes on with the next line."""
    start = 0

    def feed() -> Iterator[str]:
        for index in range(start, len(lines)):
            if index - start >= _LONGEST_RECORD:
                raise csv.Error(f"a quote is not closed within {_LONGEST_RECORD} lines")
            yield lines[index] + "\n"

    reader, base = csv.reader(feed(), delimiter=delimiter, strict=True), 0
    while start < len(lines):
        first = start
        try:
            fields = next(reader)
        except csv.Error as error:
            start += 1
            reader, base = csv.reader(feed(), delimiter=delimiter, strict=True), start
            reason = "a quote is not closed" if "unexpected end" in str(error) else str(error)
            yield first + 1, start, None, f"broken CSV: {reason}"
        else:
            start = base + reader.line_num
            if len(fields) > 1 or any(field.strip() for field in fields):
                yield first + 1, start, fields, ""


def _quotes_are_text(lines: list[str]) -> bool:
    """Whether quotes in a TSV file are plain text (its original definition) instead of wrapping fields (as in CSV)."""
    split = [line.rstrip("\r").split("\t") for line in lines if line.strip()]
    if all(len(fields) == len(split[0]) for fields in split):
        return any(field.startswith('"') and not _WELL_QUOTED.fullmatch(field) for fields in split for field in fields)
    return any(fields is None for _, _, fields, _ in _quoted_rows(lines, "\t"))
