"""What is written of a trained student: its weights, an adapter alone, or both as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from slmops.models.adapter import Adapter, merge_adapter
from slmops.models.bottleneck import save_bottleneck
from slmops.sections import TrainingSection


def save_student(
    model: Any, base: Path, target: Path, work: Path, section: TrainingSection, *, adapter_alone: bool, widened: bool = False
) -> None:
    """Write a student to a folder (Hugging Face layout, float32), without its tokenizer.

    Args:
        model: Of :func:`slmops.training.inputs.open_student`.
        base: Folder of the model it was opened from.
        target: The folder to fill.
        work: Folder for what lies between.
        section: What was trained of it.
        adapter_alone: Write the adapter and not the model that it makes of the base; a bottleneck adapter is always alone.
        widened: Whether the model was given new tokens.
    """
    if section.bottleneck is not None:
        save_bottleneck(model, base, target, section.bottleneck.kind)
    elif section.lora is not None and section.lora.bits is not None and not adapter_alone:
        # Merged into the weights as they were before they were packed.
        model.save_pretrained(work / "adapter")
        merge_adapter(Adapter.read(work / "adapter"), base, target)
    elif section.lora is not None and adapter_alone:
        # Its weights are float32, whatever the base's are. It has new tokens' rows by themselves; PEFT would write the whole
        # embedding beside them.
        model.save_pretrained(target, **({"save_embedding_layers": False} if widened else {}))
    else:
        final = model.merge_and_unload() if section.lora is not None else model
        final.to(torch.float32).save_pretrained(target)
