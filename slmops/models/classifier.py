"""A language model with a classification head: one linear layer from the last token's state to the labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from slmops.errors import ConfigError, ModelError
from slmops.models.bottleneck_folder import refuse_bottleneck
from slmops.models.load import load_with, read_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ENDS_WITH = "ForSequenceClassification"
_HEAD = "score"
"""What transformers calls the head of all its decoders."""


def is_classifier(path: Path) -> bool:
    """Whether a folder in Hugging Face layout holds a model with a classification head."""
    return (path / "config.json").is_file() and any(
        str(name).endswith(_ENDS_WITH) for name in read_config(path).get("architectures") or ()
    )


def new_classifier(base: Path, labels: Sequence[str]) -> PreTrainedModel:
    """A language model whose output layer gives way to a new head, with random weights.

    Args:
        base: Folder of the language model.
        labels: What the head chooses from.

    Raises:
        ConfigError: transformers has no such head for this family.
        ModelError: The base cannot be loaded.
    """
    refuse_bottleneck(base)
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)}}
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(str(base), local_files_only=True, trust_remote_code=False)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ConfigError(
            f"models of the type {config.model_type!r} have no classification head", where="head", fix="train without --head"
        )
    return load_with("AutoModelForSequenceClassification", base, "float32", "eager", new=f"{_HEAD}.", **named)


def load_classifier(path: Path, attention: Literal["eager", "sdpa"] = "sdpa") -> PreTrainedModel:
    """The model with a head of a folder, in float32 and evaluation mode.

    Raises:
        ModelError: Its weights are damaged or lack a tensor, or it has a head of another form.
    """
    model = load_with("AutoModelForSequenceClassification", path, "float32", attention)
    if head_of(model) is None:
        raise ModelError(f"a {type(model).__name__} has no head {_HEAD!r}", where=str(path), fix="give a decoder's folder")
    return model


def head_of(model: Any) -> Any:
    """The classification head of a model; ``None`` without one."""
    return getattr(model, _HEAD, None)
