"""Stage 1 by itself: a file of rows, a teacher, and a folder with its answers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import Field

from slmops.artifact import MANIFEST, WORK, Artifact, StageKey, complete, is_complete
from slmops.config import Section
from slmops.data.rowfiles import Rejected, read_rows
from slmops.data.rows import Message, Row
from slmops.data.sources import FilesSource
from slmops.errors import ConfigError, TeacherError, UsageError, nearest
from slmops.files import digest, file_digest, write_jsonl
from slmops.models.catalogue import CATALOGUE, lookup
from slmops.models.hub import is_hub_id
from slmops.progress import say
from slmops.tasks.base import TASKS, Task, open_task
from slmops.teachers.answered import Answered, check_success, judge
from slmops.teachers.api import ApiTeacher
from slmops.teachers.base import Outcome, Request
from slmops.teachers.cache import RequestCache
from slmops.teachers.catalogue import API_MODELS, ApiOptions, is_api_teacher
from slmops.teachers.plan import RequestPlan, plan_requests
from slmops.teachers.recorded import RecordedTeacher
from slmops.teachers.replies import AskParams, Reply
from slmops.teachers.requests import RequestOptions, ask_all

ANSWERS, REJECTED = "answers.jsonl", "rejected.jsonl"
CACHE = Path(WORK) / "requests.sqlite"
_LOCK = Path(WORK) / "finish.lock"
_CHUNK_ROWS = 16


class GenerateOptions(Section):
    """What ``slmops generate`` is told."""

    data: Path = Field(description="Rows to answer")
    output_path: Path = Field(description="Where the answers go")
    task_type: str = Field(description="Kind of work")
    task: dict[str, Any] = Field(default_factory=dict, description="Options of the task type")
    teacher_name: str = Field(description="API teacher, catalogue name, folder, .gguf file, hub id, or files of recorded answers")
    teacher: ApiOptions = Field(ApiOptions(), description="What differs from the catalogue of API teachers")
    requests: RequestOptions = Field(RequestOptions(), description="Pace, patience and the cap on the cost")
    max_new_tokens: int = Field(256, ge=1, description="Longest answer in tokens; one that is cut gets up to four times as many")
    sampling_temperature: float = Field(0.0, ge=0, description="Softness of the sampling; 0: the likeliest answer")
    min_success: float = Field(0.7, ge=0, le=1, description="Least share of usable answers")
    input_field: str | None = Field(None, description="Column of the question")
    answer_field: str | None = Field(None, description="Column of the answer")


def teacher_messages(task: Task, row: Row) -> tuple[Message, ...]:
    """What a teacher is asked for a row: as the task says with ``ask(row)``, else the row as it stands."""
    ask = getattr(task, "ask", None)
    return tuple(ask(row)) if ask is not None else row.messages


@dataclass(frozen=True)
class _Said:
    """What a teacher made of all rows: answers and reasons by the id of the row, and what else there is to tell."""

    raw: dict[str, str]
    reasons: dict[str, str]
    facts: dict[str, Any]
    replies: Mapping[str, Reply]
    stopped: str | None = None


@dataclass(frozen=True)
class Generate:
    """One call of ``slmops generate``."""

    options: GenerateOptions

    @cached_property
    def _read(self) -> tuple[list[Row], list[Rejected]]:
        """The rows in the order of the file, and those that cannot be used."""
        source = FilesSource(train=self.options.data, input_field=self.options.input_field, answer_field=self.options.answer_field)
        found = read_rows(self.options.data, "train", source.columns())
        rows = sorted([*found.labelled, *found.unlabelled], key=lambda row: int(row.origin.rpartition(":")[2]))
        return rows, found.rejected

    @cached_property
    def _task(self) -> Task:
        answers = [row.answer for row in self._read[0] if row.answer is not None]
        return open_task(self.options.task_type, TASKS.get(self.options.task_type).complete(self.options.task, answers))

    @cached_property
    def _api(self) -> ApiTeacher | None:
        """The teacher, if it is behind an API."""
        name = self.options.teacher_name
        if self._recorded is not None:
            return None
        if is_api_teacher(name, self.options.teacher):
            return ApiTeacher.find(name, self.options.teacher)
        if not (Path(name).exists() or lookup(name) or is_hub_id(name)):
            fix = f"{nearest(name, [*API_MODELS, *CATALOGUE])}; a model of any other endpoint needs --base_url"
            raise UsageError(f"unknown teacher {name!r}", where="--teacher", fix=fix)
        return None

    @cached_property
    def _recorded(self) -> RecordedTeacher | None:
        """The teacher, if its answers are in files."""
        files = [Path(name) for name in self.options.teacher_name.split(",")]
        is_data = all(file.is_file() and file.suffix != ".gguf" for file in files)
        return RecordedTeacher.read(files) if is_data else None

    @property
    def _requests(self) -> list[Request]:
        options = self.options
        params = AskParams(
            max_new_tokens=options.max_new_tokens,
            temperature=options.sampling_temperature,
            top_logprobs=options.teacher.top_logprobs,
        )
        return [Request(row.id, teacher_messages(self._task, row), params) for row in self._read[0]]

    def plan(self) -> RequestPlan | None:
        """What it will need, without a key and without writing anything; ``None`` where that costs nothing."""
        if self._api is None:
            return None
        known = [row.answer for row in self._read[0] if row.answer is not None]
        cache, cap = self.options.output_path / CACHE, self.options.requests.max_cost
        return plan_requests(self._api.model, self._requests, cache, known_answers=known, max_cost=cap)

    def run(self) -> Artifact:
        """Ask for what is not answered yet and write answers, rejected rows and the manifest.

        Raises:
            TeacherError: The endpoint refuses, or the cap on the cost is reached; the same command continues.
            DataError: The file cannot be used, or too few answers can.
            SlmopsError: A name or an option is wrong.
        """
        folder = self.options.output_path
        rows, bad = self._read
        key = self._key()
        if self._finished(key):
            say(f"{folder}: all rows are answered already")
            return Artifact.load(folder, "answers")
        started = time.time()
        (folder / WORK).mkdir(parents=True, exist_ok=True)
        said = self._ask(folder / WORK / key.id[:12])
        settled = [row for row in rows if row.id in said.raw or row.id in said.reasons]
        answered = judge(settled, said.raw, self._task, said.reasons)
        facts = {**self._facts(settled, answered, bad), **said.facts}
        with FileLock(folder / _LOCK):  # two processes may do the same work and finish at once
            if self._finished(key):
                return Artifact.load(folder, "answers")
            (folder / MANIFEST).unlink(missing_ok=True)
            gold = {row.id: row.answer for row in rows}
            write_jsonl(folder / ANSWERS, (self._answer_line(row, gold[row.id], said) for row in answered.rows))
            unusable = [{**row.as_dict(), "teacher_answer": raw, "reason": why} for row, raw, why in answered.rejected]
            write_jsonl(folder / REJECTED, [*(row.as_dict() for row in bad), *unusable])
            if said.stopped is not None:
                raise TeacherError(
                    f"stopped: {said.stopped}; {len(settled):,} of {len(rows):,} rows are done",
                    where=str(folder),
                    fix="the same command continues and pays nothing twice; after a cap, with a higher --max_cost",
                )
            check_success(answered, self.options.min_success)
            return complete(folder, key, started=started, facts=facts)

    def _finished(self, key: StageKey) -> bool:
        folder = self.options.output_path
        return is_complete(folder) and Artifact.load(folder, "answers").id == key.id

    def _key(self) -> StageKey:
        options = self.options
        config = options.model_dump(
            mode="json", include={"task_type", "task", "max_new_tokens", "sampling_temperature", "min_success"}
        )
        config |= {"top_logprobs": options.teacher.top_logprobs, "columns": [options.input_field, options.answer_field]}
        return StageKey("generate", "answers", 1, config, {"data": file_digest(options.data), "teacher": self._teacher_id()})

    def _teacher_id(self) -> str:
        if self._recorded is not None:
            return digest(self._recorded.identity)
        if self._api is not None:
            return digest(self._api.model.identity)
        from slmops.models.resolve import resolve

        return resolve(self.options.teacher_name).fingerprint

    def _ask(self, work: Path) -> _Said:
        if self._api is not None:
            return self._ask_api(self._api)
        return self._ask_local(work) if self._recorded is None else self._look_up(self._recorded)

    def _look_up(self, teacher: RecordedTeacher) -> _Said:
        outcomes = [teacher.find(row.id, row.messages, teacher_messages(self._task, row)) for row in self._read[0]]
        return _said(
            outcomes, {"teacher": teacher.identity, "several_answers": len(teacher.several), "unread": len(teacher.unread)}
        )

    def _ask_api(self, teacher: ApiTeacher) -> _Said:
        plan = self.plan()
        if plan is not None and plan.calls:
            say(plan.describe())
        with RequestCache(self.options.output_path / CACHE) as cache:
            asked = ask_all(teacher, self._requests, cache, self.options.requests)
        return _said(
            asked.outcomes, {"teacher": teacher.model.identity, **asdict(asked.spent), "faults": asked.faults}, asked.stopped
        )

    def _ask_local(self, work: Path) -> _Said:
        if self.options.sampling_temperature > 0:
            raise ConfigError("a teacher on this machine answers greedily", where="sampling_temperature", fix="leave it out")
        from slmops.data.templates import choose_template
        from slmops.models.load import load_tokenizer
        from slmops.models.resolve import resolve
        from slmops.teachers.answers import answer_rows
        from slmops.teachers.local import LocalTeacher

        model = resolve(self.options.teacher_name)
        local = LocalTeacher.load(model.path, choose_template(load_tokenizer(model.path), "own"), "auto")
        asked = [replace(row, messages=teacher_messages(self._task, row)) for row in self._read[0]]
        answered = answer_rows(
            local, asked, self._task, chunk_rows=_CHUNK_ROWS, max_new_tokens=self.options.max_new_tokens, work=work
        )
        return _Said(answered.raw, {}, {"teacher": {"model": model.reference, "fingerprint": model.fingerprint}}, {})

    def _facts(self, rows: Sequence[Row], answered: Answered, bad: Sequence[Rejected]) -> dict[str, Any]:
        gold = [row for row in rows if row.answer is not None and row.id in answered.raw]
        right = sum(self._task.correct(answered.raw[row.id], str(row.answer)) for row in gold)
        return {
            "rows": len(self._read[0]) + len(bad),
            "answered": len(answered.rows),
            "rejected": len(answered.rejected) + len(bad),
            "reasons": {**answered.reasons, **({"bad row in the file": len(bad)} if bad else {})},
            "gold": len(gold),
            "right": right / len(gold) if gold else None,
        }

    def _answer_line(self, row: Row, gold: str | None, said: _Said) -> dict[str, Any]:
        line = {**row.as_dict(), "teacher_answer": said.raw[row.id], "gold": gold, "teacher": self.options.teacher_name}
        reply = said.replies.get(row.id)
        if reply is not None and reply.logprobs is not None:
            line["logprobs"] = list(reply.logprobs)
        return line


def _said(outcomes: Sequence[Outcome], facts: dict[str, Any], stopped: str | None = None) -> _Said:
    replies = {outcome.id: outcome.reply for outcome in outcomes if outcome.reply is not None}
    reasons = {outcome.id: outcome.reason for outcome in outcomes if outcome.reason is not None}
    return _Said({name: reply.text for name, reply in replies.items()}, reasons, facts, replies, stopped)
