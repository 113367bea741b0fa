"""How big a model is after a cut, before it is cut."""

from __future__ import annotations

from slmops.models.load import read_config
from slmops.models.resolve import Pending, ResolvedModel

_UNKNOWN_SHARE = 0.45


def parameters_after_cut(model: ResolvedModel | Pending, layers: int | None) -> int:
    """Weights of a model with so many layers left; for one that is not on this machine yet, a guess (0 if nothing is known)."""
    if isinstance(model, Pending):
        return round((model.parameters or 0) * (_UNKNOWN_SHARE if layers is not None else 1))
    config = read_config(model.path)
    total = int(config["num_hidden_layers"])
    if layers is None or layers >= total:
        return model.parameters
    embeddings = int(config["vocab_size"]) * int(config["hidden_size"]) * (1 if config.get("tie_word_embeddings", True) else 2)
    return embeddings + (model.parameters - embeddings) * layers // total
