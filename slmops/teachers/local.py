"""A teacher whose weights are on this machine, through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.models.load import context_length, load_model
from slmops.runtimes.base import Sampling
from slmops.runtimes.torch_runtime import TorchRuntime
from slmops.signals.topk import TopK
from slmops.training.batches import collate
from slmops.training.forward import answers_of
from slmops.training.machine import autocast_type


@dataclass(frozen=True)
class LocalTeacher:
    """Answers rows greedily and gives its distribution at answer positions."""

    runtime: TorchRuntime
    template: Template

    @classmethod
    def load(cls, folder: Path, template: Template, precision: str) -> LocalTeacher:
        """Load a model folder; ``precision`` as in ``training.machine.autocast_type``."""
        fast = autocast_type(precision) is not None
        model = load_model(folder, dtype="bfloat16" if fast else "float32", attention="sdpa")
        return cls(TorchRuntime(model, template.tokenizer, context_length(folder)), template)

    def answer(self, rows: Sequence[Row], max_new_tokens: int) -> list[str]:
        """Greedy answers of one batch, in order; an answer that hits the limit is returned as far as it got."""
        generations = self.runtime.generate([self.template.prompt(row) for row in rows], Sampling(max_new_tokens=max_new_tokens))
        return [generation.text.strip() for generation in generations]

    def signals(self, rows: Sequence[Encoded], k: int) -> list[TopK]:
        """The distribution at every answer token of one batch of rows, in order."""
        with torch.inference_mode():
            answers = answers_of(self.runtime.model, collate(rows, int(self.template.tokenizer.eos_token_id)))
            joined = TopK.from_logits(answers.logits, k)
        signals, start = [], 0
        for row in rows:
            end = start + len(row.answer_ids)
            signals.append(joined[start:end])
            start = end
        return signals
