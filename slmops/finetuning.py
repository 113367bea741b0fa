"""Fine-tuning: a model learns from labelled rows, with the loop of a distillation and without a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from slmops.config import FinetuneRecipe, save_recipe
from slmops.continuing import continued
from slmops.errors import DataError, MissingExtraError
from slmops.files import read_json, write_json
from slmops.models.adapter import ADAPTER_CONFIG, tokenizer_folder
from slmops.models.bottleneck_folder import BOTTLENECK_CONFIG, is_bottleneck
from slmops.models.fit import Purpose, check_disk, check_fits
from slmops.models.resolve import FINETUNED, REFERENCE, ResolvedModel, resolve
from slmops.pipeline import here
from slmops.stages.context import MODEL, DataContext, ModelAt
from slmops.stages.learning import located
from slmops.stages.preparing import gold_of, prepare_data
from slmops.stages.teaching import ADAPTER, train_model
from slmops.tasks.base import task_name
from slmops.training.diagnosis import diagnose
from slmops.workspace import StageResult, Step, Workspace, remove_tree, replace_folder

_NEEDED = ("torch", "transformers", "accelerate")


@dataclass(frozen=True)
class Finetuned:
    """What a fine-tuning left in ``root``: ``model``, for adapter methods ``adapter``, and facts.

    Args:
        root: The run's folder.
        facts: As ``finetune.json`` has them.
    """

    root: Path
    facts: dict[str, Any]


def finetune(recipe: FinetuneRecipe) -> Finetuned:
    """Fine-tune a model, or go on with it; what is done already is not done again.

    Raises:
        SlmopsError: Something in the recipe, the data or the machine stops it; the message says what to do.
    """
    workspace = Workspace(recipe.output_path)
    with workspace.lock():
        task_name(recipe.task_type)
        given, (recipe, adapter) = recipe, continued(recipe)
        lora = recipe.training.lora
        for package in (*_NEEDED, *(("peft",) if lora else ())):
            if find_spec(package) is None:
                raise MissingExtraError(package, "train")
        base = resolve(recipe.model)
        alone = _adapter_alone(recipe)
        purpose: Purpose = "training-lora" if alone else "training-full"
        weight_bytes = lora.bits / 8 if lora is not None and lora.bits is not None else 4
        check_fits(base.parameters, purpose, what=f"the model {base.reference}", bytes_per_parameter=weight_bytes)
        check_disk(recipe.output_path, 4 * base.parameters * (1 if alone and not recipe.merge else 4) / 1e6)
        save_recipe(recipe.output_path / "recipe.yaml", given)
        context = DataContext(recipe, workspace)
        prepared = prepare_data(context, _read_by(located(base), adapter))
        if not gold_of(context, prepared).training:
            raise DataError(
                "no training row has an answer", where="data", fix="give rows with answers: there is nothing to learn from"
            )
        return _published(recipe, base, prepared, _tuned(context, recipe, base, adapter, prepared))


def plan(recipe: FinetuneRecipe) -> list[Step]:
    """What :func:`finetune` would do, and why; nothing is written and no model is fetched."""
    workspace = Workspace(recipe.output_path, planning=True)
    recipe, adapter = continued(recipe)
    context, base = DataContext(recipe, workspace), here(recipe.model)
    prepared = prepare_data(context, _read_by(located(base), adapter))
    _tuned(context, recipe, base, adapter, prepared)
    return workspace.steps


def _adapter_alone(recipe: FinetuneRecipe) -> bool:
    return not recipe.head and (recipe.training.lora is not None or recipe.training.bottleneck is not None)


def _read_by(base: ModelAt, adapter: ModelAt | None) -> ModelAt:
    """Whose tokenizer reads the rows."""
    return adapter if adapter is not None and tokenizer_folder(adapter.path, base.path) == adapter.path else base


def _tuned(
    context: DataContext, recipe: FinetuneRecipe, base: ResolvedModel | None, adapter: ModelAt | None, prepared: StageResult
) -> StageResult:
    alone, inputs = _adapter_alone(recipe), {"data": prepared}
    options: dict[str, Any] = {"adapter_alone": alone, "adapter": adapter, "head": recipe.head}
    return train_model(context, "tuned", located(base), inputs, recipe.training, **options)


def _published(recipe: FinetuneRecipe, base: ResolvedModel, prepared: StageResult, tuned: StageResult) -> Finetuned:
    """Put what people look for at the top of the run's folder."""
    root = recipe.output_path
    if not _adapter_alone(recipe):
        replace_folder(root / MODEL, tuned.path / MODEL)
    else:
        replace_folder(root / ADAPTER, tuned.path / ADAPTER)
        # What is noted is where the base lay; what it was called is good on other machines too.
        named = root / ADAPTER / (BOTTLENECK_CONFIG if is_bottleneck(root / ADAPTER) else ADAPTER_CONFIG)
        config = read_json(named)
        named.unlink()
        write_json(named, config | {"base_model_name_or_path": _name_of(base)})
        if recipe.merge:
            replace_folder(root / MODEL, resolve(root / ADAPTER).path)
        else:
            remove_tree(root / MODEL)
            write_json(root / MODEL / REFERENCE, {"base": _name_of(base), "adapter": f"../{ADAPTER}"})
    facts = {
        "base": _name_of(base),
        "method": _method(recipe),
        "merged": recipe.merge,
        "parameters": base.parameters,
        **{
            name: tuned.facts[name]
            for name in ("rows", "steps", "kept", "answer_tokens", "seconds", "curve", "too_long")
            if name in tuned.facts
        },
    }
    found = diagnose(tuned.facts["curve"], planned=tuned.facts["planned"], labels=prepared.facts["labels"])
    facts["diagnosis"] = found.as_dict()
    write_json(root / FINETUNED, facts)
    return Finetuned(root, facts)


def _method(recipe: FinetuneRecipe) -> str:
    lora, bottleneck = recipe.training.lora, recipe.training.bottleneck
    if bottleneck is not None:
        return bottleneck.kind
    if lora is None:
        return "full"
    return "qlora" if lora.bits is not None else "dora" if lora.dora else "lora"


def _name_of(base: ResolvedModel) -> str:
    """What a model is called from any folder: a path is made absolute."""
    is_named = base.source.startswith(("hub ", "wheel "))
    return base.reference if is_named else str(Path(base.reference).expanduser().resolve())
