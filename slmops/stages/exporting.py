"""Export: schemes are tried smallest first until one keeps the model's answers; the result becomes a package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.artifact import StageKey
from slmops.config import ParitySection
from slmops.data.rows import Row
from slmops.files import read_json, size_bytes, write_json
from slmops.progress import say
from slmops.stages.context import MODEL, Context, rows_of
from slmops.workspace import Made, StageResult, link_or_copy, remove_tree

if TYPE_CHECKING:
    from slmops.runtimes.base import Generation, Runtime
    from slmops.tasks.base import Task

_BATCH = 16


def export_model(context: Context, name: str, model: StageResult, data: StageResult, answers: StageResult) -> StageResult:
    """The first scheme of the recipe whose answers agree with the float32 model's; ``facts["chosen"]`` is ``None`` if none does.

    Args:
        context: Of the run.
        name: Of the model's row.
        model: The model to convert.
        data: Its validation rows are compared on.
        answers: So are rows of the pool, with the teacher's answer as reference for the task's measure.
    """
    recipe = context.recipe
    section = recipe.export
    config = {
        **section.model_dump(mode="json"),
        "threads": recipe.evaluation.threads,
        "max_new_tokens": recipe.answers.max_new_tokens,
    }
    key = StageKey(f"export.{name}", "candidate", 1, config, {"model": model.id, "data": data.id, "answers": answers.id})

    def make(folder: Path, work: Path) -> Made:
        from slmops.export.onnx import export_onnx
        from slmops.runtimes.base import open_runtime

        source = model.path / MODEL
        task = context.task(data)
        rows = (rows_of(data, "validation") + rows_of(answers, "answers"))[: section.parity.rows]
        prompts = _prompts(source, rows)
        reference = _reference(
            source, prompts, rows, recipe.answers.max_new_tokens, recipe.evaluation.threads, work / "reference.json"
        )
        attempts: list[dict[str, Any]] = []
        chosen = None
        for scheme in section.schemes:
            target = work / scheme
            if not (target / "genai_config.json").is_file():
                export_onnx(source, target, scheme, max_length=section.max_length)
            runtime = open_runtime(section.runtime, target, threads=recipe.evaluation.threads)
            attempt = _attempt(
                scheme, target, runtime, rows, prompts, reference, task, section.parity, recipe.answers.max_new_tokens
            )
            del runtime
            attempts.append(attempt)
            say(
                f"  {scheme}: {attempt['size_mb']} MB, agreement {attempt['agreement']:.3f}, {'passed' if attempt['passed'] else attempt['why']}"
            )
            if attempt["passed"]:
                chosen = scheme
                break
        if chosen is not None:
            for file in (work / chosen).iterdir():
                link_or_copy(file, folder / MODEL / file.name)
        return Made({"attempts": attempts, "chosen": chosen, "rows": len(rows)})

    return context.workspace.stage(key, make)


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
            (target / file.name).unlink(missing_ok=True)
            link_or_copy(file, target / file.name)
        card = BundleCard(
            name=recipe.name,
            task_type=recipe.task_type,
            chat_template=ChatTemplate.load(target),
            sampling=CardSampling(max_new_tokens=recipe.answers.max_new_tokens),
            labels=tuple(context.task_options(data).get("labels", ())),
        )
        card.write(target)
        note = write_foundry_files(target, recipe.name)
        return Made({"scheme": candidate.facts["chosen"], "foundry_note": note, "size_mb": round(size_bytes(target) / 1e6, 1)})

    return context.workspace.stage(key, make)


def _prompts(model: Path, rows: Sequence[Row]) -> list[str]:
    from slmops.data.chat import ChatTemplate

    chat = ChatTemplate.load(model)
    return [chat.render(row.messages) for row in rows]


def _generate(runtime: Runtime, prompts: Sequence[str], max_new_tokens: int) -> list[Generation]:
    from slmops.runtimes.base import Sampling

    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    found: dict[int, Generation] = {}
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        batch = runtime.generate([prompts[index] for index in chosen], Sampling(max_new_tokens=max_new_tokens))
        found.update(zip(chosen, batch, strict=True))
    return [found[index] for index in range(len(prompts))]


def _reference(
    model: Path, prompts: Sequence[str], rows: Sequence[Row], limit: int, threads: int | None, file: Path
) -> dict[str, Any]:
    """The float32 model's answers and its tokenizer's ids, kept in ``file`` for an interrupted run."""
    from slmops.runtimes.base import open_runtime

    if not file.is_file():
        runtime = open_runtime("torch", model, threads=threads)
        generations = _generate(runtime, prompts, limit)
        write_json(
            file, {"answers": [found.text for found in generations], "tokens": [runtime.tokenize(prompt) for prompt in prompts]}
        )
    found: dict[str, Any] = read_json(file)
    return found


def _attempt(
    scheme: str,
    target: Path,
    runtime: Runtime,
    rows: Sequence[Row],
    prompts: Sequence[str],
    reference: dict[str, Any],
    task: Task,
    parity: ParitySection,
    limit: int,
) -> dict[str, Any]:
    """One line of the report's table of schemes."""
    from slmops.export.parity import Side, compare

    generations = _generate(runtime, prompts, limit)
    candidate = Side(
        _prompts(target, rows), [runtime.tokenize(prompt) for prompt in prompts], [found.text for found in generations]
    )
    found = compare(Side(prompts, reference["tokens"], reference["answers"]), candidate)
    expected = [str(row.answer) for row in rows]
    before, after = (task.score(answers, expected)[task.primary_measure] for answers in (reference["answers"], candidate.answers))
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
