"""The models of an evaluation, each measured once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from slmops.artifact import StageKey
from slmops.config import build
from slmops.evaluation.options import Asked, EvaluateOptions
from slmops.evaluation.running import READ, running_measures
from slmops.evaluation.subjects import Loaded, Subject
from slmops.evaluation.systems import RESULT
from slmops.files import write_json, write_jsonl
from slmops.models.resolve import model_bytes
from slmops.runtimes.base import Sampling
from slmops.stages.context import rows_of
from slmops.stages.measuring import engine_floor
from slmops.stages.outside import write_answers
from slmops.tasks.base import Task, longest_answer
from slmops.teachers.asking import ask_rows, teacher_messages
from slmops.teachers.catalogue import ApiOptions
from slmops.teachers.opening import REQUESTS, identity_of, open_teacher
from slmops.teachers.replies import AskParams
from slmops.teachers.spec import TeacherSpec
from slmops.workspace import Made, StageResult, Workspace

_FLOOR_LENGTH = 256


def measure_subject(
    workspace: Workspace, options: EvaluateOptions, subject: Subject, data: StageResult, task: Task, loaded: Loaded | None
) -> StageResult:
    """Quality and cost of a model on the test rows, in a stage of its own.

    Args:
        workspace: Of the evaluation.
        options: What is asked for.
        subject: The model.
        data: Test rows and task.
        task: The kind of work.
        loaded: The model itself, where it is in memory.

    Raises:
        SlmopsError: It cannot be run or asked.
    """
    one = _Measured(workspace, options, subject, data, task)
    if loaded is not None:
        return one.loaded(loaded)
    return {"teacher": one.teacher, "endpoint": one.endpoint, "folder": one.folder}[subject.kind]()


class _Measured:
    """How a model of each kind is measured."""

    def __init__(self, workspace: Workspace, options: EvaluateOptions, subject: Subject, data: StageResult, task: Task) -> None:
        self.workspace, self.options, self.subject, self.data, self.task = workspace, options, subject, data, task
        self.sampling = Sampling(max_new_tokens=options.max_new_tokens or longest_answer(str(data.facts["task_type"])))
        self.ask: Asked = options.ask or ("task" if subject.kind == "teacher" else "row")

    def folder(self) -> StageResult:
        """In a process of its own."""
        subject, options = self.subject, self.options
        assert subject.path is not None
        assert subject.runtime is not None
        path, runtime, threads = subject.path, subject.runtime, options.evaluation.threads
        floor = engine_floor(self.workspace, runtime, threads=threads, max_length=_FLOOR_LENGTH)
        config = {"runtime": runtime, "chat_template": _template_key(options), **self._timed()}

        def make(folder: Path, work: Path) -> Made:
            from slmops.evaluation.measure import measure
            from slmops.models.load import parameter_count

            found = measure(self._spec(runtime, path, work), folder)
            measures = running_measures(
                found,
                price_per_machine_hour=options.evaluation.price_per_machine_hour,
                size_bytes=float(model_bytes(path)),
                floor=floor.artifact.manifest.measures,
            )
            sized = {"parameters": float(parameter_count(path))} if runtime == "torch" else {}
            return Made({}, {**found["quality"], **measures, **sized})

        return self._stage(config, make, {"floor": floor.id})

    def loaded(self, loaded: Loaded) -> StageResult:
        """In this process, whose memory says nothing of the model's."""

        def make(folder: Path, work: Path) -> Made:
            from slmops.evaluation.measure import measure_runtime

            spec = self._spec("torch", Path(), work)
            found = measure_runtime(spec, loaded.runtime, loaded.chat)
            write_json(folder / RESULT, found)
            price = self.options.evaluation.price_per_machine_hour
            own = {"process_mb": None, "peak_process_mb": None}
            return Made({}, {**found["quality"], **running_measures({**found, **own}, price_per_machine_hour=price)})

        return self._stage(self._timed(), make)

    def endpoint(self) -> StageResult:
        """Over HTTP."""
        base_url, _, model = self.subject.reference.partition("#")
        section = self.options.evaluation

        def make(folder: Path, work: Path) -> Made:
            from slmops.evaluation.endpoint import measure_endpoint

            found = measure_endpoint(
                base_url,
                model or None,
                self._asked(),
                self.task,
                self.sampling,
                latency_requests=section.latency_requests,
                concurrency=section.concurrency,
                api=ApiOptions(),
            )
            write_json(folder / RESULT, found)
            return Made({"faults": found["faults"], "model": found["model"]}, {**found["quality"], **running_measures(found)})

        return self._stage(self._timed(), make)

    def teacher(self) -> StageResult:
        """An API of the catalogue or recorded answers: each row asked once, and paid once."""
        options = self.options
        requests = {"max_cost": options.max_cost} if options.max_cost is not None else {}
        values = {"members": [{"model": self.subject.reference}], "requests": requests}
        spec = build(TeacherSpec, values, where=self.subject.name)
        params = AskParams(max_new_tokens=self.sampling.max_new_tokens)

        def make(folder: Path, work: Path) -> Made:
            rows = rows_of(self.data, "test")
            teacher = open_teacher(spec, self.task, cache=self.workspace.root / REQUESTS)
            asked = [row.with_answer(None) for row in rows]
            turns = (lambda row: row.messages) if self.ask == "row" else None
            found = ask_rows(teacher, asked, self.task, params, work, turns=turns)
            found.raise_if_stopped(str(self.workspace.root), "--max_cost")
            return write_answers(found, spec, self.task, rows, folder)

        return self._stage({"teacher": identity_of(spec)}, make)

    def _stage(self, config: Mapping[str, Any], make: Any, parents: Mapping[str, str] | None = None) -> StageResult:
        config = {"max_new_tokens": self.sampling.max_new_tokens, "ask": self.ask, **config}
        key = StageKey(
            f"measure.{self.subject.key}",
            "measurement",
            1,
            config,
            {"model": self.subject.fingerprint, "data": self.data.id, **(parents or {})},
        )
        return self.workspace.stage(key, make)

    def _timed(self) -> dict[str, Any]:
        return self.options.evaluation.model_dump(mode="json", include=READ)

    def _asked(self) -> list[Any]:
        rows = rows_of(self.data, "test")
        if self.ask == "row":
            return rows
        return [replace(row, messages=teacher_messages(self.task, row)) for row in rows]

    def _spec(self, runtime: str, path: Path, work: Path) -> Any:
        from slmops.evaluation.measure import MeasureSpec
        from slmops.files import read_json

        write_jsonl(work / "asked.jsonl", [row.as_dict() for row in self._asked()])
        return MeasureSpec.of(
            self.options.evaluation,
            runtime=runtime,
            model=path,
            test=work / "asked.jsonl",
            task_type=str(self.data.facts["task_type"]),
            task=read_json(self.data.path / "task.json"),
            max_new_tokens=self.sampling.max_new_tokens,
            chat_template=self.options.chat_template,
            text_template=self.options.text_template,
        )


def _template_key(options: EvaluateOptions) -> list[str | None]:
    choice = options.chat_template
    content = Path(choice).read_text(encoding="utf-8") if choice and Path(choice).is_file() else None
    return [content or choice, options.text_template]
