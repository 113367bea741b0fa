"""An adapter of PEFT as a model: merged into its base, once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.errors import MissingExtraError, ModelError
from slmops.files import digest, read_json
from slmops.models.bottleneck_folder import refuse_bottleneck
from slmops.models.cache import MODEL_FILES, cached_digest
from slmops.models.load import TOKENIZER_FILES, load_model, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MERGING = 1
"""Version of what merging makes; raised when its result changes."""


@dataclass(frozen=True)
class Adapter:
    """A folder as PEFT saves it: ``adapter_config.json`` and ``adapter_model.safetensors``, with or without a tokenizer.

    Args:
        path: The folder.
        base: What its base model is called there: a path, a name or a hub id.
        kind: Of the adapter, such as ``LORA``.
    """

    path: Path
    base: str
    kind: str

    @classmethod
    def read(cls, path: Path) -> Adapter:
        """That of a folder; no weights are read.

        Raises:
            ModelError: Its weights are missing or pickled, or it does not say what its base is.
        """
        if not (path / ADAPTER_WEIGHTS).is_file():
            pickled = (path / "adapter_model.bin").is_file()
            raise ModelError(
                "the adapter's weights are pickled, which can run any code when read" if pickled else f"no {ADAPTER_WEIGHTS} here",
                where=str(path),
                fix="save it again with a current PEFT: model.save_pretrained(folder)",
            )
        try:
            config: Any = read_json(path / ADAPTER_CONFIG)
            base, kind = config.get("base_model_name_or_path"), str(config.get("peft_type", "adapter"))
        except (ValueError, AttributeError) as error:
            raise ModelError(f"not valid JSON: {error}", where=str(path / ADAPTER_CONFIG)) from error
        if not isinstance(base, str) or not base:
            raise ModelError(
                "it does not say which model it was trained on",
                where=str(path / ADAPTER_CONFIG),
                fix="write base_model_name_or_path there: a path, a name of the catalogue or a hub id",
            )
        if Path(base).expanduser().resolve() == path.resolve():
            raise ModelError("this adapter names itself as its base", where=str(path / ADAPTER_CONFIG))
        return cls(path, base, kind)

    @property
    def fingerprint(self) -> str:
        """Changes when weights, settings or tokenizer do; hex."""
        own = [self.path / ADAPTER_CONFIG, *(file for file in self.path.iterdir() if MODEL_FILES.fullmatch(file.name))]
        return digest([[file.name, cached_digest(file)] for file in sorted(own)])


def merge_adapter(adapter: Adapter, base: Path, target: Path) -> None:
    """Write the base with the adapter merged into its weights to ``target`` (Hugging Face layout, float32).

    The tokenizer is the adapter's where it has one, else the base's.

    Raises:
        ModelError: It does not fit its base, or is of a kind that cannot be merged.
        MissingExtraError: PEFT is not installed.
    """
    refuse_bottleneck(base)
    adapted = put_on(adapter, load_model(base))
    with _fitting(adapter):
        merged: Any = adapted.merge_and_unload(safe_merge=True)
    merged.save_pretrained(target)
    copy_tokenizer(tokenizer_folder(adapter.path, base), target)


def unmerge_adapter(adapter: Adapter, merged: Path, target: Path) -> None:
    """Write the base to ``target`` again, up to rounding: the merged weights less what the adapter added to them.

    Args:
        adapter: A low-rank adapter whose update is a sum (Hu et al. 2021).
        merged: Folder of the base with the adapter merged into it.
        target: The folder to fill.

    Raises:
        ModelError: It does not fit, or merging it lost what the base was.
        MissingExtraError: PEFT is not installed.
    """
    config = read_json(adapter.path / ADAPTER_CONFIG)
    lossy = {
        "is no LoRA": adapter.kind != "LORA",
        "scales the rows of the weights to lengths of its own (DoRA)": config.get("use_dora"),
        "replaced whole layers (modules_to_save)": config.get("modules_to_save"),
        "replaced biases": config.get("bias", "none") != "none",
    }
    if why := next((text for text, holds in lossy.items() if holds), None):
        raise ModelError(
            f"this adapter {why}, so what the base was cannot be computed from the merged weights",
            where=str(adapter.path),
            fix=f"take the base itself: {adapter.base}",
        )
    adapted = put_on(adapter, load_model(merged))
    from peft.tuners.lora import LoraLayer

    for layer in adapted.modules():
        if isinstance(layer, LoraLayer):
            layer.merged_adapters.extend(adapted.active_adapters)
    with _fitting(adapter):
        adapted.unmerge_adapter()
    adapted.unload().save_pretrained(target)
    copy_tokenizer(merged, target)


def put_on(adapter: Adapter, model: PreTrainedModel, *, trained: bool = False) -> Any:
    """A model of PEFT: a base with an adapter, whose tokenizer may have more tokens.

    Args:
        adapter: The adapter.
        model: Its base, or a model of the same form.
        trained: Whether the adapter's weights are to be trained further.

    Raises:
        ModelError: It does not fit.
        MissingExtraError: PEFT is not installed.
    """
    try:
        from peft import PeftModel
    except ModuleNotFoundError as error:
        raise MissingExtraError("peft", "train") from error
    if has_tokenizer(adapter.path):
        rows = len(load_tokenizer(adapter.path))
        if rows > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(rows)
    with _fitting(adapter):
        return PeftModel.from_pretrained(model, str(adapter.path), is_trainable=trained)


@contextmanager
def _fitting(adapter: Adapter) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ModelError(
            f"this adapter ({adapter.kind}) cannot be merged into {adapter.base}: {error}",
            where=str(adapter.path),
            fix="check that base_model_name_or_path names the model that it was trained on",
        ) from error


def has_tokenizer(path: Path) -> bool:
    """Whether a folder holds a tokenizer."""
    return any((path / name).is_file() for name in TOKENIZER_FILES)


def tokenizer_folder(adapter: Path, base: Path) -> Path:
    """Where the tokenizer of an adapter on a base lies: beside the adapter, else beside the base."""
    return adapter if has_tokenizer(adapter) else base


def copy_tokenizer(tokenizer: Path, target: Path) -> None:
    """Copy what a folder has beside weights into another, where it is not there yet."""
    for file in tokenizer.iterdir():
        if MODEL_FILES.fullmatch(file.name) and not (target / file.name).exists() and file.suffix != ".safetensors":
            shutil.copyfile(file, target / file.name)
