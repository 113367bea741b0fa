"""``slmops benchmark``: every model and task once; stopped anywhere, the same command continues."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field

from slmops.artifact import StageKey
from slmops.errors import UsageError
from slmops.evaluation.benchmarks.harness import offline, run_task, version
from slmops.evaluation.benchmarks.models import engine, open_lm, tells_probabilities
from slmops.evaluation.benchmarks.scores import Score, leads, scores_of
from slmops.evaluation.benchmarks.tasks import BenchmarkTask, find_task
from slmops.evaluation.subjects import Subject, subjects_of
from slmops.files import read_json, read_jsonl, write_json, write_jsonl
from slmops.sections import Section
from slmops.workspace import Made, StageResult, Workspace

REPORT = "benchmark.json"
SAMPLES = "samples.jsonl"
SCHEMA_VERSION = 1

_RESULT = "result.json"
_CONFIDENCE = 0.95


class BenchmarkOptions(Section):
    """What is asked of whom."""

    models: tuple[str, ...] = Field(
        min_length=1, description="Folders, catalogue names or URLs of servers; the first is compared with"
    )
    tasks: tuple[str, ...] = Field(min_length=1, description="Names in the harness, or YAML files of tasks")
    data_path: Path | None = Field(None, description="Folder with TASK/SPLIT.jsonl; absent: the folder of each YAML file")
    output_path: Path = Field(Path("runs/benchmark"), description="Where results go")
    limit: int | None = Field(None, ge=1, description="Most questions of a task, the first ones")
    num_fewshot: int | None = Field(None, ge=0, description="Examples before each question; absent: as the task says")
    batch_size: int = Field(1, ge=1, description="Requests at once")
    seed: int = Field(1234, ge=0, description="Chooses the examples")
    apply_chat_template: bool = Field(False, description="Ask in the model's chat template")


class Benchmark:
    """A set of benchmarks; the constructor finds models and tasks and refuses what does not go together.

    Raises:
        UsageError: No such task, or one that a model cannot run.
        ConfigError: The definition of a task is wrong, or it cannot be run here.
        DataError: A file is missing.
        ModelError: A model cannot be found.
        MissingExtraError: The harness is not installed.
    """

    def __init__(self, options: BenchmarkOptions) -> None:
        self._options = options
        given = dict.fromkeys(options.tasks)
        self._tasks = [find_task(name, options.data_path, options.num_fewshot, alone=len(given) == 1) for name in given]
        self._models = subjects_of(options.models)
        for model in self._models:
            for task in self._tasks:
                _check(model, task)

    def run(self) -> dict[str, Any]:
        """Ask what is not yet answered; returns what ``benchmark.json`` in the output folder then holds.

        Raises:
            DataError: The files lack something that a task needs, or a prompt does not fit.
            ModelError: A model cannot be loaded, or a server fails.
            ResourceError: Another process is at work in the folder.
        """
        workspace = Workspace(self._options.output_path)
        scores: list[Score] = []
        with workspace.lock(), offline():
            for model in self._models:
                opened: list[Any] = []
                for task in self._tasks:
                    stage = self._stage(workspace, model, task, opened)
                    scores += self._scores(stage, model, task)
            scores.sort(key=lambda score: [task.name for task in self._tasks].index(score.task))
            write_json(self._options.output_path / REPORT, self._report(scores))
            workspace.remember()
        report: dict[str, Any] = read_json(self._options.output_path / REPORT)
        return report

    def _stage(self, workspace: Workspace, model: Subject, task: BenchmarkTask, opened: list[Any]) -> StageResult:
        options = self._options
        config = {
            "task": task.name,
            "shots": task.shots,
            "engine": engine(model),
            "harness": version(),
            **options.model_dump(include={"limit", "batch_size", "seed", "apply_chat_template"}),
        }
        parents = {"model": model.fingerprint, "task": task.definition, "data": task.data}
        key = StageKey(f"benchmark.{model.key}.{_plain(task.name)}", "measurement", 1, config, parents)

        def make(folder: Path, work: Path) -> Made:
            chat = options.apply_chat_template
            work.mkdir(exist_ok=True)
            if not opened:
                opened.append(open_lm(model, batch_size=options.batch_size, seed=options.seed, chat=chat))
            found = run_task(opened[0], task, work, limit=options.limit, seed=options.seed, chat=chat)
            write_jsonl(folder / SAMPLES, found.samples)
            values = {name: value for name, value in found.values.items() if isinstance(value, int | float)}
            facts = {"higher_is_better": dict(found.higher_is_better), "rows": found.rows, "of": found.of, "cut": found.cut}
            write_json(folder / _RESULT, {"values": values, **facts})
            return Made(measures={name: float(value) for name, value in values.items()}, seed=options.seed)

        return workspace.stage(key, make)

    def _scores(self, stage: StageResult, model: Subject, task: BenchmarkTask) -> list[Score]:
        return scores_of(
            read_json(stage.path / _RESULT),
            read_jsonl(stage.path / SAMPLES),
            _CONFIDENCE,
            model=model.key,
            engine=engine(model),
            task=task.name,
            shots=task.shots,
            task_version=task.version,
            samples=(stage.path / SAMPLES).relative_to(self._options.output_path).as_posix(),
        )

    def _report(self, scores: list[Score]) -> dict[str, Any]:
        options = self._options
        return {
            "schema_version": SCHEMA_VERSION,
            "harness": {"name": "lm-eval", "version": version()},
            "settings": options.model_dump(mode="json", include={"limit", "batch_size", "seed", "apply_chat_template"}),
            "confidence": _CONFIDENCE,
            "models": [
                {"name": one.key, "reference": one.reference, "source": one.source, "fingerprint": one.fingerprint}
                for one in self._models
            ],
            "tasks": [
                {"name": one.name, "version": one.version, "made_for": one.origin, "data": one.data, "definition": one.definition}
                for one in self._tasks
            ],
            "scores": [score.as_dict() for score in scores],
            "differences": [asdict(lead) for lead in leads(scores, _CONFIDENCE)],
        }


def _check(model: Subject, task: BenchmarkTask) -> None:
    if task.compares and not tells_probabilities(model):
        raise UsageError(
            f"{task.name} compares the probabilities of given texts, which {engine(model)} does not tell",
            where=model.reference,
            fix="give the model folder that it was made from (config.json, safetensors), or choose a task that is answered in "
            "words, such as gsm8k",
        )


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)
