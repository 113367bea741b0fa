"""A fine-tuning's hyperparameters: those the user gave, and for the others the defaults of its method, model and rows."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

from slmops.config import FinetuneRecipe
from slmops.data.rows import Row
from slmops.models.load import read_config
from slmops.stages.context import DataContext, rows_of
from slmops.stages.preparing import open_source
from slmops.teachers.replies import estimate_text_tokens, estimate_tokens
from slmops.training.defaults import CHOSEN, Job, Setting, choose, settings_of
from slmops.workspace import StageResult, Workspace

_WIDTHS = ("hidden_size", "n_embd", "d_model")
_LONG = 0.95


def settle(
    recipe: FinetuneRecipe, method: str, model: Path | None, data: StageResult | None, names: Collection[str]
) -> tuple[FinetuneRecipe, dict[str, Setting]]:
    """The recipe with defaults for some fields of its training, and these with their reasons.

    They follow from rows, method and model, so the same command chooses the same again.

    Args:
        recipe: As the user gave it.
        method: ``full``, or an adapter's.
        model: Folder of the model; ``None`` while it is not on this machine, and then its rate is not known.
        data: The prepared rows; ``None`` while planning without them, and then those of the source are counted.
        names: Fields of :data:`slmops.training.defaults.CHOSEN` that the user left open.
    """
    names = [name for name in CHOSEN if name in names]
    if not names:
        return recipe, {}
    of_texts = recipe.trained_on == "text"
    if data is not None:
        rows, share = rows_of(data, "train"), 1.0
    else:
        raw = open_source(DataContext(recipe, Workspace(recipe.output_path, planning=True))).read()
        rows, share = raw.pool if of_texts else raw.labelled, 1.0 if raw.validation else 1 - recipe.data.validation_share
    if of_texts:  # which become blocks of one length
        tokens = float(recipe.training.max_length)
        count = math.ceil(share * sum(estimate_tokens(row.messages) for row in rows) / tokens)
    else:
        tokens, count = _tokens(rows), round(share * len(rows))
    job = Job(method, None if model is None else width_of(model), max(1, count), tokens)
    chosen = choose(job, recipe.training, names)
    values = {name: setting.value for name, setting in chosen.items() if setting.value is not None}
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=values)}), chosen


def table_of(recipe: FinetuneRecipe, chosen: dict[str, Setting], data: StageResult | None) -> list[Setting]:
    """All that is shown before a training.

    Args:
        recipe: With the chosen values.
        chosen: Of :func:`settle`.
        data: The prepared rows; ``None`` while planning without them.
    """
    return settings_of(recipe.training, chosen, _validation(recipe, data))


def width_of(model: Path) -> int | None:
    """Width of a model's hidden states, where its configuration says it."""
    config = read_config(model)
    found = [values[key] for values in (config, config.get("text_config") or {}) for key in _WIDTHS if key in values]
    return int(found[0]) if found else None


def _validation(recipe: FinetuneRecipe, data: StageResult | None) -> Setting:
    source, share = recipe.data.source, recipe.data.validation_share
    given = bool(source.get("validation") or source.get("validation_split"))
    rows = f"{data.facts['rows']['validation']:,} rows" if data is not None else "as given" if given else f"{share:.0%} of the rows"
    if given:
        return Setting("validation", rows, "yours", "")
    by = "drawn evenly" if data is not None else "by label where there are some"
    if data is not None and data.facts["labels"]:
        by = "by label, of which each keeps training rows"
    return Setting("validation", rows, "default", f"none given: {share:.0%} held out, {by}")


def _tokens(rows: Sequence[Row]) -> float:
    """Of a row that is longer than 95 % of them, by its characters."""
    lengths = sorted(estimate_tokens(row.messages) + estimate_text_tokens(row.answer or "") for row in rows)
    return float(lengths[math.ceil(_LONG * len(lengths)) - 1]) if lengths else 1.0
