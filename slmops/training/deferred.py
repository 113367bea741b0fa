"""Gradients of linear layers' weights, made when all threads' backward passes have ended: one product a weight.

A backward pass needs the gradients of activations at once; those of weights nobody waits for until the update (Qi et al., "Zero
Bubble Pipeline Parallelism", 2024). Threads that each have some of the rows would each make a gradient as large as the weight,
convert it and add it to the others'. Here they leave what it is made of, and one product makes it of all rows. Each thread makes
those of other weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from slmops.training.batches import padded_count
from slmops.training.native import kernels

_NARROWEST = 128
"""Sides of a weight from which on it pays: a narrow one's gradient is small, and what it is made of must be kept until the end."""


class Waiting:
    """What the gradients of weights are made of, left by a backward pass: inputs and the gradients of outputs, by weight."""

    def __init__(self) -> None:
        self._pairs: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self._converted: tuple[torch.Tensor, torch.Tensor] | None = None

    def leave(self, place: int, given: torch.Tensor, above: torch.Tensor) -> None:
        """Keep an input ``[..., in]`` and a gradient ``[..., out]`` of the weight at a place."""
        self._pairs.setdefault(place, []).append((given.flatten(0, -2), above.flatten(0, -2)))

    def take(self, place: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """What was left for the weight at a place, and is no longer kept."""
        return self._pairs.pop(place, [])

    def clear(self) -> None:
        """Keep nothing."""
        self._pairs.clear()
        self._converted = None

    def converted(self, given: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """An input in another number type, once for the layers that read it one after the other."""
        if self._converted is None or self._converted[0] is not given:
            self._converted = given, given.detach().to(dtype)
        return self._converted[1]


@dataclass(frozen=True)
class Deferred:
    """The weights of a model whose gradients are made later, and what each of its twins leaves for them.

    Args:
        weights: Of the model, float32 ``[out, in]``.
        waiting: For each twin.
    """

    weights: tuple[torch.nn.Parameter, ...]
    waiting: tuple[Waiting, ...]

    @classmethod
    def of(cls, model: Any, twins: Sequence[Any], dtype: torch.dtype | None) -> Deferred:
        """Those of trained linear layers without bias that are wide, but the last; the twins leave them to this from now on.

        Args:
            model: That is trained.
            twins: Of it.
            dtype: Number type that the twins' weights must have been converted to; absent: any.
        """
        head = model.get_output_embeddings()
        names = [
            name
            for name, module in model.named_modules()
            if type(module) is torch.nn.Linear
            and module is not head
            and module.bias is None
            and module.weight.requires_grad
            and min(module.weight.shape) >= _NARROWEST
            and all(twin.get_submodule(name).weight.dtype is (dtype or module.weight.dtype) for twin in twins)
        ]
        waiting = tuple(Waiting() for _ in twins)
        for twin, own in zip(twins, waiting, strict=True):
            for place, name in enumerate(names):
                layer = twin.get_submodule(name)
                layer.forward = _Later(layer.weight, own, place)
        return cls(tuple(model.get_submodule(name).weight for name in names), waiting)

    def shares(self, count: int) -> list[list[Products]]:
        """What has been left, as so many parts of about as many operations: always the same for the same."""
        groups: dict[tuple[int, ...], Products] = {}
        for place, weight in enumerate(self.weights):
            pairs = [pair for own in self.waiting for pair in own.take(place)]
            if pairs:
                key = tuple(given.data_ptr() for given, _ in pairs)
                group = groups.setdefault(key, Products([given for given, _ in pairs], []))
                group.outputs.append((weight, [above for _, above in pairs]))
        parts: list[list[Products]] = [[] for _ in range(count)]
        done = [0] * count
        for group in sorted(groups.values(), key=lambda one: -one.size):
            least = done.index(min(done))
            parts[least].append(group)
            done[least] += group.size
        return parts


@dataclass(frozen=True)
class Products:
    """Gradients of weights that have their inputs in common.

    Args:
        inputs: ``[rows, in]`` each.
        outputs: Weights, and for each the gradients of its outputs, ``[rows, out]`` each.
    """

    inputs: list[torch.Tensor]
    outputs: list[tuple[torch.nn.Parameter, list[torch.Tensor]]]

    @property
    def size(self) -> int:
        """Multiplications for each row."""
        return sum(weight.numel() for weight, _ in self.outputs)

    def add(self) -> None:
        """Add them to what the weights have."""
        given = _stacked(self.inputs)
        for weight, above in self.outputs:
            weight.grad = added(weight.grad, _stacked_columns(above) @ given)


def added(so_far: torch.Tensor | None, gradient: torch.Tensor) -> torch.Tensor:
    """The sum of gradients in float32; the first is the sum's memory."""
    return gradient.float() if so_far is None else so_far.add_(gradient)


def _stacked(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows one below the other, and zeros below, so that products come in few shapes."""
    count = sum(len(part) for part in parts)
    return torch.cat([*parts, parts[0].new_zeros(padded_count(count) - count, parts[0].shape[1])])


def _stacked_columns(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """:func:`_stacked`, transposed; in memory too where that is quick: products of bfloat16 then take two thirds of the time."""
    compiled = kernels(parts[0].dtype)
    if compiled is None:
        return _stacked(parts).t()
    return compiled.stacked_columns([part.contiguous() for part in parts], padded_count(sum(len(part) for part in parts)))


@dataclass(frozen=True)
class _Later:
    """The forward pass of a linear layer without bias whose weight gets its gradient later."""

    weight: torch.Tensor
    waiting: Waiting
    place: int

    def __call__(self, given: torch.Tensor) -> torch.Tensor:
        low = self.waiting.converted(given, self.weight.dtype)
        found: torch.Tensor = _Product.apply(given, low, self.weight, self.waiting, self.place)
        return found


class _Product(torch.autograd.Function):
    """A linear layer: back goes the input's gradient, and what makes the weight's is left."""

    @staticmethod
    def forward(
        ctx: Any, given: torch.Tensor, low: torch.Tensor, weight: torch.Tensor, waiting: Waiting, place: int
    ) -> torch.Tensor:
        ctx.save_for_backward(low, weight)
        ctx.waiting, ctx.place = waiting, place
        return torch.nn.functional.linear(low, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (above,), (low, weight) = gradients, ctx.saved_tensors
        ctx.waiting.leave(ctx.place, low, above)
        return above @ weight if ctx.needs_input_grad[0] else None, None, None, None, None
