"""Gated feed-forward networks, ``down(silu(gate(x)) · up(x))`` (Shazeer 2020), whose activation is one pass each way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from slmops.training.native import Kernels

_PARTS = ("gate_proj", "up_proj", "down_proj", "act_fn")


@dataclass(frozen=True)
class Gated:
    """The forward pass of such a network.

    Args:
        gate: Layer in front of the activation.
        up: Layer whose output is multiplied.
        down: Layer behind.
        activation: What computes outputs of another type than bfloat16.
        kernels: What computes those.
    """

    gate: Any
    up: Any
    down: Any
    activation: Any
    kernels: Kernels

    @classmethod
    def of(cls, module: Any, kernels: Kernels) -> Gated | None:
        """That of a module which is one; ``None`` for all others. It is tried on random numbers."""
        if not type(module).__name__.endswith("MLP") or not all(hasattr(module, name) for name in _PARTS):
            return None
        found = cls(module.gate_proj, module.up_proj, module.down_proj, module.act_fn, kernels)
        numbers = torch.Generator().manual_seed(0)
        some = torch.randn(64, generator=numbers)
        width = getattr(found.gate, "in_features", None)
        if not torch.allclose(found.activation(some), some * torch.sigmoid(some), atol=1e-5) or width is None:
            return None
        given = torch.randn(1, 3, width, generator=numbers)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            expected, own = module(given).float(), found(given).float()
        return found if torch.allclose(own, expected, rtol=0.02, atol=0.02 * float(expected.abs().max())) else None

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """The network's output for states ``[..., H]``."""
        gate, up = self.gate(states), self.up(states)
        if gate.dtype is up.dtype is torch.bfloat16:
            inner: torch.Tensor = _Gated.apply(gate, up, self.kernels)
        else:
            inner = self.activation(gate) * up
        found: torch.Tensor = self.down(inner)
        return found


class _Gated(torch.autograd.Function):
    """``silu(gate) · up`` in bfloat16."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, kernels: Kernels) -> torch.Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        ctx.kernels = kernels
        return kernels.gated(gate, up)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_gate, of_up = ctx.kernels.gated_back(gradients[0].contiguous(), *ctx.saved_tensors)
        return of_gate, of_up, None
