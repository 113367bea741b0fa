"""Trains a tiny model; waits for ever in the update given as the last argument, so that it can be killed there.

Arguments: model folder, target folder, work folder, update (0: none), and ``own`` to learn from the student's own samples.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from slmops.data.rows import Row
from slmops.data.templates import choose_template
from slmops.models.load import load_tokenizer
from slmops.sections import LoraSection, OnPolicySection, TrainingSection
from slmops.signals.topk import TopK
from slmops.training import loop, trainer

LABELS = ("delivery", "refund of the money", "account")
ROWS = [Row.of(f"question {number}" + " please" * (number % 4), LABELS[number % 3]) for number in range(12)]
SECTION = TrainingSection(
    max_steps=12,
    batch_size=2,
    gradient_accumulation_steps=2,
    lora=LoraSection(r=4, dropout=0.2),
    precision="float32",
    checkpoint_seconds=0,
)


OWN = SECTION.model_copy(update={"objectives": ({"name": "jsd"},), "on_policy": OnPolicySection(share=1, every=5)})


class Scorer:
    """A teacher that finds all of two tokens equally likely."""

    def score(self, rows: Sequence[Row], samples: Sequence[Sequence[int]]) -> list[TopK]:
        return [TopK.from_logits(torch.tensor([[3.0, 3.0, 0.0]] * len(sample)), 2) for sample in samples]


def train(base: Path, target: Path, work: Path, *, own: bool) -> None:
    loop.train(
        base,
        target,
        work,
        template=choose_template(load_tokenizer(base), "compact"),
        rows=ROWS,
        validation=ROWS[:2],
        section=OWN if own else SECTION,
        seed=1,
        what="trial",
        scorer=Scorer() if own else None,
    )


def stall_in(update: int) -> None:
    forward, calls = trainer.total_loss, []

    def slow(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2 * update:  # in the second of the two accumulated batches
            time.sleep(600)
        return forward(*arguments)

    trainer.total_loss = slow


if __name__ == "__main__":
    base, target, work = (Path(argument) for argument in sys.argv[1:4])
    if int(sys.argv[4]):
        stall_in(int(sys.argv[4]))
    train(base, target, work, own=sys.argv[5:] == ["own"])
