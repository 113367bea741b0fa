"""A teacher whose weights are on this machine as every other teacher: in chunks that survive ``kill -9``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.data.rows import Row
from slmops.files import digest, read_json, write_json
from slmops.teachers.base import Answers, Outcome, Request
from slmops.teachers.chunks import in_chunks
from slmops.teachers.plan import RequestPlan
from slmops.teachers.replies import AskParams, Reply, estimate_text_tokens, estimate_tokens

if TYPE_CHECKING:
    from slmops.teachers.local import LocalTeacher

Load = Callable[[Sequence[Row], AskParams, Path], "LocalTeacher"]
"""Loads a model for rows that are to be answered so, with what is known of that work in a folder."""


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
        """Answer requests in chunks; finished chunks in ``work`` are not made again.

        Raises:
            DataError: A prompt does not fit into the model's context.
        """
        found: dict[tuple[str, AskParams], str] = {}
        for params in dict.fromkeys(request.params for request in requests):
            asked = {row.id: row for row in (Row.of(request.messages) for request in requests if request.params == params)}
            texts = self._texts(list(asked.values()), params, work / digest(vars(params))[:12])
            found |= {(name, params): text for name, text in texts.items()}
        outcomes = []
        for request in requests:
            text = found[Row.of(request.messages).id, request.params]
            tokens = estimate_tokens(request.messages), estimate_text_tokens(text)
            outcomes.append(Outcome(request.id, Reply(text, "stop", *tokens, None, self.name), None))
        return Answers(outcomes, {"teacher": {**self.identity, **(self._loaded.identity if self._loaded else {})}})

    def plans(self, requests: Sequence[Request]) -> list[RequestPlan]:
        """Nothing is paid."""
        return []

    def _texts(self, rows: Sequence[Row], params: AskParams, work: Path) -> dict[str, str]:
        """Row id to answer."""
        self._loaded = local = self._loaded or self._load(rows, params, work)

        def make(chunk: Sequence[Row], file: Path) -> None:
            answers = _answer(local, chunk, params)
            write_json(file, {row.id: answer for row, answer in zip(chunk, answers, strict=True)})

        found: dict[str, str] = {}
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


def _answer(local: LocalTeacher, rows: Sequence[Row], params: AskParams) -> list[str]:
    if params.temperature <= 0:
        return local.answer(rows, params.max_new_tokens)
    from slmops.runtimes.base import Sampling

    sampling = Sampling(params.max_new_tokens, params.temperature, params.top_p, seed=params.draw)
    found = local.runtime.generate([local.template.prompt(row) for row in rows], sampling)
    return [generation.text.strip() for generation in found]
