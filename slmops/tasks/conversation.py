"""Conversation: several turns, of which every one of the assistant is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from slmops.data.rows import Row
from slmops.tasks.assertions import Assertion, check
from slmops.tasks.base import AnswerError
from slmops.tasks.prompts import Prompted
from slmops.tasks.scores import exact_match, mean_token_f1, same_text


class Conversation(Prompted):
    """The assistant's next turn in a conversation.

    A judge that the recipe names (``evaluation.judge``) gives the win rate, which then decides; without one, token F1 does.

    Args:
        train_on: ``all`` the assistant's turns, each a training row of its own with the turns before it; or the ``last``.
        assertions: What must hold for an answer.
    """

    train_on: Literal["all", "last"] = Field("all", description="Which turns of the assistant are learned")
    assertions: tuple[Assertion, ...] = Field((), description="What must hold for an answer")

    @property
    def primary_measure(self) -> str:
        """The measure that decides where no judge is asked."""
        return "token_f1"

    def ask(self, row: Row) -> list[dict[str, str]]:
        """The conversation so far, with the teacher's prompt.

        Raises:
            AnswerError: The turns are not those of a conversation; the message says which.
        """
        problem = turn_problem(row.messages)
        if problem:
            raise AnswerError(f"turns: {problem}")
        return super().ask(row)

    def parse(self, text: str) -> str:
        """The turn without a role name before it; raises :class:`AnswerError` where it is empty or fails an assertion."""
        answer = super().parse(text)
        role, colon, rest = answer.partition(":")
        if colon and role.casefold() == "assistant":
            answer = super().parse(rest)
        return check(self.assertions, answer)

    def training_rows(self, row: Row, answer: str, rationale: str | None) -> list[Row]:
        """The row with the answer and, with ``train_on: all``, one for each earlier turn of the assistant."""
        rows = [row.with_answer(answer)]
        if self.train_on == "all":
            rows += [
                Row.of(row.messages[:place], turn["content"].strip(), row.origin)
                for place, turn in enumerate(row.messages)
                if turn["role"] == "assistant"
            ]
        return rows

    def correct(self, answer: str, reference: str) -> bool:
        """Whether a turn is the reference but for case, punctuation and articles."""
        read = self.read(answer)
        return read is not None and same_text(read, self.parse(reference))

    def score(self, answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Token F1, share of equal answers, share of valid ones; an invalid answer counts as an empty one."""
        read, expected = [self.read(answer) or "" for answer in answers], [self.parse(reference) for reference in references]
        return {
            "token_f1": mean_token_f1(read, expected),
            "exact_match": exact_match(read, expected),
            "valid_share": self.valid_share(answers),
        }


def turn_problem(messages: Sequence[Mapping[str, str]]) -> str | None:
    """Why turns are no conversation that waits for an answer, or ``None``.

    At most one system turn, at the beginning; then user and assistant in turn, the user first and last; no empty turn.
    """
    turns = list(messages)
    start = 1 if turns and turns[0]["role"] == "system" else 0
    for number, turn in enumerate(turns[start:], start + 1):
        expected = "user" if (number - start) % 2 else "assistant"
        if turn["role"] != expected:
            return f"turn {number} is the {turn['role']}'s where the {expected}'s is due"
        if not turn["content"].strip():
            return f"turn {number} is empty"
    if len(turns) == start:
        return "there is no turn of the user"
    return None if turns[-1]["role"] == "user" else "the last turn is the assistant's: nothing waits for an answer"
