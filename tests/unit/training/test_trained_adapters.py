"""Adapters other than a new LoRA in the training loop: bottlenecks, and adapters that are trained further."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ModelError
from slmops.files import read_json
from slmops.models.adapter import Adapter, merge_adapter
from slmops.models.load import load_model
from slmops.sections import BottleneckSection, LoraSection, TrainingSection
from slmops.training import loop
from slmops.training.loop import Trained, train
from tests.interruptions import interrupted_after, interrupted_in

LABELS = ("delivery", "refund of the money", "account")
ROWS = [Row.of(f"question {number}" + " please" * (number % 4), LABELS[number % 3], f"rows.csv:{number}") for number in range(8)]
TOKENS = torch.tensor([[5, 9, 60, 7, 200]])
HOULSBY = BottleneckSection(kind="houlsby", size=4)
Train = Callable[..., Trained]


@pytest.fixture
def run(tiny_model: Path, template: Template, tmp_path: Path) -> Train:
    """Train an adapter into ``tmp_path/NAME`` with the sections' values given."""

    def call(name: str = "adapter", adapter: Path | None = None, base: Path = tiny_model, **values: Any) -> Trained:
        section = TrainingSection(**{"max_steps": 4, "batch_size": 8, "precision": "float32", "learning_rate": 1e-2, **values})
        return train(
            base,
            tmp_path / name,
            tmp_path / f"{name}-work",
            template=template,
            rows=ROWS,
            validation=ROWS[:3],
            section=section,
            seed=1,
            what="trial",
            adapter_alone=True,
            adapter=adapter,
        )

    return call


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Fills with the logits of each model when it is saved."""
    original, seen = loop.save_student, []

    def save_after_a_look(model: Any, *arguments: Any, **options: Any) -> None:
        seen.append(logits(model))
        original(model, *arguments, **options)

    monkeypatch.setattr(loop, "save_student", save_after_a_look)
    return seen


@pytest.mark.parametrize("kind", ["houlsby", "pfeiffer"])
def test_bottlenecks_learn_and_are_the_same_model_from_their_folder(
    run: Train, in_memory: list[torch.Tensor], tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    trained = run(bottleneck=BottleneckSection(kind=kind, reduction_factor=8), max_steps=16)
    losses = [point["loss"] for point in trained.curve]
    assert losses[-1] < 0.95 * losses[0]
    settings = read_json(tmp_path / "adapter/bottleneck_config.json")
    assert (settings["kind"], settings["size"]) == (kind, 8)
    loaded = logits(load_model(tmp_path / "adapter"))
    torch.testing.assert_close(loaded, in_memory[0], atol=1e-5, rtol=1e-5)
    assert (loaded - logits(load_model(tiny_model))).abs().max() > 0.1


@pytest.mark.parametrize("section", [{"bottleneck": HOULSBY}, {"bottleneck": HOULSBY, "keep": "best", "patience": 3}])
def test_an_interrupted_training_of_bottlenecks_goes_on_to_the_same_bytes(
    run: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: dict[str, Any]
) -> None:
    options = {"max_steps": 6, "checkpoint_seconds": 0, **section}
    whole = run("whole", **options)
    with interrupted_in(monkeypatch, 4):
        run(**options)
    checkpoint = tmp_path / "adapter-work/checkpoint-3/model.safetensors"
    assert all("bottleneck_" in name for name in load_file(checkpoint))
    resumed = run(**options)
    assert resumed.curve == whole.curve
    weights = [(tmp_path / name / "bottleneck_model.safetensors").read_bytes() for name in ("adapter", "whole")]
    assert weights[0] == weights[1]


def test_all_weights_of_a_bottlenecked_model_are_not_trained(run: Train, tmp_path: Path) -> None:
    run(bottleneck=HOULSBY)
    with pytest.raises(ModelError, match=r"cannot be merged into its base's\n.*--continue_adapter"):
        run("second", base=tmp_path / "adapter")


KINDS = {"lora": LoraSection(r=4), "dora": LoraSection(r=4, dora=True), "qlora": LoraSection(r=4, bits=8)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_continued_adapter_starts_as_it_was_and_merged_has_its_logits(
    run: Train, in_memory: list[torch.Tensor], tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    lora = KINDS[kind]
    first = run("first", lora=lora, max_steps=16)
    second = run("second", tmp_path / "first", lora=lora)
    # All rows stand in each update.
    assert second.curve[0]["loss"] == pytest.approx(first.curve[-1]["loss"], rel=0.02)
    assert second.curve[0]["loss"] < 0.95 * first.curve[0]["loss"]
    settings = [read_json(tmp_path / name / "adapter_config.json") for name in ("first", "second")]
    assert [one["r"] for one in settings] == [4, 4]
    assert sorted(settings[0]["target_modules"]) == sorted(settings[1]["target_modules"])
    for name in ("first", "second"):
        adapted = logits(PeftModel.from_pretrained(load_model(tiny_model), str(tmp_path / name)))
        if kind != "qlora":  # trained on weights in few bits, merged into all of them
            torch.testing.assert_close(adapted, in_memory.pop(0), atol=1e-5, rtol=1e-4)
        merge_adapter(Adapter.read(tmp_path / name), tiny_model, tmp_path / f"{name}-merged")
        torch.testing.assert_close(logits(load_model(tmp_path / f"{name}-merged")), adapted, atol=1e-5, rtol=1e-4)
    weights = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("first", "second")]
    assert all(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_continued_training_that_is_interrupted_goes_on_to_the_same_bytes(
    run: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("first", lora=KINDS["lora"])
    options = {"lora": KINDS["lora"], "checkpoint_seconds": 0}
    run("whole", tmp_path / "first", **options)
    with interrupted_after(monkeypatch, "checkpoint-2"):
        with pytest.raises(KeyboardInterrupt):
            run("adapter", tmp_path / "first", **options)
    run("adapter", tmp_path / "first", **options)
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("adapter", "whole")]
    assert weights[0] == weights[1]


def test_continued_bottlenecks_start_as_they_were(run: Train, tmp_path: Path) -> None:
    first = run("first", bottleneck=HOULSBY, max_steps=16)
    second = run("second", tmp_path / "first", bottleneck=HOULSBY)
    assert second.curve[0]["loss"] == pytest.approx(first.curve[-1]["loss"], rel=0.02)
    assert second.curve[0]["loss"] < 0.95 * first.curve[0]["loss"]
