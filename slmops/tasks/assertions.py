"""What a user asserts about an answer: a pattern, a length, or a function in a file of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import Field, field_validator, model_validator

from slmops.sections import Section
from slmops.tasks.base import AnswerError
from slmops.tasks.own import load_function


class Assertion(Section):
    """One thing that must hold for an answer. Give one or more of the fields; all of them must hold.

    Args:
        matches: A regular expression that is found in the answer.
        lacks: A regular expression that is not.
        max_words: Most words.
        function: ``path/to/file.py:name`` of a function that takes the answer and returns whether it will do, or the reason
            why not as a text; that file's code runs.
    """

    matches: str | None = Field(None, description="Regular expression that is found in the answer")
    lacks: str | None = Field(None, description="Regular expression that is not found in it")
    max_words: int | None = Field(None, ge=1, description="Most words of the answer")
    function: str | None = Field(None, description="path/to/file.py:name of a function that judges the answer")

    @field_validator("matches", "lacks")
    @classmethod
    def _is_a_pattern(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _says_something(self) -> Assertion:
        if all(value is None for value in (self.matches, self.lacks, self.max_words, self.function)):
            raise ValueError("an assertion needs one of matches, lacks, max_words, function")
        return self

    def failure(self, answer: str) -> str | None:
        """Why it does not hold, or ``None``.

        Raises:
            ConfigError: The function cannot be loaded.
        """
        if self.matches is not None and not re.search(self.matches, answer):
            return f"does not match {self.matches!r}"
        if self.lacks is not None and re.search(self.lacks, answer):
            return f"matches {self.lacks!r}"
        if self.max_words is not None and len(answer.split()) > self.max_words:
            return f"{len(answer.split())} words where {self.max_words} are allowed"
        return self._verdict(answer) if self.function is not None else None

    def _verdict(self, answer: str) -> str | None:
        function = load_function(str(self.function))
        try:
            verdict: Any = function(answer)
        except Exception as error:  # whatever the user's code raises is said of this answer alone
            return f"{self.function} failed: {type(error).__name__}: {error}"
        if isinstance(verdict, str):
            return verdict or None
        return None if verdict is None or verdict else f"{self.function} refuses it"


def check(assertions: Iterable[Assertion], answer: str) -> str:
    """The answer, where all assertions hold.

    Raises:
        AnswerError: The first that does not.
    """
    for assertion in assertions:
        failure = assertion.failure(answer)
        if failure:
            raise AnswerError(f"assertion: {failure}")
    return answer
