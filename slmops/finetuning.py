"""Fine-tuning: a model learns from labelled rows, with the loop of a distillation and without a teacher."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.config import FinetuneRecipe, save_recipe
from slmops.continuing import continued
from slmops.errors import DataError, MissingExtraError
from slmops.evaluation.finetune_page import PAGE, render_html
from slmops.files import read_json, write_json, write_text
from slmops.models.adapter import ADAPTER_CONFIG, tokenizer_folder
from slmops.models.bottleneck_folder import BOTTLENECK_CONFIG, is_bottleneck
from slmops.models.fit import Purpose, check_disk, check_fits
from slmops.models.load import remote_code
from slmops.models.resolve import FINETUNED, REFERENCE, ResolvedModel, resolve
from slmops.pipeline import here
from slmops.progress import say
from slmops.stages.before_after import is_scored, score_both
from slmops.stages.context import MODEL, DataContext, ModelAt
from slmops.stages.foreseeing import foreseen
from slmops.stages.learning import located
from slmops.stages.preparing import gold_of, prepare_data
from slmops.stages.settling import settle, table_of
from slmops.stages.teaching import ADAPTER, train_model
from slmops.stages.texts import prepare_texts
from slmops.tasks.base import task_name
from slmops.training.defaults import Setting, table
from slmops.training.diagnosis import diagnose
from slmops.training.registry import own_file
from slmops.workspace import StageResult, Step, Workspace, remove_tree, replace_folder

if TYPE_CHECKING:
    from slmops.training.watching import Watch

_HIGHEST_LOSS = 700.0
"""Beyond it a perplexity is no number."""
_NEEDED = ("torch", "transformers", "accelerate")
_FEW_TOKENS = 128
_FACTS = (
    *("rows", "steps", "planned", "kept", "answer_tokens", "seconds", "curve", "rates", "too_long"),
    *("estimate", "peak_mb", "resumed"),
)


@dataclass(frozen=True)
class Finetuned:
    """What a fine-tuning left in ``root``: ``model``, for adapter methods ``adapter``, and facts.

    Args:
        root: The run's folder.
        facts: As ``finetune.json`` has them.
    """

    root: Path
    facts: dict[str, Any]


def finetune(recipe: FinetuneRecipe, choose: Collection[str] = ()) -> Finetuned:
    """Fine-tune a model, or go on with it; what is done already is not done again.

    Args:
        recipe: What is trained on what.
        choose: Fields of the training that the user left open, for which the defaults of method, model and rows are taken; the
            recipe that is saved has these.

    Raises:
        SlmopsError: Something in the recipe, the data or the machine stops it; the message says what to do.
    """
    with Workspace(recipe.output_path).lock(), remote_code(recipe.trust_remote_code):
        check(recipe)
        start = begin(recipe, choose)
        save_recipe(recipe.output_path / "recipe.yaml", start.given)
        return _published(start, tune(start))


@dataclass(frozen=True)
class Start:
    """What a fine-tuning starts from.

    Args:
        context: Of the run.
        given: The recipe as the user gave it, with the defaults that were chosen.
        recipe: The same about the model that is trained, where the given one names an adapter of it.
        base: That model.
        adapter: That is trained further; ``None``: a new one, or none.
        prepared: The rows.
        settings: To be shown.
    """

    context: DataContext
    given: FinetuneRecipe
    recipe: FinetuneRecipe
    base: ResolvedModel
    adapter: ModelAt | None
    prepared: StageResult
    settings: Sequence[Setting]


def check(recipe: FinetuneRecipe) -> None:
    """Refuse what cannot be trained on this machine, before anything is prepared.

    Raises:
        SlmopsError: A package is missing, a loss of the user's own does not work, there is no such task or model, or no room.
    """
    if recipe.trained_on != "text":
        task_name(recipe.task_type)
    recipe, _, _ = continued(recipe)
    lora = recipe.training.lora
    for package in (*_NEEDED, *(("peft",) if lora else ())):
        if find_spec(package) is None:
            raise MissingExtraError(package, "train")
    if recipe.training.report_to:
        from slmops.training.reports import check_names

        check_names(recipe.training.report_to)
    if any(own_file(spec) for spec in recipe.training.objectives):
        from slmops.training.objectives import WeightedSum

        WeightedSum.of(recipe.training.objectives)
    base = resolve(recipe.model)
    alone = _adapter_alone(recipe)
    purpose: Purpose = "training-lora" if alone else "training-full"
    weight_bytes = lora.bits / 8 if lora is not None and lora.bits is not None else 4
    what = f"the model {base.reference}"
    # With hardly a batch: what batches need is found by a dry run, which says what else would fit.
    check_fits(base.parameters, purpose, what=what, bytes_per_parameter=weight_bytes, batch_tokens=_FEW_TOKENS)
    check_disk(recipe.output_path, 4 * base.parameters * (1 if alone and not recipe.merge else 4) / 1e6)


def begin(recipe: FinetuneRecipe, choose: Collection[str] = ()) -> Start:
    """The stages before the training, which all trainings on the same data share.

    Args:
        recipe: What to train on what.
        choose: As of :func:`finetune`.

    Raises:
        SlmopsError: The data cannot be used, or has no answers.
    """
    given, (recipe, adapter, note) = recipe, continued(recipe)
    if note is not None:
        say(note)
    base = resolve(recipe.model)
    workspace = Workspace(recipe.output_path)
    prepared = _prepared(DataContext(recipe, workspace), recipe, base, adapter)
    recipe, chosen = settle(recipe, _method(recipe), base.path, prepared, choose)
    context = DataContext(recipe, workspace)
    if recipe.trained_on != "text" and not gold_of(context, prepared).training:
        raise DataError("no training row has an answer", where="data", fix="give rows with answers: there is nothing to learn from")
    values = {name: getattr(recipe.training, name) for name in chosen}
    given = given.model_copy(update={"training": given.training.model_copy(update=values)})
    return Start(context, given, recipe, base, adapter, prepared, table_of(recipe, chosen, prepared))


def tune(start: Start, watch: Watch | None = None) -> StageResult:
    """The training itself.

    Args:
        start: Of :func:`begin`.
        watch: Is told the validation loss on the way; such a training is one of many, and nothing is foreseen of it.
    """
    return _tuned(start.context, start.recipe, start.base, start.adapter, start.prepared, start.settings, watch)


def settled(recipe: FinetuneRecipe, choose: Collection[str] = ()) -> tuple[FinetuneRecipe, list[Setting]]:
    """The recipe that :func:`finetune` would run, and the table of its settings; nothing is written and no model is fetched."""
    recipe, adapter, _ = continued(recipe)
    context, base = DataContext(recipe, Workspace(recipe.output_path, planning=True)), here(recipe.model)
    with remote_code(recipe.trust_remote_code):
        prepared = _prepared(context, recipe, base, adapter)
    known = prepared if context.workspace.artifacts else None
    recipe, chosen = settle(recipe, _method(recipe), base.path if base is not None else None, known, choose)
    return recipe, table_of(recipe, chosen, known)


def plan(recipe: FinetuneRecipe) -> list[Step]:
    """What :func:`finetune` would do, and why; nothing is written and no model is fetched."""
    workspace = Workspace(recipe.output_path, planning=True)
    recipe, adapter, note = continued(recipe)
    if note is not None:
        say(note)
    with remote_code(recipe.trust_remote_code):
        context, base = DataContext(recipe, workspace), here(recipe.model)
        prepared = _prepared(context, recipe, base, adapter)
        _tuned(context, recipe, base, adapter, prepared, ())
    return workspace.steps


def _prepared(context: DataContext, recipe: FinetuneRecipe, base: ResolvedModel | None, adapter: ModelAt | None) -> StageResult:
    return prepare_texts(context) if recipe.trained_on == "text" else prepare_data(context, _read_by(located(base), adapter))


def _adapter_alone(recipe: FinetuneRecipe) -> bool:
    return not recipe.head and (recipe.training.lora is not None or recipe.training.bottleneck is not None)


def _read_by(base: ModelAt, adapter: ModelAt | None) -> ModelAt:
    """Whose tokenizer reads the rows."""
    return adapter if adapter is not None and tokenizer_folder(adapter.path, base.path) == adapter.path else base


def _tuned(
    context: DataContext,
    recipe: FinetuneRecipe,
    base: ResolvedModel | None,
    adapter: ModelAt | None,
    prepared: StageResult,
    settings: Sequence[Setting],
    watch: Watch | None = None,
) -> StageResult:
    return train_model(
        context,
        "tuned",
        located(base),
        {"data": prepared},
        recipe.training,
        watch=watch,
        adapter_alone=_adapter_alone(recipe),
        adapter=adapter,
        head=recipe.head,
        around=partial(foreseen, intro=table(settings)) if watch is None else None,
    )


def _scores(start: Start, tuned: StageResult) -> dict[str, Any] | None:
    """What the training did for the answers; ``None`` where the task has no score, or nobody wants to know."""
    recipe = start.recipe
    if not recipe.score or recipe.trained_on == "text" or not is_scored(recipe.task_type):
        return None
    model = tuned.path / (ADAPTER if _adapter_alone(recipe) else MODEL)
    before = located(start.base) if start.adapter is None else ModelAt(resolve(start.adapter.path).path, start.adapter.id)
    # Of a training that went on after a kill, the seconds are those of its last part.
    seconds = max(tuned.facts["seconds"], tuned.facts.get("estimate", {}).get("seconds", 0.0) if "resumed" in tuned.facts else 0.0)
    found = score_both(start.context, before, tuned, model, start.prepared, seconds, onto_before=start.adapter is None)
    return dict(found.facts) if found.facts["rows"] else None


def _published(start: Start, tuned: StageResult) -> Finetuned:
    """Put what people look for at the top of the run's folder."""
    recipe, base, prepared = start.recipe, start.base, start.prepared
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
        **{name: tuned.facts[name] for name in _FACTS if name in tuned.facts},
        "settings": [setting.as_dict() for setting in start.settings],
        "scores": _scores(start, tuned),
    }
    if "texts" in tuned.facts:
        facts["texts"] = _of_texts(tuned.facts)
    labels = prepared.facts["labels"]
    found = diagnose(tuned.facts["curve"], planned=tuned.facts["planned"], labels=labels, scores=facts["scores"])
    facts["diagnosis"] = found.as_dict()
    write_text(root / PAGE, render_html(recipe.name, facts))
    write_json(root / FINETUNED, facts)
    return Finetuned(root, facts)


def _of_texts(tuned: Mapping[str, Any]) -> dict[str, Any]:
    """Blocks and tokens, and the perplexity of the validation texts with the model as it was and with the weights kept."""
    texts = dict(tuned["texts"])
    before = texts.pop("before", None)
    looks = [point["validation"] for point in tuned["curve"] if point["validation"] is not None]
    after = (min(looks) if tuned.get("kept") else looks[-1]) if looks else None
    return {**texts, "perplexity": {"before": _perplexity(before), "after": _perplexity(after)}}


def _perplexity(loss: float | None) -> float | None:
    return math.exp(min(loss, _HIGHEST_LOSS)) if loss is not None else None


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
