"""Parts of a model that are computed in fewer passes over memory while it is trained on a processor."""

from __future__ import annotations

from typing import Any

import torch

from slmops.training.gated import Gated
from slmops.training.native import kernels
from slmops.training.norms import quicken_norms
from slmops.training.rotary import Rotary


def quicken(model: Any, dtype: torch.dtype | None) -> None:
    """Let a model compute its norms, gated networks and attention layers so from now on, where they are of the known form.

    Args:
        model: Of transformers, on a processor.
        dtype: Of autocast, where its layers' weights are of that type already.
    """
    quicken_norms(model, dtype)
    compiled = kernels(dtype)
    if compiled is None:
        return
    for module in list(model.modules()):
        quick = Gated.of(module, compiled) or Rotary.of(module, compiled)
        if quick is not None:
            module.forward = quick
