"""Which language a text is in, by py3langid, whose model of 97 languages lies in its wheel."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from slmops.errors import MissingExtraError

_LEAST_LETTERS = 40
"""Shorter texts are guesses."""

_LEAST_SHARE = 0.95
_LONGEST = 600
_NOISE = re.compile(r"```.*?```|`[^`\n]*`|https?://\S+|\S+@\S+|<[^>\n]{1,60}>|\{[^{}\n]{0,60}\}|\d+", re.DOTALL)
_NAMES = (
    *("english", "german", "french", "spanish", "italian", "portuguese", "dutch", "polish", "russian", "ukrainian", "chinese"),
    *("mandarin", "japanese", "korean", "arabic", "hindi", "turkish", "swedish", "danish", "norwegian", "finnish", "czech"),
    *("greek", "hebrew", "latin", "romanian", "hungarian", "vietnamese", "thai", "indonesian", "bengali", "urdu", "persian"),
    *("deutsch", "englisch", "französisch", "spanisch", "anglais", "allemand", "français", "espagnol", "inglés", "español"),
)
_SPEAKS_OF_LANGUAGE = re.compile(
    rf"\b(?:{'|'.join(_NAMES)}|translat\w*|übersetz\w*|tradui\w*|traduc\w*|languages?)\b", re.IGNORECASE
)


class Languages:
    """Tells languages.

    Args:
        wanted: What answers are held to: ``prompt`` for the question's language, ``any``, with which no language is told
            at all, or the code of a language.
    """

    def __init__(self, wanted: str = "prompt") -> None:
        self.wanted = wanted

    def of(self, text: str) -> str | None:
        """The ISO 639-1 code of a text's language; ``None`` where it is too short or could be several.

        Raises:
            MissingExtraError: py3langid is not installed.
        """
        if self.wanted == "any":
            return None
        plain = " ".join(_NOISE.sub(" ", text).split())[:_LONGEST]
        if sum(map(str.isalpha, plain)) < _LEAST_LETTERS:
            return None
        code, share = _model().classify(plain)
        return str(code) if share >= _LEAST_SHARE else None

    def mismatch(self, question: str, answer: str) -> str | None:
        """Why an answer's language is wrong, or ``None``.

        Args:
            question: What was asked; one that names a language or asks for a translation may be answered in any.
            answer: What was answered.
        """
        by_prompt = self.wanted == "prompt"
        if self.wanted == "any" or (by_prompt and _SPEAKS_OF_LANGUAGE.search(question)):
            return None
        expected = self.of(question) if by_prompt else self.wanted
        found = self.of(answer) if expected else None
        if found is None or found == expected:
            return None
        return f"language: the answer is in {found!r}, expected is {expected!r}"


@cache
def _model() -> Any:
    """The identifier; once a process, since reading it takes half a second."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError as error:
        raise MissingExtraError("py3langid", "quality", without="language: any tells none") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
