"""Going on with an adapter: it is trained further on its own base, with its own settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from slmops.config import FinetuneRecipe, build
from slmops.errors import ConfigError, ModelError
from slmops.files import read_json
from slmops.models.adapter import ADAPTER_CONFIG, Adapter
from slmops.models.bottleneck_folder import BottleneckFolder, is_bottleneck
from slmops.models.cache import fingerprint
from slmops.models.resolve import adapter_at, is_adapter
from slmops.sections import BottleneckSection, LoraSection
from slmops.stages.context import ModelAt

_LORA = {"r": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "dora": "use_dora"}
"""Fields of :class:`LoraSection`, and what PEFT calls them."""


class Continued(NamedTuple):
    """A recipe that is about an adapter's base, and the adapter.

    Args:
        recipe: With the base as its model and the adapter's settings as its own.
        adapter: The folder that training starts from; ``None`` where it starts from a new adapter, or from none.
        note: What to say of it.
    """

    recipe: FinetuneRecipe
    adapter: ModelAt | None
    note: str | None = None


def continued(recipe: FinetuneRecipe) -> Continued:
    """What a recipe trains, with the settings of the adapter that it goes on with, where it does.

    Raises:
        ConfigError: The model is no adapter, or the recipe has settings of its own where the adapter's hold.
        ModelError: The adapter cannot be read, or is of a kind that is not trained here.
    """
    given = Path(recipe.model).expanduser()
    path = adapter_at(given)
    if not recipe.continue_adapter:
        merged = path is not None and is_adapter(given) and not is_bottleneck(path)
        note = f"the adapter {recipe.model} is merged into its base first; --continue_adapter trains it further instead"
        return Continued(recipe, None, note if merged else None)
    if path is None:
        raise ConfigError(
            f"{recipe.model} is no adapter, which is what could be continued",
            where="continue_adapter",
            fix="give the folder of an adapter or of a run that trained one, or leave it out",
        )
    name, sections, note = _of_bottleneck(recipe, path) if is_bottleneck(path) else _of_peft(recipe, path)
    training = recipe.training.model_copy(update=sections)
    found = build(FinetuneRecipe, {**dict(recipe), "model": name, "training": dict(training)}, where="continue_adapter")
    return Continued(found, ModelAt(path.resolve(), fingerprint(path)), note)


def _of_bottleneck(recipe: FinetuneRecipe, path: Path) -> tuple[str, dict[str, Any], str]:
    folder = BottleneckFolder.read(path)
    _refuse_other("lora", recipe.training.lora, {}, path)
    _refuse_other("bottleneck", recipe.training.bottleneck, {"kind": folder.kind, "size": folder.size}, path)
    note = f"continuing {path}: {folder.kind} with {folder.size} values on {folder.base_model_name_or_path}"
    section = BottleneckSection(kind=folder.kind, size=folder.size)
    return folder.base_model_name_or_path, {"lora": None, "bottleneck": section}, note


def _of_peft(recipe: FinetuneRecipe, path: Path) -> tuple[str, dict[str, Any], str]:
    adapter = Adapter.read(path)
    config = read_json(path / ADAPTER_CONFIG)
    if adapter.kind != "LORA":
        raise ModelError(
            f"an adapter of the kind {adapter.kind} is not trained further here", where=str(path), fix="give one of LoRA or DoRA"
        )
    own = recipe.training.lora
    values = {field: config[name] for field, name in _LORA.items() if config.get(name) is not None}
    bits = own.bits if own is not None else None
    _refuse_other("lora", own, {**values, "bits": bits}, path)
    _refuse_other("bottleneck", recipe.training.bottleneck, {}, path)
    section = LoraSection(**values, bits=bits)
    note = f"continuing {path}: {'dora' if section.dora else 'lora'} of rank {section.r} on {adapter.base}"
    return adapter.base, {"lora": section, "bottleneck": None}, note


def _refuse_other(name: str, own: LoraSection | BottleneckSection | None, values: dict[str, Any], path: Path) -> None:
    """Refuse settings of the recipe that an adapter has already."""
    given = own.model_dump(exclude_unset=True, exclude_none=True) if own is not None else {}
    for field, value in given.items():
        if value != values.get(field):
            has = f": it is {values[field]}" if values.get(field) is not None else ""
            raise ConfigError(
                f"{value} is asked for, and the adapter that is continued decides this itself{has}",
                where=f"training.{name}.{field}",
                fix=f"leave it out, or train a new adapter: without --continue_adapter {path} is merged first",
            )
