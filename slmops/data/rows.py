"""The one form a row has inside the package, whatever file it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from slmops.files import digest

Message = Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """One example: what the model is asked and, where it is known, the answer.

    Args:
        id: Hash of what is asked; equal inputs have equal ids.
        messages: ``{"role", "content"}`` turns up to and including the last user turn (system first, if any).
        answer: The expected answer; ``None`` where nobody has labelled the row.
        origin: File and line the row was read from (or a generator's name), for messages to people.
        made: How a teacher made the question, where one did: ``method``, ``sources`` (the ids of the rows it comes from) and
            ``teacher``. Such rows are trained on; nothing is measured with them.
        others: Further answers that are as right; an answer is scored against the one it is most like.
        fields: The texts that the question was put together from, by their names, where it was made of several.
    """

    id: str
    messages: tuple[Message, ...]
    answer: str | None = None
    origin: str = ""
    made: Mapping[str, Any] | None = None
    others: tuple[str, ...] = ()
    fields: Mapping[str, str] | None = None

    @classmethod
    def of(cls, messages: Sequence[Message] | str, answer: str | None = None, origin: str = "") -> Row:
        """Make a row from chat turns, or from the text of a single user turn."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        turns = tuple({"role": turn["role"], "content": turn["content"]} for turn in messages)
        return cls(digest(turns)[:16], turns, answer, origin)

    @property
    def answers(self) -> tuple[str, ...]:
        """All that is known to be right, the answer first."""
        return () if self.answer is None else (self.answer, *self.others)

    @property
    def question(self) -> str:
        """What a person would read as the input: the last turn."""
        return self.messages[-1]["content"]

    def with_answer(self, answer: str | None) -> Row:
        """The same question with another answer; without one there are no others either."""
        return replace(self, answer=answer, others=self.others if answer is not None else ())

    def as_dict(self) -> dict[str, Any]:
        """For JSON lines; :meth:`from_dict` reads it back."""
        turns = [dict(turn) for turn in self.messages]
        made = {"made": dict(self.made)} if self.made is not None else {}
        others = {"others": list(self.others)} if self.others else {}
        fields = {"fields": dict(self.fields)} if self.fields else {}
        return {"id": self.id, "messages": turns, "answer": self.answer, "origin": self.origin, **made, **others, **fields}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Row:
        """Read what :meth:`as_dict` wrote."""
        row = cls.of(value["messages"], value["answer"], value["origin"])
        return replace(row, made=value.get("made"), others=tuple(value.get("others", ())), fields=value.get("fields"))
