"""The registry of losses; naming them needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slmops.errors import ConfigError
from slmops.files import file_digest
from slmops.registry import Entry, Registry
from slmops.tasks.base import names_file

OWN = "own"
"""Name of a loss of the user's own, whose ``file`` says where it is."""

_ON_LAYERS = ("attention_maps", "attention_relations", "hidden_states")
_DIVERGENCES = "slmops.training.objectives.divergences"
OBJECTIVES = Registry(
    "objective",
    {
        "attention_maps": Entry("slmops.training.objectives.attention:AttentionMaps"),
        "attention_relations": Entry("slmops.training.objectives.attention:AttentionRelations"),
        "contrastive": Entry("slmops.training.objectives.contrastive:Contrastive"),
        "cross_entropy": Entry("slmops.training.objectives.base:CrossEntropy"),
        "forward_kl": Entry(f"{_DIVERGENCES}:ForwardKL"),
        "hidden_states": Entry("slmops.training.objectives.hidden:HiddenStates"),
        "jsd": Entry(f"{_DIVERGENCES}:GeneralizedJSD"),
        "reverse_kl": Entry(f"{_DIVERGENCES}:ReverseKL"),
        "skew_kl": Entry(f"{_DIVERGENCES}:SkewKL"),
        "skew_reverse_kl": Entry(f"{_DIVERGENCES}:SkewReverseKL"),
        "total_variation": Entry(f"{_DIVERGENCES}:TotalVariation"),
        "uld": Entry("slmops.training.objectives.uld:ULD"),
    },
)


def is_on_layers(spec: Mapping[str, Any]) -> bool:
    """Whether an objective of a recipe is a loss on layers; one of ours need not be imported for that.

    Raises:
        UsageError: Nothing is known by its name.
    """
    name = str(spec.get("name"))
    if own_file(spec) is not None or name in OBJECTIVES.builtin:
        return name in _ON_LAYERS
    from slmops.training.objectives.matching import Matching

    return isinstance(found := OBJECTIVES.get(name), type) and issubclass(found, Matching)


def own_file(spec: Mapping[str, Any]) -> str | None:
    """``file.py`` or ``file.py:name`` of a loss of the user's own; ``None`` for a registered one.

    Raises:
        ConfigError: ``own`` without the path of a Python file.
    """
    name = str(spec.get("name"))
    if names_file(name):
        return name
    if name != OWN:
        return None
    file = spec.get("file")
    if not isinstance(file, str) or not names_file(file):
        raise ConfigError(
            "an own loss needs its file", where="training.objectives", fix="write {name: own, file: my_loss.py:MyLoss}"
        )
    return file


def objective_key(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What stands for an objective in a stage's id: what the recipe says and, of a loss of the user's own, a hash of its file.

    Raises:
        ConfigError: There is no such file.
    """
    reference = own_file(spec)
    if reference is None:
        return dict(spec)
    file = Path(reference.rpartition(".py")[0] + ".py")
    if not file.is_file():
        raise ConfigError("no such file", where=str(file), fix="give the path of a Python file with your loss")
    return {**spec, "contents": file_digest(file)}
