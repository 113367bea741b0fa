"""Files of plain text."""

from __future__ import annotations

from pathlib import Path

from slmops.errors import DataError


def read_text(file: Path) -> str:
    """The text of a file in UTF-8, without a byte order mark.

    Raises:
        DataError: It cannot be read, or is not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", where=str(file), fix="check the path") from error
    except UnicodeDecodeError as error:
        raise DataError("the file is not UTF-8", where=str(file), fix="convert it with iconv -t utf-8") from error


def read_whole_text(file: Path) -> str:
    """The same, where an empty file is an error.

    Raises:
        DataError: There is no text in it either.
    """
    text = read_text(file)
    if not text.strip():
        raise DataError("there is no text in it", where=str(file), fix="give another file")
    return text
