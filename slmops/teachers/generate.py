"""Stage 1 by itself: a file of rows, a teacher, and a folder with its answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import Field

from slmops.artifact import MANIFEST, WORK, Artifact, StageKey, complete, is_complete
from slmops.data.rowfiles import Rejected, read_rows
from slmops.data.rows import Row
from slmops.data.sources import FilesSource
from slmops.files import digest, file_digest, write_jsonl
from slmops.progress import say
from slmops.tasks.base import Task, open_task, task_class, task_key
from slmops.teachers.answered import Answered, LabelSource, answer_line, check_success, count_reasons, label, rejected_line
from slmops.teachers.asking import ask_rows, requests_of
from slmops.teachers.base import Teacher
from slmops.teachers.opening import REQUESTS, open_teacher
from slmops.teachers.plan import RequestPlan, total
from slmops.teachers.replies import AskParams
from slmops.teachers.spec import TeacherOptions

ANSWERS, REJECTED = "answers.jsonl", "rejected.jsonl"
_LOCK = Path(WORK) / "finish.lock"


class GenerateOptions(TeacherOptions):
    """What ``slmops generate`` is told."""

    data: Path = Field(description="Rows to answer")
    output_path: Path = Field(description="Where the answers go")
    task_type: str = Field(description="Kind of work")
    task: dict[str, Any] = Field(default_factory=dict, description="Options of the task type")
    max_new_tokens: int = Field(256, ge=1, description="Longest answer in tokens; one that is cut gets up to four times as many")
    sampling_temperature: float = Field(0.0, ge=0, description="Softness of the sampling; 0: the likeliest answer")
    retries: int = Field(0, ge=0, description="Times an answer is asked again that is invalid or, against gold, wrong")
    retry_temperature: float = Field(0.8, gt=0, description="Softness of the sampling from the second time on")
    label_source: LabelSource = Field("gold", description="What rows with a gold answer train on: gold, teacher or agree")
    min_success: float = Field(0.7, ge=0, le=1, description="Least share of usable answers")
    input_field: str | None = Field(None, description="Column of the question")
    answer_field: str | None = Field(None, description="Column of the answer")


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
        name = self.options.task_type
        return open_task(name, task_class(name).complete(self.options.task, answers))

    @cached_property
    def _teacher(self) -> Teacher:
        return open_teacher(self.options.spec, self._task, cache=self.options.output_path / WORK / REQUESTS)

    @property
    def _params(self) -> AskParams:
        return AskParams(max_new_tokens=self.options.max_new_tokens, temperature=self.options.sampling_temperature)

    def plan(self) -> RequestPlan | None:
        """What it will need, without a key and without writing anything; ``None`` where that costs nothing."""
        requests, _ = requests_of(self._read[0], self._task, self._params)
        return total(self._teacher.plans(requests), rounds=1 + self.options.retries)

    def run(self) -> Artifact:
        """Ask for what is not answered yet and write answers, rejected rows and the manifest.

        Raises:
            TeacherError: The endpoint refuses, or the cap on the cost is reached; the same command continues.
            DataError: The file cannot be used, or too few answers can.
            SlmopsError: A name or an option is wrong.
        """
        options, folder = self.options, self.options.output_path
        rows, bad = self._read
        key = self._key()
        if self._finished(key):
            say(f"{folder}: all rows are answered already")
            return Artifact.load(folder, "answers")
        started = time.time()
        (folder / WORK).mkdir(parents=True, exist_ok=True)
        work = folder / WORK / key.id[:12]
        answered = ask_rows(
            self._teacher,
            rows,
            self._task,
            self._params,
            work,
            retries=options.retries,
            retry_temperature=options.retry_temperature,
        )
        with FileLock(folder / _LOCK):  # two processes may do the same work and finish at once
            if self._finished(key):
                return Artifact.load(folder, "answers")
            (folder / MANIFEST).unlink(missing_ok=True)
            facts = self._write(answered, bad)
            answered.raise_if_stopped(str(folder), "--max_cost")
            check_success(answered.given, options.min_success)
            return complete(folder, key, started=started, facts=facts)

    def _write(self, answered: Answered, bad: Sequence[Rejected]) -> dict[str, Any]:
        """Write both files; the facts of the manifest."""
        folder, task = self.options.output_path, self._task
        good, unusable, reasons = [], [], []
        for one in answered.given:
            answer, reason = label(one, task, self.options.label_source)
            if answer is not None:
                good.append(answer_line(one, answer, task))
            else:
                reasons.append(str(reason))
                unusable.append(rejected_line(one, str(reason)))
        write_jsonl(folder / ANSWERS, good)
        write_jsonl(folder / REJECTED, [*(row.as_dict() for row in bad), *unusable])
        return {
            "rows": len(self._read[0]) + len(bad),
            "answered": len(good),
            "rejected": len(unusable) + len(bad),
            "invalid_beside_gold": sum("note" in line for line in good),
            "reasons": {**count_reasons(reasons), **({"bad row in the file": len(bad)} if bad else {})},
            **answered.correctness(),
            **answered.facts,
        }

    def _finished(self, key: StageKey) -> bool:
        folder = self.options.output_path
        return is_complete(folder) and Artifact.load(folder, "answers").id == key.id

    def _key(self) -> StageKey:
        options = self.options
        read = {"task", "max_new_tokens", "sampling_temperature", "min_success", "retries", "retry_temperature", "label_source"}
        config = {**options.model_dump(mode="json", include=read), "task_type": task_key(options.task_type)}
        logprobs = [member.api.top_logprobs for member in options.spec.members]
        config |= {"top_logprobs": logprobs, "columns": [options.input_field, options.answer_field]}
        parents = {"data": file_digest(options.data), "teacher": digest(dict(self._teacher.identity))}
        return StageKey("generate", "answers", 3, config, parents)
