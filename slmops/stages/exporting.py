"""Export: a model is converted by a scheme, compared with its float32 answers, and becomes a package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.artifact import StageKey
from slmops.config import Recipe
from slmops.data.rows import Row
from slmops.evaluation.systems import RESULT
from slmops.files import read_json, size_bytes, write_json, write_jsonl
from slmops.progress import say
from slmops.stages.context import MODEL, Context, rows_of
from slmops.tasks.base import closed_labels, rejection
from slmops.workspace import Made, StageResult, link_or_copy

if TYPE_CHECKING:
    from slmops.runtimes.base import Generation, Runtime
    from slmops.tasks.base import Task

_BATCH = 16
_REFERENCE = "reference.json"


def reference_answers(context: Context, name: str, model: StageResult, data: StageResult, answers: StageResult) -> StageResult:
    """What a float32 model answers to the rows that its conversions are compared on.

    The rows are validation rows and, with the teacher's answer as reference for the task's measure, rows of the pool.
    """
    recipe = context.recipe
    config = {
        "rows": recipe.export.parity.rows,
        "max_new_tokens": recipe.answers.max_new_tokens,
        "threads": recipe.evaluation.threads,
    }
    key = StageKey(f"reference.{name}", "answers", 1, config, {"model": model.id, "data": data.id, "answers": answers.id})

    def make(folder: Path, work: Path) -> Made:
        from slmops.runtimes.base import open_runtime

        source = model.path / MODEL
        rows = (rows_of(data, "validation") + rows_of(answers, "answers"))[: recipe.export.parity.rows]
        prompts = _prompts(source, rows)
        runtime = open_runtime("torch", source, threads=recipe.evaluation.threads)
        generations = _generate(runtime, prompts, recipe.answers.max_new_tokens)
        write_jsonl(folder / "rows.jsonl", [row.as_dict() for row in rows])
        write_json(
            folder / _REFERENCE,
            {"answers": [found.text for found in generations], "tokens": [runtime.tokenize(prompt) for prompt in prompts]},
        )
        return Made({"rows": len(rows)})

    return context.workspace.stage(key, make)


def export_model(
    context: Context,
    name: str,
    model: StageResult,
    reference: StageResult,
    data: StageResult,
    scheme: str,
    *,
    following: str | None = None,
) -> StageResult:
    """A model converted by one scheme and compared with its float32 answers; ``facts`` is the report's line about it.

    Args:
        context: Of the run.
        name: Of the model's row.
        model: The model to convert.
        reference: Its answers, from :func:`reference_answers`.
        data: The run's data, for the task.
        scheme: A name of ``export.onnx.SCHEMES``.
        following: The scheme that comes next if this one fails; it is converted at the same time where that is worth it.
    """
    recipe = context.recipe
    section = recipe.export

    def key_of(scheme: str) -> StageKey:
        config = {
            **section.model_dump(mode="json", include={"runtime", "max_length", "parity"}),
            "scheme": scheme,
            "threads": recipe.evaluation.threads,
            "max_new_tokens": recipe.answers.max_new_tokens,
        }
        return StageKey(f"export.{name}.{scheme}", "candidate", 2, config, {"model": model.id, "reference": reference.id})

    def make(folder: Path, work: Path) -> Made:
        from slmops.export.onnx import export_first
        from slmops.runtimes.base import open_runtime

        target = folder / MODEL
        targets = {scheme: target}
        if following is not None:
            targets[following] = context.workspace.folder(key_of(following)) / MODEL
        export_first(model.path / MODEL, targets, max_length=section.max_length)
        runtime = open_runtime(section.runtime, target, threads=recipe.evaluation.threads)
        attempt = _attempt(scheme, model.path / MODEL, target, runtime, reference, context.task(data), recipe)
        say(f"  {scheme}: {attempt['size_mb']} MB, agreement {attempt['agreement']:.3f}, {attempt['why'] or 'agrees'}")
        return Made(attempt)

    return context.workspace.stage(key_of(scheme), make)


def package(context: Context, name: str, candidate: StageResult, data: StageResult) -> StageResult:
    """A folder that ``slmops serve`` and Foundry Local take: the converted model with its card."""
    recipe = context.recipe
    config = {"name": recipe.name, "max_new_tokens": recipe.answers.max_new_tokens, **context.template_key}
    key = StageKey(f"package.{name}", "bundle", 1, config, {"candidate": candidate.id, "data": data.id})

    def make(folder: Path, work: Path) -> Made:
        from slmops.data.chat import ChatTemplate
        from slmops.export.bundle import write_foundry_files
        from slmops.export.card import BundleCard, CardSampling

        target = folder / MODEL
        for file in (candidate.path / MODEL).iterdir():
            link_or_copy(file, target / file.name)
        card = BundleCard(
            name=recipe.name,
            task_type=recipe.task_type,
            chat_template=ChatTemplate.load(target),
            sampling=CardSampling(max_new_tokens=recipe.answers.max_new_tokens),
            labels=closed_labels(context.task(data)) or (),
        )
        card.write(target)
        note = write_foundry_files(target, recipe.name)
        return Made({"scheme": candidate.facts["scheme"], "foundry_note": note, "size_mb": round(size_bytes(target) / 1e6, 1)})

    return context.workspace.stage(key, make)


def _prompts(model: Path, rows: Sequence[Row]) -> list[str]:
    from slmops.data.chat import ChatTemplate

    chat = ChatTemplate.load(model)
    return [chat.render(row.messages) for row in rows]


def answer_split(context: Context, name: str, model: StageResult, data: StageResult, split: str) -> StageResult:
    """What a trained model answers to the rows of a split, in this process and without being timed, as ``answers`` of a file."""
    longest = context.recipe.answers.max_new_tokens
    key = StageKey(f"{split}.{name}", "answers", 1, {"max_new_tokens": longest}, {"model": model.id, "data": data.id})

    def make(folder: Path, work: Path) -> Made:
        rows = rows_of(data, split)
        write_json(folder / RESULT, {"answers": answers_of(model.path / MODEL, rows, longest)})
        return Made({"rows": len(rows)})

    return context.workspace.stage(key, make)


def answers_of(model: Path, rows: Sequence[Row], max_new_tokens: int) -> list[str]:
    """What the model of a folder answers to rows, in this process and in PyTorch."""
    from slmops.runtimes.base import open_runtime

    return [answer.text for answer in _generate(open_runtime("torch", model), _prompts(model, rows), max_new_tokens)]


def _generate(runtime: Runtime, prompts: Sequence[str], max_new_tokens: int) -> list[Generation]:
    from slmops.runtimes.base import Sampling

    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    found: dict[int, Generation] = {}
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        batch = runtime.generate([prompts[index] for index in chosen], Sampling(max_new_tokens=max_new_tokens))
        found.update(zip(chosen, batch, strict=True))
    return [found[index] for index in range(len(prompts))]


def _likeness(task: Task, left: str, right: str) -> float:
    """How alike two different answers are by the task's measure, where answers are free; labels are equal or not."""
    if closed_labels(task) is not None or rejection(task, left) is not None:
        return 0.0
    return task.score([right], [left])[task.primary_measure]


def _attempt(
    scheme: str, source: Path, target: Path, runtime: Runtime, reference: StageResult, task: Task, recipe: Recipe
) -> dict[str, Any]:
    from slmops.export.parity import Side, compare

    parity = recipe.export.parity
    rows = rows_of(reference, "rows")
    known = read_json(reference.path / _REFERENCE)
    prompts, own = _prompts(source, rows), _prompts(target, rows)
    generations = _generate(runtime, own, recipe.answers.max_new_tokens)
    candidate = Side(own, [runtime.tokenize(prompt) for prompt in own], [found.text for found in generations])
    found = compare(Side(prompts, known["tokens"], known["answers"]), candidate, lambda left, right: _likeness(task, left, right))
    expected = [str(row.answer) for row in rows]
    before, after = (task.score(answers, expected)[task.primary_measure] for answers in (known["answers"], candidate.answers))
    problems = {
        "the chat template renders other bytes": not found.template_equal,
        "the tokenizer gives other ids": not found.tokens_equal,
        f"agreement {found.agreement:.3f} < {parity.min_agreement}": found.agreement < parity.min_agreement,
        f"{task.primary_measure} {before - after:.3f} lower": before - after > parity.max_drop,
    }
    why = "; ".join(problem for problem, applies in problems.items() if applies)
    return {
        "scheme": scheme,
        "size_mb": round(size_bytes(target) / 1e6, 1),
        "agreement": found.agreement,
        "measure": after,
        "reference": before,
        "passed": not why,
        "why": why,
    }
