"""Settings of a training by transformers' names: how the learning rate goes, checkpoints, activations that are computed again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ConfigError
from slmops.sections import LoraSection, TrainingSection
from slmops.stages.teaching import _what_it_computes
from slmops.training import watching
from slmops.training.batches import collate
from slmops.training.forward import total_loss
from slmops.training.inputs import open_student
from slmops.training.loop import Trained, train
from slmops.training.objectives import CrossEntropy
from slmops.training.projection import Projection
from slmops.training.trainer import PlannedTrainer

ROWS = [Row.of(f"question {number}" + " please" * (number % 4), ("refund", "account")[number % 2]) for number in range(8)]
Train = Callable[..., Trained]


class Rates(TrainerCallback):
    """Notes the learning rate that each update was made with."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.seen.append(more["optimizer"].param_groups[0]["lr"])


@pytest.fixture
def run(tiny_model: Path, template: Template, tmp_path: Path) -> Train:
    def call(name: str = "model", **values: Any) -> Trained:
        fixed = {"max_steps": 4, "batch_size": 4, "precision": "float32", "lora": LoraSection(r=2), "learning_rate": 1.0e-3}
        section = TrainingSection(**{**fixed, **values})
        where = (tiny_model, tmp_path / name, tmp_path / f"{name}-work")
        return train(*where, template=template, rows=ROWS, validation=ROWS, section=section, seed=1, what="trial")

    return call


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lr_scheduler_type": "constant"}, [1, 1, 1, 1]),
        ({"lr_scheduler_type": "linear", "warmup_steps": 0}, [1, 0.75, 0.5, 0.25]),
        ({"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2}, [0, 0.5, 1, 1]),
        ({"lr_scheduler_type": "linear", "warmup_steps": 2, "warmup_share": 0.9}, [0, 0.5, 1, 0.5]),
        ({"lr_scheduler_type": "linear", "warmup_share": 0.5}, [0, 0.5, 1, 0.5]),
    ],
)
def test_the_learning_rate_goes_as_it_is_asked_to(
    run: Train, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], expected: list[float]
) -> None:
    rates, original = Rates(), PlannedTrainer.__init__

    def with_rates(self: Any, **options: Any) -> None:
        original(self, **{**options, "callbacks": [*options["callbacks"], rates]})

    monkeypatch.setattr(PlannedTrainer, "__init__", with_rates)
    run(**values)
    assert rates.seen == pytest.approx([1e-3 * share for share in expected])


def test_looks_and_checkpoints_come_when_they_are_asked_for(run: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = watching.collate
    monkeypatch.setattr(watching, "collate", lambda rows, *more: sizes.append(len(rows)) or original(rows, *more))
    trained = run(max_steps=7, eval_steps=3, eval_batch_size=5, save_steps=2, save_total_limit=2)
    assert [point["step"] for point in trained.curve] == [3, 6, 7]
    assert sizes == 3 * [5, 3]
    assert sorted(folder.name for folder in (tmp_path / "model-work").glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]
    run("one", max_steps=5, save_steps=2, save_total_limit=1)
    assert [folder.name for folder in (tmp_path / "one-work").glob("checkpoint-*")] == ["checkpoint-4"]


@pytest.mark.parametrize(
    ("lora", "dtype"),
    [
        (None, None),
        (LoraSection(r=2, dora=True), torch.bfloat16),
        (LoraSection(r=2, bits=4), torch.bfloat16),
        (LoraSection(r=2, dropout=0.3), None),
    ],
    ids=["full", "dora", "qlora", "dropout"],
)
def test_activations_that_are_computed_again_give_the_same_gradients(
    tiny_model: Path, template: Template, lora: LoraSection | None, dtype: torch.dtype | None
) -> None:
    """As the loop does it: in training mode, with the model's parts, and without what would be forgotten in the backward pass."""
    found, computed = [], []
    for again in (False, True):
        torch.manual_seed(0)
        model = open_student(tiny_model, TrainingSection(lora=lora, gradient_checkpointing=again)).train()
        projection = Projection.of(model)
        assert projection is not None
        if again:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        times: list[int] = []
        layer = next(module for name, module in model.named_modules() if name.endswith("layers.1.mlp"))
        layer.register_forward_pre_hook(lambda *_, seen=times: seen.append(1))
        batch = collate([template.encode(row) for row in ROWS], 2)
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            loss = total_loss(model, batch, CrossEntropy(), projection.whole)
        loss.backward()
        computed.append(len(times))
        found.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    assert computed == [1, 2]
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-6)


def test_a_training_with_activations_computed_again_is_the_same_training(run: Train) -> None:
    options: dict[str, Any] = {"lora": None, "gradient_accumulation_steps": 2, "learning_rate": 5e-3}
    plain, again = run("plain", **options), run("again", gradient_checkpointing=True, **options)
    for name in ("loss", "validation"):
        assert [point[name] for point in again.curve] == pytest.approx([point[name] for point in plain.curve], rel=1e-4)
    assert plain.curve[-1]["loss"] < plain.curve[0]["loss"]


def test_a_model_that_cannot_is_told(run: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    monkeypatch.setattr(LlamaForCausalLM, "supports_gradient_checkpointing", False)
    with pytest.raises(ConfigError, match="gradient_checkpointing"):
        run(gradient_checkpointing=True)


def test_what_is_only_reported_or_kept_makes_no_new_training() -> None:
    plain = _what_it_computes(TrainingSection())
    told = {"report_to": ["tensorboard"], "logging_dir": "logs", "logging_steps": 1, "save_steps": 5, "save_total_limit": 1}
    assert _what_it_computes(TrainingSection(**told)) == plain
    for value in ({"eval_steps": 3}, {"lr_scheduler_type": "linear"}, {"warmup_steps": 1}, {"gradient_checkpointing": True}):
        assert _what_it_computes(TrainingSection(**value)) == plain | value
