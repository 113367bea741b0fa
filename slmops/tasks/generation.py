"""Generation: free text or code on request."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from slmops.tasks.assertions import Assertion, check
from slmops.tasks.base import AnswerError
from slmops.tasks.jsontext import unfenced
from slmops.tasks.prompts import Prompted
from slmops.tasks.scores import exact_match, mean_token_f1, same_text


class Generation(Prompted):
    """Text that follows an instruction, checked by what the user asserts.

    Args:
        output: ``text``, or ``python``: the code of the longest code fence (or the whole answer), which must parse. Nothing of
            it is run.
        assertions: What must hold for an answer.
    """

    output: Literal["text", "python"] = Field("text", description="What an answer is; python must parse, it is not run")
    assertions: tuple[Assertion, ...] = Field((), description="What must hold for an answer")

    @property
    def primary_measure(self) -> str:
        """The measure that decides."""
        return "token_f1"

    def own_prompt(self) -> str:
        """What the teacher is told where neither recipe nor row says it; nothing for text."""
        return "Answer with Python code alone, in one code block." if self.output == "python" else ""

    def parse(self, text: str) -> str:
        """The text or the code; raises :class:`AnswerError` where it is empty, does not parse or fails an assertion."""
        answer = super().parse(text)
        if self.output == "python":
            answer = unfenced(answer, ("python", "py", "python3"))
            _tree(answer)
        return check(self.assertions, answer)

    def correct(self, answer: str, reference: str) -> bool:
        """Whether two texts are the same but for case, punctuation and articles; code, but for comments and layout."""
        read = self.read(answer)
        if read is None:
            return False
        expected = self.parse(reference)
        return _tree(read) == _tree(expected) if self.output == "python" else same_text(read, expected)

    def score(self, answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Token F1, share of equal answers, share of valid ones; an invalid answer counts as an empty one."""
        read, expected = [self.read(answer) or "" for answer in answers], [self.parse(reference) for reference in references]
        if self.output == "python":
            equal = sum(self.correct(answer, reference) for answer, reference in zip(answers, references, strict=True))
            exact = equal / max(len(answers), 1)
        else:
            exact = exact_match(read, expected)
        return {
            "token_f1": mean_token_f1(read, expected),
            "exact_match": exact,
            "valid_share": self.valid_share(answers),
        }


def _tree(code: str) -> str:
    """The syntax tree as text.

    Raises:
        AnswerError: It is no Python, or has no statement.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(code)
            found = ast.dump(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        raise AnswerError(f"not Python: {getattr(error, 'msg', error)}" + (f" (line {line})" if line else "")) from error
    if not tree.body:
        raise AnswerError("not Python: no statement")
    return found
