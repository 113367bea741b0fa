"""Rows from plain text, without questions or answers: the beginning of a passage, and how it goes on."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from slmops.data.folders import Part
from slmops.data.rows import Row
from slmops.data.sources import RawSplits
from slmops.data.textfiles import read_text
from slmops.errors import DataError, at
from slmops.files import digest

_WORD = re.compile(r"\S+")
_QUOTES = "\"'”’»)]"


class PlainText(BaseModel):
    """Passages of text files, one behind the other, each cut in two: what is there, and what is to be written.

    What is to be written ends with a sentence. White space inside a passage stays as it is; text in which no sentence ends
    in time, and what is left at the end of a file, is not used.

    Args:
        train: Text in UTF-8.
        validation: The same; drawn from the passages of ``train`` when left out.
        test: The same.
        prompt_words: Words that a passage begins with.
        answer_words: Least words that follow; at most there are twice as many.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: Path
    validation: Path | None = None
    test: Path | None = None
    prompt_words: int = Field(48, ge=1)
    answer_words: int = Field(24, ge=1)

    def fingerprint(self) -> str:
        """Hash of the options and of the files' contents."""
        files = {"train": self.train, "validation": self.validation, "test": self.test}
        return digest(
            [self.prompt_words, self.answer_words, {role: Part.at(path).digest() for role, path in files.items() if path}]
        )

    def read(self) -> RawSplits:
        """Read all files.

        Raises:
            DataError: A file cannot be read, is not UTF-8 or too short for a passage.
        """
        train, validation, test = (self._passages(path) if path else [] for path in (self.train, self.validation, self.test))
        return RawSplits(train, [], validation, test)

    def _passages(self, path: Path) -> list[Row]:
        text = read_text(path)
        words = list(_WORD.finditer(text))
        whole = self.prompt_words + self.answer_words
        rows, line, counted, start = [], 1, 0, 0
        while start + whole <= len(words):
            first, cut = words[start], words[start + self.prompt_words - 1]
            ends = range(start + whole - 1, min(start + whole + self.answer_words, len(words)))
            last = next((place for place in ends if words[place].group().rstrip(_QUOTES).endswith((".", "!", "?"))), None)
            start = (ends[-1] if last is None else last) + 1
            if last is None:
                continue
            line, counted = line + text.count("\n", counted, first.start()), first.start()
            question, answer = text[first.start() : cut.end()], text[cut.end() : words[last].end()].strip()
            rows.append(Row.of(question, answer, at(path, line)))
        if not rows:
            what = f"{len(words):,} words hold no passage of {whole:,} that ends with a sentence"
            raise DataError(what, where=str(path), fix="give more text, or shorter passages: prompt_words and answer_words")
        return rows
