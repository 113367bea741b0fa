"""A teacher whose weights are on this machine, through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.models.load import load_model
from slmops.signals.topk import TopK
from slmops.training.batches import collate
from slmops.training.forward import answers_of
from slmops.training.machine import autocast_type


@dataclass(frozen=True)
class LocalTeacher:
    """Answers rows greedily and gives its distribution at answer positions."""

    model: Any
    template: Template

    @classmethod
    def load(cls, folder: Path, template: Template, precision: str) -> LocalTeacher:
        """Load a model folder; ``precision`` as in ``training.machine.autocast_type``."""
        fast = autocast_type(precision) is not None
        return cls(load_model(folder, dtype="bfloat16" if fast else "float32", attention="sdpa"), template)

    def answer(self, rows: Sequence[Row], max_new_tokens: int) -> list[str]:
        """Greedy answers of one batch, in order; an answer that hits the limit is returned as far as it got."""
        tokenizer = self.template.tokenizer
        prompts = [self.template.prompt_ids(row) for row in rows]
        width = max(len(prompt) for prompt in prompts)
        pad_id = int(tokenizer.eos_token_id)
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=torch.tensor([[pad_id] * (width - len(prompt)) + prompt for prompt in prompts]),
                attention_mask=torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=pad_id,
                eos_token_id=pad_id,
            )
        return [text.strip() for text in tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)]

    def signals(self, rows: Sequence[Encoded], k: int) -> list[TopK]:
        """The distribution at every answer token of one batch of rows, in order."""
        with torch.inference_mode():
            answers = answers_of(self.model, collate(rows, int(self.template.tokenizer.eos_token_id)))
            joined = TopK.from_logits(answers.logits, k)
        signals, start = [], 0
        for row in rows:
            end = start + len(row.answer_ids)
            signals.append(joined[start:end])
            start = end
        return signals
