"""More training rows out of those that are there, by a teacher: paraphrases, back-translations, new questions from seeds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import Field

from slmops.artifact import MANIFEST, WORK, Artifact, StageKey, complete, is_complete
from slmops.data.quality.answers import answer_problem
from slmops.data.quality.check import for_task
from slmops.data.quality.examine import examine
from slmops.data.quality.fresh import not_fresh
from slmops.data.quality.language import Languages
from slmops.data.rows import Row
from slmops.data.sources import FilesSource
from slmops.errors import DataError, TeacherError
from slmops.files import digest, file_digest, write_jsonl
from slmops.progress import say
from slmops.sections import QualitySection
from slmops.tasks.base import Task, closed_labels, open_task, problem, task_class, task_key
from slmops.teachers.base import Answers, Outcome, Request, Teacher
from slmops.teachers.facts import merged
from slmops.teachers.meaning import changed
from slmops.teachers.opening import REQUESTS, open_teacher
from slmops.teachers.plan import RequestPlan, total
from slmops.teachers.replies import AskParams, Reply
from slmops.teachers.rewriting import Method, NewRow, Question, Replies, Rewriting, converse
from slmops.teachers.spec import TeacherOptions

AUGMENTED, REJECTED = "augmented.jsonl", "rejected.jsonl"
_LOCK = Path(WORK) / "finish.lock"


class AugmentOptions(TeacherOptions):
    """What ``slmops augment`` is told."""

    data: Path = Field(description="Training rows")
    output_path: Path = Field(description="Where the new rows go")
    task_type: str = Field(description="Kind of work")
    task: dict[str, Any] = Field(default_factory=dict, description="Options of the task type")
    method: Method = Field(description="paraphrase, back_translation or seeds")
    per_row: int = Field(1, ge=1, le=20, description="New rows for each row")
    seeds_per_call: int = Field(4, ge=1, le=20, description="Rows that the method seeds shows at once")
    pivot: str = Field("German", min_length=2, description="Name of the language that back_translation goes through")
    language: str = Field("English", min_length=2, description="Name of the language of the rows, for back_translation")
    validation_data: Path | None = Field(None, description="Rows that no new row may be like")
    test_data: Path | None = Field(None, description="The same")
    with_originals: bool = Field(False, description="Write the training rows too, before the new ones")
    quality: QualitySection = Field(QualitySection(), description="Bounds of what is a good row and a new one")
    max_new_tokens: int = Field(1024, ge=1, description="Longest reply in tokens; one that is cut gets up to four times as many")
    sampling_temperature: float = Field(0.7, ge=0, description="Softness of the sampling; 0: the likeliest reply")
    seed: int = Field(0, ge=0, description="Another one gives other texts and puts other seeds together")
    min_success: float = Field(0.7, ge=0, le=1, description="Least share of good rows among those asked for")
    input_field: str | None = Field(None, description="Column of the question")
    answer_field: str | None = Field(None, description="Column of the answer")


@dataclass(frozen=True)
class _Rows:
    """What the files hold: rows to make others from, rows to keep apart from, and what cannot be used."""

    sources: list[Row]
    held_out: list[Row]
    set_aside: list[dict[str, Any]]


@dataclass(frozen=True)
class Augment:
    """One call of ``slmops augment``.

    Args:
        options: What it is told.
        teacher: Who is asked in place of the teacher that the options name.
    """

    options: AugmentOptions
    teacher: Teacher | None = None

    @cached_property
    def _teacher(self) -> Teacher:
        """Who is asked."""
        return self.teacher or open_teacher(self.options.spec, self._loaded[0], cache=self._work / REQUESTS)

    @cached_property
    def _work(self) -> Path:
        return self.options.output_path / WORK

    @cached_property
    def _languages(self) -> Languages:
        return Languages(for_task(self.options.quality, self._loaded[0]).language or "prompt")

    @cached_property
    def _loaded(self) -> tuple[Task, _Rows]:
        """The task and the rows after one pass of the quality checks; rows that a teacher made are no sources again."""
        options = self.options
        read = FilesSource(
            train=options.data,
            validation=options.validation_data,
            test=options.test_data,
            input_field=options.input_field,
            answer_field=options.answer_field,
        ).read()
        given = [*read.labelled, *read.pool]
        answers = [row.answer for row in given if row.answer is not None]
        task = open_task(options.task_type, task_class(options.task_type).complete(options.task, answers))
        set_aside = [bad.as_dict() for bad in read.rejected]
        usable = []
        for row in given:
            why = problem(task, row)
            if why is None:
                usable.append(row)
            else:
                set_aside.append({**row.as_dict(), "reason": why})
        splits = {"test": read.test, "validation": read.validation, "train": usable}
        examined, _ = examine(splits, for_task(options.quality, task), labels=closed_labels(task))
        set_aside += [bad.as_dict() for bad in examined.rejected]
        sources = list({row.id: row for row in examined.splits["train"]}.values())
        held_out = [*examined.splits["test"], *examined.splits["validation"]]
        if not any(row.made is None for row in sources):
            raise DataError("there is no row to make others from", where=str(options.data), fix=f"see {REJECTED} of check-data")
        return task, _Rows(sources, held_out, set_aside)

    @property
    def _real(self) -> list[Row]:
        return [row for row in self._loaded[1].sources if row.made is None]

    def plan(self) -> RequestPlan | None:
        """What it will need, without a key and without writing anything; ``None`` where that costs nothing."""
        requests: list[Request] = []

        def likely(batch: Sequence[Question]) -> Replies:
            requests.extend(replace(one.request, row=Row.of(one.likely, one.likely)) for one in batch)
            return {one.request.id: _stand_in(one) for one in batch}

        self._converse(likely, lambda new: new)
        return total(self._teacher.plans(requests))

    def run(self) -> Artifact:
        """Ask for what is not there yet and write the new rows, the rejected ones and the manifest.

        Raises:
            TeacherError: The endpoint refuses, or the cap on the cost is reached; the same command continues.
            DataError: The file cannot be used, or too few new rows can.
            SlmopsError: A name or an option is wrong.
        """
        folder, key = self.options.output_path, self._key()
        if self._finished(key):
            say(f"{folder}: all new rows are there already")
            return Artifact.load(folder, "dataset")
        started = time.time()
        self._work.mkdir(parents=True, exist_ok=True)
        asked: list[Answers] = []

        def ask(batch: Sequence[Question]) -> Replies:
            if not batch or (asked and asked[-1].stopped is not None):
                return {}
            asked.append(self._teacher.ask([question.request for question in batch], self._work))
            return {outcome.id: outcome for outcome in asked[-1].outcomes}

        new = self._converse(ask, self._screened)
        facts = {**self._facts(new), **merged([answers.facts for answers in asked])}
        with FileLock(folder / _LOCK):  # two processes may do the same work and finish at once
            if self._finished(key):
                return Artifact.load(folder, "dataset")
            (folder / MANIFEST).unlink(missing_ok=True)
            self._write(new)
            stopped = asked[-1].stopped if asked else None
            if stopped is not None:
                raise TeacherError(
                    f"stopped: {stopped}; {facts['kept']:,} new rows are there",
                    where=str(folder),
                    fix="the same command continues and pays nothing twice; after a cap, with a higher --max_cost",
                )
            self._check_success(facts)
            return complete(folder, key, started=started, seed=self.options.seed, facts=facts)

    def _converse(
        self, ask: Callable[[Sequence[Question]], Replies], screen: Callable[[list[NewRow]], list[NewRow]]
    ) -> list[NewRow]:
        """The method's rows, its questions going to ``ask``."""
        options = self.options
        params = AskParams(
            max_new_tokens=options.max_new_tokens,
            temperature=options.sampling_temperature,
            seed=options.seed if options.sampling_temperature > 0 else None,
        )
        rewriting = Rewriting(
            task=self._loaded[0],
            teacher=self._teacher.name,
            params=params,
            per_row=options.per_row,
            seed=options.seed,
            screen=screen,
            sound_answer=self._answer_problem,
            language=options.language,
            pivot=options.pivot,
            seeds_per_call=options.seeds_per_call,
        )
        return converse(rewriting.steps(options.method, self._real), ask)

    def _screened(self, new: list[NewRow]) -> list[NewRow]:
        """The new rows with the reasons of those that cannot be used: each by itself, then beside all others."""
        judged = [one if one.reason else NewRow(one.row, one.text, self._problem(one), one.source) for one in new]
        good = [one.row for one in judged if one.reason is None]
        _, rows = self._loaded
        stale = iter(not_fresh(good, rows.sources, rows.held_out, self.options.quality))
        return [one if one.reason else NewRow(one.row, one.text, next(stale), one.source) for one in judged]

    def _problem(self, new: NewRow) -> str | None:
        task, _ = self._loaded
        found = answer_problem(new.source.question, new.text, self.options.quality, self._languages) or problem(task, new.row)
        if found or self.options.method == "seeds" or closed_labels(task):
            return found
        return changed(task, new.source, new.text)

    def _answer_problem(self, question: str, answer: str) -> str | None:
        """Why a free answer to a new question cannot be trained on; its language is the task's affair."""
        return answer_problem(question, answer, self.options.quality, Languages("any"))

    def _write(self, new: Sequence[NewRow]) -> None:
        folder, (_, rows) = self.options.output_path, self._loaded
        originals = rows.sources if self.options.with_originals else []
        good = [one.row for one in new if one.reason is None]
        refused = [{**one.row.as_dict(), "text": one.text, "reason": one.reason} for one in new if one.reason is not None]
        write_jsonl(folder / AUGMENTED, [row.as_dict() for row in (*originals, *good)])
        write_jsonl(folder / REJECTED, [*rows.set_aside, *refused])

    def _facts(self, new: Sequence[NewRow]) -> dict[str, Any]:
        refused = [one.reason.partition(":")[0] for one in new if one.reason is not None]
        labels = closed_labels(self._loaded[0])
        kept = [one.row for one in new if one.reason is None]
        return {
            "method": self.options.method,
            "rows": len(self._real),
            "set_aside": len(self._loaded[1].set_aside),
            "asked": len(self._real) * self.options.per_row,
            "kept": len(kept),
            "rejected": len(refused),
            "reasons": dict(Counter(refused).most_common()),
            "labels": dict(sorted(Counter(row.answer or "" for row in kept).items())) if labels else None,
        }

    def _check_success(self, facts: Mapping[str, Any]) -> None:
        share = facts["kept"] / facts["asked"]
        if share < self.options.min_success:
            raise DataError(
                f"only {facts['kept']:,} good rows of {facts['asked']:,} that were asked for ({facts['reasons']})",
                where=str(self.options.output_path / REJECTED),
                fix="look at the rejected rows; a lower --min_success takes what there is and asks nothing again",
            )

    def _finished(self, key: StageKey) -> bool:
        folder = self.options.output_path
        return is_complete(folder) and Artifact.load(folder, "dataset").id == key.id

    def _key(self) -> StageKey:
        options = self.options
        outside = {"data", "validation_data", "test_data", "output_path", "task_type", *TeacherOptions.model_fields}
        files = {"data": options.data, "validation": options.validation_data, "test": options.test_data}
        parents = {role: file_digest(path) for role, path in files.items() if path is not None}
        config = {**options.model_dump(mode="json", exclude=outside), "task_type": task_key(options.task_type)}
        return StageKey("augment", "dataset", 1, config, {**parents, "teacher": digest(dict(self._teacher.identity))})


def _stand_in(question: Question) -> Outcome:
    return Outcome(question.request.id, Reply(question.likely, "stop", 0, 0, None, ""), None)
