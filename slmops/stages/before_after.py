"""What a fine-tuning did for the answers: the same validation rows, answered by the model before and after."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.artifact import StageKey
from slmops.data.rows import Row
from slmops.errors import MissingExtraError
from slmops.files import digest, write_json
from slmops.models.adapter import ADAPTER_CONFIG, Adapter
from slmops.progress import say
from slmops.stages.context import DataContext, ModelAt, rows_of
from slmops.tasks.base import Task, task_name
from slmops.workspace import Made, StageResult

if TYPE_CHECKING:
    from slmops.data.templates import Template
    from slmops.evaluation.stats import Difference, Estimate
    from slmops.runtimes.classifier_runtime import ClassifierRuntime
    from slmops.runtimes.torch_runtime import TorchRuntime

_UNSCORED = ("conversation", "generation")
"""Tasks of free text, whose measure says little of some rows."""

_CONFIDENCE = 0.95
_BATCH = 16
_LONGEST = 256
_MARGIN = 8
_SHARE = 1 / 12
"""Of the training's time, for each of the two models: a sixth in all."""

_SHOWN = 8


def is_scored(task_type: str) -> bool:
    """Whether answers of a task have a score that some validation rows tell something of."""
    return task_name(task_type) not in _UNSCORED


def score_both(
    context: DataContext,
    base: ModelAt,
    tuned: StageResult,
    model: Path,
    data: StageResult,
    seconds: float,
    *,
    onto_before: bool = True,
) -> StageResult:
    """Greedy answers of both models to validation rows, their scores with intervals, and that of one answer to every row.

    Args:
        context: Of the run.
        base: The model before.
        tuned: The training.
        model: What it left: a model, or an adapter that goes onto ``base``.
        data: The prepared rows.
        onto_before: Whether an adapter was trained on ``base``, and is not what ``base`` has within it already, trained further.
        seconds: Of the training; the answers take a sixth of it at most, or a batch of sixteen rows each.
    """
    key = StageKey("scores", "answers", 1, {"confidence": _CONFIDENCE}, {"base": base.id, "model": tuned.id, "data": data.id})

    def make(folder: Path, work: Path) -> Made:
        from slmops.models.widening import widen
        from slmops.runtimes.torch_runtime import TorchRuntime

        task, template = context.task(data), context.template(base.path)
        rows = [row for row in rows_of(data, "validation") if row.answer is not None]
        rows.sort(key=lambda row: digest([context.recipe.seed, row.id]))
        train = rows_of(data, "train")
        longest = _longest([*rows, *train], template)
        runtime = _runtime(base.path)
        if template.added and isinstance(runtime, TorchRuntime):
            widen(runtime.model, template.added)
        before = _answers(runtime, rows, template, longest, _SHARE * seconds)
        after = _answers(_tuned(runtime if onto_before else None, model), rows[: len(before)], template, longest)
        constant = Counter(str(row.answer) for row in train).most_common(1)[0][0]
        write_json(folder / "answers.json", {"rows": [row.id for row in rows[: len(before)]], "before": before, "after": after})
        facts = compare(task, rows[: len(before)], before, after, constant)
        return Made({**facts, "of": len(rows)})

    return context.workspace.stage(key, make)


def compare(task: Task, rows: Sequence[Row], before: Sequence[str], after: Sequence[str], constant: str) -> dict[str, Any]:
    """Scores of answers before and after a training, and of ``constant`` as the answer to every row; empty without rows.

    Args:
        task: Of the rows.
        rows: With their right answers.
        before: Answers of the untuned model.
        after: Answers of the tuned model.
        constant: The answer that most training rows have.
    """
    from slmops.evaluation.outputs import Outputs
    from slmops.evaluation.quality import tally
    from slmops.evaluation.stats import estimate, paired

    if not rows:
        return {"rows": 0}
    measure = task.primary_measure
    try:
        tallies = [tally(measure, Outputs(task, rows, answers)) for answers in (before, after, [constant] * len(rows))]
    except MissingExtraError as error:
        say(f"  no scores: {error}")
        return {"rows": 0}
    untuned, tuned, same = tallies
    return {
        "measure": measure,
        "confidence": _CONFIDENCE,
        "rows": len(rows),
        "before": _figure(estimate(untuned, _CONFIDENCE)),
        "after": _figure(estimate(tuned, _CONFIDENCE)),
        "constant": {"answer": constant, **_figure(estimate(same, _CONFIDENCE))},
        "difference": _difference(paired(tuned, untuned, _CONFIDENCE)),
        "against_constant": _difference(paired(tuned, same, _CONFIDENCE)),
        "examples": _examples(task, rows, before, after),
    }


def _longest(rows: Sequence[Row], template: Template) -> int:
    """Tokens that an answer may have: those of the longest right one, and a few."""
    by_length = sorted(rows, key=lambda row: -len(row.answer or ""))[:_BATCH]
    return min(_LONGEST, _MARGIN + max((len(template.encode(row).answer_ids) for row in by_length), default=0))


def _runtime(path: Path) -> TorchRuntime | ClassifierRuntime:
    from slmops.runtimes.torch_runtime import open_runtime

    return open_runtime(path)


def _tuned(base: TorchRuntime | ClassifierRuntime | None, model: Path) -> TorchRuntime | ClassifierRuntime:
    """The tuned model; an adapter of low rank goes into the weights that are there."""
    from slmops.models.classifier import is_classifier
    from slmops.models.resolve import resolve
    from slmops.runtimes.torch_runtime import TorchRuntime

    if is_classifier(model):
        return _runtime(model)
    if not isinstance(base, TorchRuntime) or not (model / ADAPTER_CONFIG).is_file() or Adapter.read(model).kind != "LORA":
        return _runtime(resolve(model).path)
    from peft import PeftModel

    merged: Any = PeftModel.from_pretrained(base.model, str(model)).merge_and_unload()
    return TorchRuntime(merged, base.tokenizer, base.info.context_length)


def _answers(
    runtime: TorchRuntime | ClassifierRuntime, rows: Sequence[Row], template: Template, longest: int, seconds: float | None = None
) -> list[str]:
    """Answers to rows, in batches, until the time is over; without a time to all."""
    from slmops.runtimes.base import Sampling

    started, found = time.monotonic(), list[str]()
    for first in range(0, len(rows), _BATCH):
        began = time.monotonic()
        batch = [template.prompt(row) for row in rows[first : first + _BATCH]]
        found += [answer.text for answer in runtime.generate(batch, Sampling(max_new_tokens=longest))]
        now = time.monotonic()
        if seconds is not None and now - started + (now - began) > seconds:
            break
    return found


def _examples(task: Task, rows: Sequence[Row], before: Sequence[str], after: Sequence[str]) -> list[dict[str, Any]]:
    """Some rows with their answers: wrong ones first, since these are looked at for a reason, then those that became right."""
    told = [
        {
            "question": row.question,
            "reference": str(row.answer),
            "before": old,
            "after": new,
            "was_right": task.correct(old, str(row.answer)),
            "right": task.correct(new, str(row.answer)),
        }
        for row, old, new in zip(rows, before, after, strict=True)
    ]
    wrong = [one for one in told if not one["right"]][: _SHOWN // 2]
    right = sorted((one for one in told if one["right"]), key=lambda one: bool(one["was_right"]))
    return [*wrong, *right[: _SHOWN - len(wrong)]]


def _figure(estimate: Estimate) -> dict[str, Any]:
    """A figure for JSON, which knows no NaN."""
    value, *ends = (None if math.isnan(number) else number for number in (estimate.value, *estimate.interval))
    return {"value": value, "interval": None if None in ends else ends}


def _difference(difference: Difference) -> dict[str, Any]:
    return {**_figure(difference), "word": difference.word}
