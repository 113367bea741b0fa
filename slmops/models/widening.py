"""New tokens of a model: rows of its embedding and of its output layer, which begin as the mean of those it has."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch


def widen(model: Any, ids: Sequence[int]) -> None:
    """Give a model rows for new tokens, in place.

    Each begins as the mean of the rows of all tokens before, so that a model gives none of them a probability that stands out
    (Hewitt 2021, "Initializing new word embeddings for pretrained language models").

    Args:
        model: A causal language model of transformers, without an adapter.
        ids: Of the new tokens; rows that the model has already, as filling, are overwritten.
    """
    if max(ids) >= model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    new = torch.tensor(list(ids))
    with torch.no_grad():
        for layer in _layers(model):
            weight = layer.weight
            weight[new] = weight[: min(ids)].mean(0)
            if getattr(layer, "bias", None) is not None:
                layer.bias[new] = layer.bias[: min(ids)].mean()


def token_rows(model: Any, ids: Sequence[int], whole: Collection[str] = ()) -> dict[str, list[int]]:
    """PEFT's ``trainable_token_indices``: by layer, the rows that are trained beside an adapter.

    Args:
        model: A causal language model of transformers.
        ids: Of the tokens.
        whole: Names of layers that are trained as a whole anyway.
    """
    if not ids:
        return {}
    wanted = {id(layer) for layer in _layers(model)}
    names = [name for name, module in model.named_modules() if id(module) in wanted]
    return {name: list(ids) for name in names if not any(f".{name}".endswith(f".{one}") for one in whole)}


def _layers(model: Any) -> list[Any]:
    """The embedding and, where it is another matrix, the output layer."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    return [embedding] if head is None or head.weight is embedding.weight else [embedding, head]
