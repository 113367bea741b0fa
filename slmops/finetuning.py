"""Fine-tuning: a model learns from labelled rows, with the loop of a distillation and without a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.config import FinetuneRecipe, save_recipe
from slmops.errors import DataError, MissingExtraError
from slmops.files import read_json, write_json
from slmops.models.adapter import ADAPTER_CONFIG
from slmops.models.fit import Purpose, check_disk, check_fits
from slmops.models.resolve import FINETUNED, REFERENCE, ResolvedModel, resolve
from slmops.pipeline import here
from slmops.stages.context import MODEL, DataContext
from slmops.stages.learning import located
from slmops.stages.preparing import gold_of, prepare_data
from slmops.stages.teaching import ADAPTER, train_model
from slmops.tasks.base import task_name
from slmops.training.diagnosis import diagnose
from slmops.training.registry import own_file
from slmops.workspace import StageResult, Step, Workspace, remove_tree, replace_folder

if TYPE_CHECKING:
    from slmops.training.watching import Watch

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
    with Workspace(recipe.output_path).lock():
        check(recipe)
        save_recipe(recipe.output_path / "recipe.yaml", recipe)
        start = begin(recipe)
        return _published(recipe, start.base, start.prepared, tune(start))


@dataclass(frozen=True)
class Start:
    """What a fine-tuning starts from: its recipe, the model that is trained, and the prepared rows."""

    context: DataContext
    recipe: FinetuneRecipe
    base: ResolvedModel
    prepared: StageResult


def check(recipe: FinetuneRecipe) -> None:
    """Refuse what cannot be trained on this machine, before anything is prepared.

    Raises:
        SlmopsError: A package is missing, a loss of the user's own does not work, there is no such task or model, or no room.
    """
    task_name(recipe.task_type)
    lora = recipe.training.lora
    for package in (*_NEEDED, *(("peft",) if lora else ())):
        if find_spec(package) is None:
            raise MissingExtraError(package, "train")
    if any(own_file(spec) for spec in recipe.training.objectives):
        from slmops.training.objectives import WeightedSum

        WeightedSum.of(recipe.training.objectives)
    base = resolve(recipe.model)
    purpose: Purpose = "training-lora" if lora else "training-full"
    weight_bytes = lora.bits / 8 if lora is not None and lora.bits is not None else 4
    check_fits(base.parameters, purpose, what=f"the model {base.reference}", bytes_per_parameter=weight_bytes)
    check_disk(recipe.output_path, 4 * base.parameters * (1 if lora and not recipe.merge else 4) / 1e6)


def begin(recipe: FinetuneRecipe) -> Start:
    """The stages before the training, which all trainings on the same data share.

    Raises:
        SlmopsError: The data cannot be used, or has no answers.
    """
    base = resolve(recipe.model)
    context = DataContext(recipe, Workspace(recipe.output_path))
    prepared = prepare_data(context, located(base))
    if not gold_of(context, prepared).training:
        raise DataError("no training row has an answer", where="data", fix="give rows with answers: there is nothing to learn from")
    return Start(context, recipe, base, prepared)


def tune(start: Start, watch: Watch | None = None) -> StageResult:
    """The training itself.

    Args:
        start: Of :func:`begin`.
        watch: Is told the validation loss on the way.
    """
    return _tuned(start.context, start.recipe, start.base, start.prepared, watch)


def plan(recipe: FinetuneRecipe) -> list[Step]:
    """What :func:`finetune` would do, and why; nothing is written and no model is fetched."""
    workspace = Workspace(recipe.output_path, planning=True)
    context, base = DataContext(recipe, workspace), here(recipe.model)
    prepared = prepare_data(context, located(base))
    _tuned(context, recipe, base, prepared)
    return workspace.steps


def _tuned(
    context: DataContext,
    recipe: FinetuneRecipe,
    base: ResolvedModel | None,
    prepared: StageResult,
    watch: Watch | None = None,
) -> StageResult:
    alone = recipe.training.lora is not None
    return train_model(context, "tuned", located(base), {"data": prepared}, recipe.training, adapter_alone=alone, watch=watch)


def _published(recipe: FinetuneRecipe, base: ResolvedModel, prepared: StageResult, tuned: StageResult) -> Finetuned:
    """Put what people look for at the top of the run's folder."""
    root = recipe.output_path
    if recipe.training.lora is None:
        replace_folder(root / MODEL, tuned.path / MODEL)
    else:
        replace_folder(root / ADAPTER, tuned.path / ADAPTER)
        # PEFT notes where the base lay; what it was called is good on other machines too.
        named = root / ADAPTER / ADAPTER_CONFIG
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
    lora = recipe.training.lora
    if lora is None:
        return "full"
    return "qlora" if lora.bits is not None else "dora" if lora.dora else "lora"


def _name_of(base: ResolvedModel) -> str:
    """What a model is called from any folder: a path is made absolute."""
    is_named = base.source.startswith(("hub ", "wheel "))
    return base.reference if is_named else str(Path(base.reference).expanduser().resolve())
