"""Root mean square norms in fewer passes over memory, with the backward pass written out.

A processor does such operations as fast as memory gives it the numbers, and each of PyTorch's reads and writes all states once
more: five times forward and eleven times back. Here it is the same up to rounding in half of that. A norm is tried on random
numbers before it takes the place of a model's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from slmops.training.machine import few_logits
from slmops.training.native import Kernels, kernels

_EPSILONS = ("variance_epsilon", "eps")


def quicken_norms(model: Any, dtype: torch.dtype | None) -> None:
    """Let a model compute its norms this way from now on, where they are of the known form.

    Args:
        model: Of transformers, on a processor.
        dtype: Of autocast; norms whose readers would convert what they read hand on this type.
    """
    compiled = kernels(dtype)
    own = {name: norm for name, module in model.named_modules() if (norm := Norm.of(module, compiled)) is not None}
    for name, norm in own.items():
        model.get_submodule(name).forward = norm
    if dtype is not None:
        _hand_on(model, own, dtype)


def _hand_on(model: Any, norms: dict[str, Norm], dtype: torch.dtype) -> None:
    """Have norms within layers hand on a number type, those of one name together, where this changes not a bit of the logits."""
    expected = few_logits(model, dtype)
    for ending in sorted({name.rpartition(".")[2] for name in norms if ".layers." in name}):
        some = [norm for name, norm in norms.items() if ".layers." in name and name.endswith(f".{ending}")]
        for norm in some:
            norm.dtype = dtype
        found = few_logits(model, dtype)
        if found is None or expected is None or not torch.equal(found, expected):
            for norm in some:
                norm.dtype = None


@dataclass
class Norm:
    """A root mean square norm (Zhang & Sennrich 2019): ``x / sqrt(mean(x²) + epsilon) · weight``, of states in float32.

    Args:
        weight: ``[H]``.
        epsilon: That keeps the root from zero.
        original: What computes states of another type.
        dtype: That is handed on; ``None``: float32.
        compiled: What computes it; ``None``: PyTorch.
    """

    weight: torch.Tensor
    epsilon: float
    original: Any
    dtype: torch.dtype | None = None
    compiled: Kernels | None = None

    @classmethod
    def of(cls, module: torch.nn.Module, compiled: Kernels | None = None) -> Norm | None:
        """That of a module which is one; ``None`` for all others."""
        if not type(module).__name__.endswith("RMSNorm"):
            return None
        weights = [one for one in module.parameters() if one.dim() == 1 and one.dtype is torch.float32]
        epsilons = [one for name in _EPSILONS if isinstance(one := getattr(module, name, None), float)]
        if len(weights) != 1 or len(epsilons) != 1:
            return None
        found = cls(weights[0], epsilons[0], module.forward, compiled=compiled)
        states = torch.randn(3, len(weights[0]), generator=torch.Generator().manual_seed(0)).requires_grad_()
        return found if _alike(found, module.forward, states) else None

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Normalise states ``[..., H]``."""
        found: torch.Tensor
        if states.dtype is not torch.float32:
            found = self.original(states)
        elif self.compiled is not None:
            found = _CompiledNorm.apply(states, self.weight, self.epsilon, self.dtype, self.compiled)
        else:
            found = _Norm.apply(states, self.weight, self.epsilon, self.dtype)
        return found


class _Norm(torch.autograd.Function):
    """With ``s = 1 / sqrt(mean(x²) + eps)``: forward ``s x w``; back ``s (g w - s² x mean(x g w))`` and the sum of ``s x g``."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor, epsilon: float, dtype: torch.dtype | None) -> torch.Tensor:
        rows = states.reshape(-1, states.shape[-1])
        lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        scale = lengths.square_().div_(rows.shape[1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(rows, weight, scale)
        found = (rows * scale).mul_(weight)
        return found.to(dtype or found.dtype).view(states.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (above,), (rows, weight, scale) = gradients, ctx.saved_tensors
        above = above.reshape(rows.shape).to(rows.dtype)
        products = rows * above
        of_weight = torch.mv(products.t(), scale[:, 0]) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, of_weight, None, None
        along = torch.mv(products, weight).unsqueeze(1).mul_(scale.square()).div_(rows.shape[1])
        of_states = torch.mul(above, weight, out=products).addcmul_(rows, along, value=-1).mul_(scale)
        return of_states.view(gradients[0].shape), of_weight, None, None


class _CompiledNorm(torch.autograd.Function):
    """The same in two passes."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, weight: torch.Tensor, epsilon: float, dtype: torch.dtype | None, compiled: Kernels
    ) -> torch.Tensor:
        rows = states.reshape(-1, states.shape[-1]).contiguous()
        found, scales = compiled.norm(rows, weight, epsilon, dtype or torch.float32)
        ctx.save_for_backward(rows, weight, scales)
        ctx.compiled = compiled
        return found.view(states.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight, scales = ctx.saved_tensors
        above = gradients[0].reshape(rows.shape).contiguous()
        of_states, of_weight = ctx.compiled.norm_back(above, rows, weight, scales)
        return of_states.view(gradients[0].shape), of_weight if ctx.needs_input_grad[1] else None, None, None, None


def _alike(own: Any, other: Any, given: torch.Tensor) -> bool:
    """Whether two functions and their gradients are the same up to rounding."""
    both = []
    for function in (own, other):
        found = function(given)
        both.append((found, *torch.autograd.grad(found.square().sum(), given)))
    return all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*both, strict=True))
