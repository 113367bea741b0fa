"""A teacher whose weights are on this machine as every other teacher: in chunks that survive ``kill -9``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from slmops.data.rows import Row
from slmops.errors import DataError
from slmops.files import digest, read_json, write_json
from slmops.runtimes.base import Sampling
from slmops.teachers.base import Answers, Outcome, Request
from slmops.teachers.chunks import in_chunks
from slmops.teachers.plan import RequestPlan
from slmops.teachers.replies import AskParams, Reply, estimate_text_tokens, estimate_tokens

if TYPE_CHECKING:
    from slmops.teachers.local import LocalTeacher

Load = Callable[[Sequence[Row], AskParams, Path], "LocalTeacher"]
"""Loads a model for rows that are to be answered so, with what is known of that work in a folder."""


class _Said(TypedDict):
    """An answer and why it ended, or why there is none."""

    text: str | None
    finish_reason: str
    reason: str | None


class WeightsTeacher:
    """A model on this machine.

    Args:
        name: As the user named it.
        identity: Says what determines its answers: weights, precision, template; called when that is wanted.
        load: Loads it; called once, with the first rows that have to be answered.
        chunk_rows: Rows a batch and a file of ``work``.
    """

    def __init__(self, name: str, identity: Callable[[], Mapping[str, Any]], load: Load, chunk_rows: int) -> None:
        self.name = name
        self._identity, self._load, self._chunk_rows = identity, load, chunk_rows
        self._loaded: LocalTeacher | None = None

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What determines its answers."""
        return self._identity()

    def ask(self, requests: Sequence[Request], work: Path) -> Answers:
        """Answer requests in chunks; finished chunks in ``work`` are not made again."""
        found: dict[tuple[str, AskParams], _Said] = {}
        for params in dict.fromkeys(request.params for request in requests):
            asked = {row.id: row for row in (Row.of(request.messages) for request in requests if request.params == params)}
            said = self._say(list(asked.values()), params, work / digest(vars(params))[:12])
            found |= {(name, params): one for name, one in said.items()}
        outcomes = [self._outcome(request, found[Row.of(request.messages).id, request.params]) for request in requests]
        return Answers(outcomes, {"teacher": {**self.identity, **(self._loaded.identity if self._loaded else {})}})

    def plans(self, requests: Sequence[Request]) -> list[RequestPlan]:
        """Nothing is paid."""
        return []

    def _outcome(self, request: Request, said: _Said) -> Outcome:
        text = said["text"]
        if text is None:
            return Outcome(request.id, None, said["reason"])
        tokens = estimate_tokens(request.messages), estimate_text_tokens(text)
        return Outcome(request.id, Reply(text, said["finish_reason"], *tokens, None, self.name), None)

    def _say(self, rows: Sequence[Row], params: AskParams, work: Path) -> dict[str, _Said]:
        """Row id to what it says."""
        self._loaded = local = self._loaded or self._load(rows, params, work)

        def make(chunk: Sequence[Row], file: Path) -> None:
            write_json(file, {row.id: one for row, one in zip(chunk, _answer(local, chunk, params), strict=True)})

        found: dict[str, _Said] = {}
        for _, file in in_chunks(
            rows,
            size=self._chunk_rows,
            length=lambda row: len(local.template.prompt(row)),
            key=lambda row: row.id,
            folder=work,
            suffix=".json",
            make=make,
            what="teacher answers",
        ):
            found.update(read_json(file))
        return found


def _answer(local: LocalTeacher, rows: Sequence[Row], params: AskParams) -> list[_Said]:
    """Answers of one batch; where a row does not fit into the context, the rows are taken one by one."""
    try:
        found = local.answer(rows, Sampling(params.max_new_tokens, params.temperature, params.top_p, seed=params.draw))
        return [{"text": one.text.strip(), "finish_reason": one.finish_reason, "reason": None} for one in found]
    except DataError as error:
        if len(rows) == 1:
            return [{"text": None, "finish_reason": "", "reason": f"too long: {error.what}"}]
        return [said for row in rows for said in _answer(local, [row], params)]
