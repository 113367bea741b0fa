"""What most tasks share: the teacher's prompt as options, and one training row a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, model_validator

from slmops.data.rows import Row
from slmops.sections import Section
from slmops.tasks.base import AnswerError, read_answer


class Example(Section):
    """A solved example in the teacher's prompt."""

    question: str = Field(min_length=1, description="The user's turn")
    answer: str = Field(min_length=1, description="The answer as the teacher should write it")
    rationale: str | None = Field(None, description="The reasoning before the answer, where the task asks for it")


class Prompted(Section):
    """Base of a task's options.

    Args:
        system_prompt: What the teacher is told first; empty for nothing. Left out: the row's own system turn, else the
            task's text. Tasks fill slots such as ``{labels}``.
        examples: Solved examples that the teacher sees before the row.
    """

    any_language: ClassVar[bool] = False
    """Whether an answer may be in another language than the question."""

    system_prompt: str | None = Field(None, description="What the teacher is told first; left out: the row's, else the task's")
    examples: tuple[Example, ...] = Field((), description="Solved examples in the teacher's prompt")

    @model_validator(mode="after")
    def _examples_are_valid(self) -> Prompted:
        for example in self.examples:
            try:
                self.parse(example.answer)
            except AnswerError as error:
                raise ValueError(f"the answer {example.answer!r} of an example is none: {error}") from error
        return self

    @property
    def answer_schema(self) -> dict[str, Any]:
        """JSON Schema of an answer in its normal form: some text."""
        return {"type": "string", "minLength": 1}

    @classmethod
    def complete(cls, options: Mapping[str, Any], answers: Sequence[str]) -> dict[str, Any]:
        """The options as they are: nothing is left to the data."""
        return dict(options)

    def ask(self, row: Row) -> list[dict[str, str]]:
        """System turn, solved examples, and the row's turns."""
        turns = [dict(turn) for turn in row.messages]
        given = turns.pop(0)["content"] if turns[0]["role"] == "system" else None
        chosen = self.system_prompt if self.system_prompt is not None else given if given is not None else self.own_prompt()
        system = self.told(self.filled(chosen))
        head = [{"role": "system", "content": system}] if system else []
        for example in self.examples:
            head.append({"role": "user", "content": example.question})
            head.append({"role": "assistant", "content": self.shown(example)})
        return [*head, *turns]

    def parse(self, text: str) -> str:
        """The text without outer white space."""
        answer = text.strip()
        if not answer:
            raise AnswerError("empty answer")
        return answer

    def rationale(self, text: str) -> str | None:
        """Nothing is kept."""
        return None

    def training_rows(self, row: Row, answer: str, rationale: str | None) -> list[Row]:
        """The row with the answer."""
        return [row.with_answer(answer)]

    def read(self, text: str) -> str | None:
        """The normal form of a text, ``None`` where it is no valid answer."""
        return read_answer(self.parse, text)

    def correct(self, answer: str, reference: str) -> bool:
        """Whether an answer has the normal form of the reference."""
        return self.read(answer) == self.parse(reference)

    def valid_share(self, answers: Sequence[str]) -> float:
        """Share of the texts that are valid answers."""
        return sum(self.read(answer) is not None for answer in answers) / max(len(answers), 1)

    def own_prompt(self) -> str:
        """The task's own system prompt; empty for none."""
        return ""

    def slots(self) -> Mapping[str, str]:
        """What ``{name}`` in the system prompt stands for."""
        return {}

    def filled(self, prompt: str) -> str:
        """A prompt with its slots filled; other braces stay as they are."""
        for name, value in self.slots().items():
            prompt = prompt.replace("{" + name + "}", value)
        return prompt

    def told(self, system: str) -> str:
        """The system turn with what the task adds to it."""
        return system

    def shown(self, example: Example) -> str:
        """An example's answer as the teacher should write it."""
        return example.answer
