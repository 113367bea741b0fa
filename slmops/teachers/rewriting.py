"""Ways for a teacher to make new questions from given ones, as steps: questions out, replies in, new rows at the end.

A method does not know who asks or whether anybody does: a plan runs the same steps with likely replies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from slmops.data.quality.refusals import refusal
from slmops.data.rows import Message, Row
from slmops.files import digest
from slmops.tasks.base import AnswerError, Task
from slmops.tasks.translation import Translation
from slmops.teachers.base import Outcome, Request
from slmops.teachers.listed import read_texts
from slmops.teachers.replies import AskParams

Method = Literal["paraphrase", "back_translation", "seeds"]

_PARAPHRASE = (
    "Write {count} of the text below in other words. Keep the meaning, the language, the form, and all names and "
    "numbers.{label} Answer with a JSON list of {strings} alone.\n\n<text>\n{text}\n</text>"
)
_SEEDS = (
    "{task}These are {examples}{label}:\n\n{texts}\n\nWrite {count} of the same kind, in the same language and form, on "
    "other subjects and in other words; copy none. Answer with a JSON list of {strings} alone."
)
_CHOOSE = "Which of these labels fits the text? Answer with the label alone.\n{labels}"


@dataclass(frozen=True)
class Question:
    """A request, and what a reply may look like: to reckon with before there is one."""

    request: Request
    likely: str


@dataclass(frozen=True)
class NewRow:
    """What came of a question: a row, or the reason why there is none; then ``row`` is the one it should have come from.

    Args:
        row: The row, marked as made.
        text: What the teacher wrote.
        reason: Why the row is refused.
        source: The row it was made from; of several the first.
    """

    row: Row
    text: str
    reason: str | None
    source: Row


Replies = Mapping[str, Outcome]
"""What became of the questions by their ids; one that is absent, or has neither reply nor reason, is still open."""

Steps = Generator[Sequence[Question], Replies, list[NewRow]]


@dataclass(frozen=True)
class Rewriting:
    """What the methods need to know.

    Args:
        task: Whose questions they are.
        teacher: Name of who is asked, for the rows' marks.
        params: How the teacher writes; answers to new rows are asked for greedily.
        per_row: New texts for each row.
        seed: Another one gives other texts.
        screen: Gives the new rows that cannot be used their reasons.
        sound_answer: Why a free answer to a new question cannot be trained on, or ``None``.
        language: Name of the language of the rows.
        pivot: Name of the language that ``back_translation`` goes through.
        seeds_per_call: Rows that ``seeds`` shows at once.
    """

    task: Task
    teacher: str
    params: AskParams
    per_row: int
    seed: int
    screen: Callable[[list[NewRow]], list[NewRow]]
    sound_answer: Callable[[str, str], str | None]
    language: str
    pivot: str
    seeds_per_call: int

    def steps(self, method: Method, rows: Sequence[Row]) -> Steps:
        """The questions of a method, in as many rounds as it takes."""
        return {"paraphrase": self.paraphrase, "back_translation": self.back_translation, "seeds": self.seeds}[method](rows)

    def paraphrase(self, rows: Sequence[Row]) -> Steps:
        """The same question in other words, with the same answer; one request a row."""

        def question(row: Row) -> Question:
            label = f" It has to stay a text of the class {row.answer!r}." if self._labels and row.answer else ""
            count, strings = _counted(self.per_row, "version", "versions")
            prompt = _PARAPHRASE.format(count=count, label=label, strings=strings, text=row.question)
            return Question(Request(row.id, _asked(prompt), self.params), json.dumps([row.question] * self.per_row))

        replies = yield [question(row) for row in rows]
        written = [new for row in rows for new in self._written("paraphrase", [row], replies.get(row.id), self.per_row)]
        return self.screen(written)

    def back_translation(self, rows: Sequence[Row]) -> Steps:
        """The question translated into another language and back, with the same answer; two requests a text."""
        there = Translation(source_language=self.language, target_language=self.pivot)
        back = Translation(source_language=self.pivot, target_language=self.language)

        def question(task: Translation, row: Row, text: str, draw: int) -> Question:
            request = Request(f"{row.id}/{draw}", task.ask(Row.of(text)), replace(self.params, draw=draw))
            return Question(request, row.question)

        every = [(row, draw) for row in rows for draw in range(self.per_row)]
        first = yield [question(there, row, row.question, draw) for row, draw in every]
        texts = {name: text for row, draw in every if (text := _text(first.get(name := f"{row.id}/{draw}"))) is not None}
        second = yield [question(back, row, texts[f"{row.id}/{draw}"], draw) for row, draw in every if f"{row.id}/{draw}" in texts]
        written: list[NewRow] = []
        for row, draw in every:
            name = f"{row.id}/{draw}"
            found = second.get(name) if name in texts else first.get(name)
            written += self._written("back_translation", [row], found, 1, draw)
        return self.screen(written)

    def seeds(self, rows: Sequence[Row]) -> Steps:
        """New questions like a few given ones; of the same label where the task has labels.

        The teacher then answers each. With labels a row stays if the answer is the label that was asked for; without, the
        answer becomes the row's.
        """
        calls = list(self._calls(rows))
        replies = yield [self._seeds_question(shown) for shown in calls]
        written = [
            new for shown in calls for new in self._written("seeds", shown, replies.get(shown[0].id), self.per_row * len(shown))
        ]
        screened = self.screen(written)
        asked = [new.row for new in screened if new.reason is None]
        params = replace(self.params, temperature=0.0, seed=None)
        said = yield [Question(Request(row.id, self._answering(row), params), row.answer or row.question) for row in asked]
        return [answered for new in screened if (answered := self._answered(new, said) if new.reason is None else new) is not None]

    @property
    def _labels(self) -> tuple[str, ...]:
        """The closed list of the task's labels; empty where there is none."""
        labels: tuple[str, ...] = getattr(self.task, "labels", ())
        return labels

    def _calls(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """Rows that are shown together: of one label, drawn by the seed."""
        groups: dict[str, list[Row]] = {}
        for row in sorted(rows, key=lambda row: digest([self.seed, row.id])):
            groups.setdefault(row.answer or "" if self._labels else "", []).append(row)
        for _, group in sorted(groups.items()):
            yield from (group[start : start + self.seeds_per_call] for start in range(0, len(group), self.seeds_per_call))

    def _seeds_question(self, shown: Sequence[Row]) -> Question:
        many, label = self.per_row * len(shown), shown[0].answer
        system = next((turn["content"] for turn in self.task.ask(shown[0]) if turn["role"] == "system"), "")
        count, strings = _counted(many, "new one", "new ones")
        prompt = _SEEDS.format(
            task=f"A model is asked to do this: {system}\n\n" if system else "",
            examples="inputs that it gets" if system else "texts",
            label=f" with the label {label!r}" if self._labels and label else "",
            texts="\n".join(f"<text>\n{_opening(row)}\n</text>" for row in shown),
            count=count,
            strings=strings,
        )
        likely = [f"{_opening(shown[place % len(shown)])} ({place})" for place in range(many)]
        return Question(Request(shown[0].id, _asked(prompt), self.params), json.dumps(likely))

    def _answering(self, row: Row) -> list[Message]:
        """How the teacher is asked to answer a new row: as the task asks, with the labels where it does not name them."""
        turns: list[Message] = list(self.task.ask(row))
        if self._labels and turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": _CHOOSE.format(labels="\n".join(self._labels))})
        return turns

    def _answered(self, new: NewRow, said: Replies) -> NewRow | None:
        """A new row with its answer; ``None`` while there is no reply."""
        outcome = said.get(new.row.id)
        if outcome is None or (outcome.reply is None and outcome.reason is None):
            return None
        if outcome.reply is None:
            return replace(new, reason=outcome.reason)
        try:
            answer = self.task.parse(outcome.reply.text)
        except AnswerError as error:
            return replace(new, reason=f"answer: {error}")
        if not self._labels:
            why = self.sound_answer(new.row.question, outcome.reply.text)
            return replace(new, row=new.row.with_answer(answer), reason=f"answer: {why}" if why else None)
        wanted = new.row.answer
        if wanted is not None and not self.task.correct(outcome.reply.text, wanted):
            return replace(new, reason=f"another label: {wanted!r} was asked for, and the teacher says {answer!r}")
        return replace(new, row=new.row.with_answer(answer))

    def _written(
        self, method: Method, sources: Sequence[Row], outcome: Outcome | None, most: int, first: int = 0
    ) -> Iterator[NewRow]:
        """The rows of a reply, or one with the reason why there are none; nothing while there is no reply."""
        source = sources[0]
        if outcome is None or (outcome.reply is None and outcome.reason is None):
            return
        who = outcome.teacher or self.teacher
        made = {"method": method, "sources": [row.id for row in sources], "teacher": who}
        said = outcome.reply.text if outcome.reply is not None else ""
        words = refusal(said, source.question)
        reason = outcome.reason or (f"refusal: {words!r}" if words else None)
        texts = [] if reason else read_texts(said, most)
        if not texts:
            yield NewRow(replace(source, made=made), said, reason or "empty answer", source)
        for number, text in enumerate(texts, first + 1):
            turns = [*self._before(method, source), {"role": "user", "content": text}]
            answer = source.answer if method != "seeds" or self._labels else None
            row = Row.of(turns, answer, f"{source.origin} ({method} {number})")
            yield NewRow(replace(row, made=made), text, None, source)

    def _before(self, method: Method, source: Row) -> list[Message]:
        """The turns that a new question keeps: all before the last; of a seed only the system's."""
        return [turn for turn in source.messages[:-1] if method != "seeds" or turn["role"] == "system"]


def converse(steps: Steps, ask: Callable[[Sequence[Question]], Replies]) -> list[NewRow]:
    """Take a method's questions to ``ask`` and what comes back to the method, until it has its rows."""
    batch = next(steps)
    while True:
        try:
            batch = steps.send(ask(batch))
        except StopIteration as end:
            found: list[NewRow] = end.value
            return found


def _asked(prompt: str) -> list[Message]:
    return [{"role": "user", "content": prompt}]


def _opening(row: Row) -> str:
    """The first turn of the user; of most rows the only one."""
    return next(turn["content"] for turn in row.messages if turn["role"] == "user")


def _counted(count: int, one: str, several: str) -> tuple[str, str]:
    """Such as ``3 versions`` and ``3 strings``."""
    return (f"one {one}", "one string") if count == 1 else (f"{count} {several}", f"{count} strings")


def _text(outcome: Outcome | None) -> str | None:
    """What a translation says; ``None`` where there is none, or the teacher refuses."""
    if outcome is None or outcome.reply is None or not outcome.reply.text.strip() or refusal(outcome.reply.text):
        return None
    return outcome.reply.text.strip()
