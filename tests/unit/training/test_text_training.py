"""Training on texts in blocks, through the loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from slmops.data.rows import Row
from slmops.data.templates import IGNORED, Encoded, Template
from slmops.models.load import load_model
from slmops.sections import TrainingSection
from slmops.training.batches import collate
from slmops.training.forward import losses_of
from slmops.training.loop import Trained, train
from slmops.training.objectives import CrossEntropy
from slmops.training.projection import Projection

TEXTS = [Row.of(f"please refund the money for order {number} and return the shoes", None, str(number)) for number in range(12)]
Train = Callable[..., Trained]


class Killed(Exception):
    """In place of a process that ends."""


@pytest.fixture
def run(tiny_model: Path, template: Template, tmp_path: Path) -> Train:
    def call(name: str, **options: Any) -> Trained:
        section = TrainingSection(
            max_steps=8, batch_size=4, max_length=16, precision="float32", learning_rate=5e-3, checkpoint_seconds=0
        )
        texts = Template(template.tokenizer, template.chat, trained_on="text")
        folders = (tiny_model, tmp_path / name, tmp_path / f"{name}-work")
        return train(
            *folders, template=texts, rows=TEXTS[:9], validation=TEXTS[9:], section=section, seed=1, what="texts", **options
        )

    return call


def test_a_killed_training_on_texts_ends_as_one_that_was_not(run: Train, tmp_path: Path, template: Template) -> None:
    whole = run("whole")
    looks: list[float] = []

    def watch(done: float, loss: float) -> None:
        looks.append(loss)
        if done >= 0.5:
            raise Killed

    with pytest.raises(Killed):
        run("killed", watch=watch)
    resumed = run("killed")
    assert (resumed.texts, resumed.curve) == (whole.texts, whole.curve)
    one, two = (load_model(tmp_path / name).state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert whole.texts is not None
    ids = sum(len(template.tokenizer(row.question, add_special_tokens=False)["input_ids"]) for row in TEXTS[:9]) + 8
    assert ids == 161  # ten blocks of 16 and a token that predicts nothing
    assert (whole.texts["blocks"], whole.texts["tokens"]) == (10, 160)
    assert whole.too_long == 0
    assert whole.curve[-1]["validation"] is not None
    assert whole.curve[-1]["validation"] < whole.texts["before"]


def test_blocks_that_begin_alike_have_each_its_own_losses(tiny_model: Path) -> None:
    model = load_model(tiny_model).eval()
    rows = [Encoded(ids, (IGNORED, *ids[1:])) for ids in ((7, 8, 9, 10, 11), (7, 8, 9, 12), (7, 8, 9, 10, 13))]
    found = losses_of(model, collate(rows, 0), CrossEntropy(), Projection.of(model))
    expected = []
    for row in rows:
        with torch.no_grad():
            logits = model(torch.tensor([row.input_ids])).logits[0, :-1]
        expected.append(torch.nn.functional.cross_entropy(logits, torch.tensor(row.input_ids[1:]), reduction="none"))
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-4, rtol=1e-4)
