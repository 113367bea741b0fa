"""The student's logits at answer positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from slmops.signals.tensors import from_batch
from slmops.training.objectives import Answers


def answers_of(model: Any, batch: Mapping[str, torch.Tensor]) -> Answers:
    """Run a causal language model on a batch of ``training.batches.collate``; only answer columns reach the vocabulary."""
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        logits_to_keep=batch["logits_to_keep"],
        use_cache=False,
    ).logits
    chosen = logits.flatten(0, 1).index_select(0, batch["answer_index"]).float()
    return Answers(logits=chosen, labels=batch["shift_labels"], signal=from_batch(batch))
