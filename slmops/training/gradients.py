"""Gradients that are cheaper to make and to measure than PyTorch's own, and the same numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def rows_of_embedding(model: Any) -> Iterator[None]:
    """While it lasts, the gradient of an input embedding that is the output layer too is added row by row.

    PyTorch makes a second tensor of the vocabulary's size for it, zero but for the batch's tokens, and adds that to the output
    layer's. Nothing changes where the two are not one, are frozen or not plain, or on a GPU.
    """
    module = model.get_input_embeddings()
    head = model.get_output_embeddings()
    weight = getattr(module, "weight", None)
    if type(module) is not torch.nn.Embedding or head is None or head.weight is not weight or weight.device.type != "cpu":
        yield
        return

    def cut(_: Any, given: tuple[torch.Tensor, ...], states: torch.Tensor) -> torch.Tensor:
        if not states.requires_grad:
            return states
        ids = given[0].flatten()
        apart = states.detach().requires_grad_(True)

        def add(gradient: torch.Tensor) -> None:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            rows = gradient.flatten(0, -2).to(weight.dtype)
            if module.padding_idx is not None:  # a row that nn.Embedding gives no gradient
                rows = rows.masked_fill((ids == module.padding_idx).unsqueeze(-1), 0.0)
            weight.grad.index_add_(0, ids, rows)

        apart.register_hook(add)
        return apart

    handle = module.register_forward_hook(cut)
    try:
        yield
    finally:
        handle.remove()


def clip(parameters: Iterable[torch.nn.Parameter], longest: float) -> float:
    """Scale the gradients down to a length in all; a length that is not finite scales nothing.

    Args:
        parameters: Those without a gradient are passed over.
        longest: Of the Euclidean norm.

    Returns:
        The norm before.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    # A product with itself is read in one pass by several times as fast a kernel as vector_norm's.
    squares = [torch.dot(flat, flat) for flat in (gradient.reshape(-1) for gradient in gradients)]
    norm = math.sqrt(math.fsum(float(square) for square in squares))
    if norm > longest and math.isfinite(norm):
        for gradient in gradients:
            gradient.mul_(longest / (norm + 1e-6))
    return norm
