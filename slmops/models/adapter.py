"""An adapter of PEFT as a model: merged into its base, once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.errors import MissingExtraError, ModelError
from slmops.files import digest, read_json
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
    try:
        from peft import PeftModel
    except ModuleNotFoundError as error:
        raise MissingExtraError("peft", "train") from error
    own = any((adapter.path / name).is_file() for name in TOKENIZER_FILES)
    tokenizer = adapter.path if own else base
    model: PreTrainedModel = load_model(base)
    rows = len(load_tokenizer(tokenizer))
    if own and rows > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows)
    try:
        merged: Any = PeftModel.from_pretrained(model, str(adapter.path)).merge_and_unload(safe_merge=True)
    except (RuntimeError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ModelError(
            f"this adapter ({adapter.kind}) cannot be merged into {adapter.base}: {error}",
            where=str(adapter.path),
            fix="check that base_model_name_or_path names the model that it was trained on",
        ) from error
    merged.save_pretrained(target)
    for file in tokenizer.iterdir():
        if MODEL_FILES.fullmatch(file.name) and not (target / file.name).exists() and file.suffix != ".safetensors":
            shutil.copyfile(file, target / file.name)
