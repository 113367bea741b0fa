"""Adapters that no training made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from slmops.models.load import load_model

TOKENS = torch.tensor([[5, 9, 60, 7, 200]])


def save_adapter(base: Path, folder: Path, *, seed: int = 0, std: float = 0.1, **options: Any) -> torch.Tensor:
    """Write an adapter that was trained at random; the logits with it."""
    torch.manual_seed(seed)
    model = get_peft_model(load_model(base), LoraConfig(task_type="CAUSAL_LM", **{"r": 4, **options}))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=std)
    model.save_pretrained(str(folder))
    with torch.no_grad():
        return model.eval()(TOKENS).logits
