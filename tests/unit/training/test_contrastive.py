"""The contrastive loss: against float64, on hand-worked pairs, and in the training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slmops.config import build
from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ConfigError, TrainingError
from slmops.models.load import load_model
from slmops.sections import LoraSection, TrainingSection
from slmops.testing.pairs import check_pairs
from slmops.training import loop
from slmops.training.batches import padded
from slmops.training.loop import Trained, train
from slmops.training.objectives import WeightedSum
from slmops.training.objectives.contrastive import Contrastive
from slmops.training.pairs import Pair, PairLoss, describe, into_batch, pairs_of
from tests.interruptions import interrupted_in

SAME, DIFFERENT = "entailment", "contradiction"
TEXTS = (
    ("where is my parcel", "it has not arrived", SAME),
    ("please refund the money", "the tracking says delivered", DIFFERENT),
    ("the discount code", "does not work at the checkout", "neutral"),
    ("change the address of my order", "before it ships please", SAME),
    ("how do I", "account payment returns", DIFFERENT),
    ("last week", "shoes I sent back", DIFFERENT),
)


def row_of(label: str, **fields: str) -> Row:
    text = "\n".join(f"{name}: {value}" for name, value in fields.items())
    return replace(Row.of(text, label, "nli.tsv"), fields=fields)


ROWS = [row_of(label, premise=premise, hypothesis=hypothesis) for premise, hypothesis, label in TEXTS]


def reference(left: np.ndarray, right: np.ndarray, different: bool, margin: float, distance: str) -> float:
    one, other = left / np.linalg.norm(left), right / np.linalg.norm(right)
    apart = np.linalg.norm(one - other) if distance == "euclidean" else 1 - one @ other
    return float(max(0.0, margin - apart) ** 2 if different else apart**2)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("margin", [0.3, 1.2])
def test_value_and_gradient_are_those_of_a_float64_reference(distance: str, margin: float) -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(8, 5, generator=generator)
    right = left + 0.7 * torch.randn(8, 5, generator=generator)
    different = torch.tensor([False, True] * 4)
    left.requires_grad_(True)
    losses = build(Contrastive, {"margin": margin, "distance": distance}, where="test").losses(left, right, different)
    (gradient,) = torch.autograd.grad(losses.sum(), left)
    assert (losses[different] == 0).any() if margin < 1 else (losses[different] > 0).any()
    for number in range(8):
        at, other = left[number].detach().double().numpy(), right[number].double().numpy()

        def value(at: np.ndarray, other: np.ndarray = other, number: int = number) -> float:
            return reference(at, other, bool(different[number]), margin, distance)

        assert losses[number].item() == pytest.approx(value(at), rel=1e-5, abs=1e-6)
        slope = [(value(at + step) - value(at - step)) / 2e-6 for step in 1e-6 * np.eye(5)]
        assert gradient[number].numpy() == pytest.approx(slope, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("mean", [[2.0, 3.0], [5.0, 6.0]]), ("last", [[3.0, 4.0], [5.0, 6.0]])],
)
def test_only_the_texts_own_tokens_are_pooled(pooling: str, expected: list[list[float]]) -> None:
    states = torch.tensor([[[9e9, 9e9], [1.0, 2.0], [3.0, 4.0]], [[9e9, 9e9], [9e9, 9e9], [5.0, 6.0]]])
    read = torch.tensor([[False, True, True], [False, False, True]])
    assert build(Contrastive, {"pooling": pooling}, where="test").pooled(states, read).tolist() == expected


class PoolsPadding(Contrastive):
    def pooled(self, states: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        return states.mean(1)


class LikesEquals(Contrastive):
    def losses(self, left: torch.Tensor, right: torch.Tensor, different: torch.Tensor) -> torch.Tensor:
        return super().losses(left, right, ~different)


class AveragesThem(Contrastive):
    def losses(self, left: torch.Tensor, right: torch.Tensor, different: torch.Tensor) -> torch.Tensor:
        return super().losses(left, right, different) / len(different)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (PoolsPadding(), "not the mean over its pairs, each of its own tokens"),
        (LikesEquals(), "equal texts that are the same cost something"),
        (AveragesThem(), "depends on the other pairs"),
    ],
)
def test_the_contract_notices(broken: Contrastive, promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_pairs(broken)


def test_pairs_are_rows_with_both_fields_and_a_label_that_says_which(template: Template) -> None:
    others = [row_of(SAME, premise="a"), row_of(SAME, question="a", text="b"), Row.of("a", SAME)]
    found = pairs_of([*ROWS, *others], template, Contrastive(), 64)
    assert [pair and pair.different for pair in found] == [False, True, None, False, True, True, None, None, None]
    first = found[0]
    assert first is not None
    assert template.tokenizer.decode(first.left) == "where is my parcel<|im_end|>"
    assert template.tokenizer.decode(first.right) == "it has not arrived<|im_end|>"
    assert describe(found) == "  contrastive: 5 of 9 rows are pairs, 2 same, 3 different"
    longest = max(len(pair.left) for pair in found if pair is not None)
    assert pairs_of(ROWS, template, Contrastive(), longest - 1)[3] is None


@pytest.mark.parametrize("options", [{"fields": ("premise", "text")}, {"same": ("yes",), "different": ("no",)}])
def test_no_pair_at_all_is_an_error_that_says_what_there_is(template: Template, options: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match=r"fields 'premise', 'hypothesis' and the answers 'contradiction', 'entailment', 'neu"):
        pairs_of(ROWS, template, build(Contrastive, options, where="test"), 64)


def test_labels_may_be_numbers_and_their_case_does_not_matter() -> None:
    numbers = build(Contrastive, {"same": [0], "different": [1]}, where="test")
    assert [numbers.different_by(answer) for answer in ("0", "1", "2")] == [False, True, None]
    assert Contrastive().different_by("Contradiction.") is True


@pytest.mark.parametrize(
    ("objectives", "problem"),
    [
        ([{"name": "contrastive"}], "contrastive alone teaches no answers"),
        ([{"name": "contrastive"}, {"name": "cross_entropy"}, {"name": "contrastive"}], "contrastive is given twice"),
        ([{"name": "cross_entropy"}, {"name": "contrastive", "same": ["a"], "different": ["A"]}], "a cannot be both"),
        ([{"name": "cross_entropy"}, {"name": "contrastive", "fields": ["a", "a"]}], "a pair is of two fields"),
        ([{"name": "cross_entropy"}, {"name": "contrastive", "margin": 0}], "margin: Input should be greater than 0"),
    ],
)
def test_mistakes_in_a_recipe_are_named(objectives: list[dict[str, Any]], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        WeightedSum.of(objectives)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_real_models_pairs_do_not_depend_on_padding(tiny_model: Path, template: Template, pooling: str) -> None:
    model = load_model(tiny_model, attention="eager")
    objective = {"name": "contrastive", "pooling": pooling, "margin": 1.9}
    loss = PairLoss.of(WeightedSum.of([{"name": "cross_entropy"}, objective]), model)
    assert loss is not None
    pairs = [pair for pair in pairs_of(ROWS, template, loss.objective, 64) if pair is not None]
    ids = padded([(1,)], 2)
    with torch.no_grad():
        together = float(loss({**ids, **into_batch(pairs, 2)}))
        alone = [float(loss({**ids, **into_batch([pair], 2)})) for pair in pairs]
    assert together == pytest.approx(sum(alone) / len(alone), rel=1e-4)
    assert float(loss(ids)) == 0


Train = Callable[..., Trained]
BOTH: tuple[dict[str, Any], ...] = ({"name": "cross_entropy"}, {"name": "contrastive", "weight": 2.0, "margin": 1.0})


@pytest.fixture
def run(tiny_model: Path, template: Template, tmp_path: Path) -> Train:
    """Train into ``tmp_path/NAME`` with the sections' values given."""

    def call(name: str = "model", **values: Any) -> Trained:
        section = TrainingSection(**{"max_steps": 3, "batch_size": 6, "precision": "float32", "objectives": BOTH, **values})
        return train(
            tiny_model,
            tmp_path / name,
            tmp_path / f"{name}-work",
            template=template,
            rows=ROWS,
            validation=(),
            section=section,
            seed=1,
            what="trial",
        )

    return call


def margin_loss(model: Path, template: Template) -> float:
    loss = PairLoss.of(WeightedSum.of(BOTH), loaded := load_model(model, attention="eager"))
    assert loss is not None
    assert loaded is not None
    pairs = [pair for pair in pairs_of(ROWS, template, loss.objective, 64) if pair is not None]
    with torch.no_grad():
        return float(loss({**padded([(1,)], 2), **into_batch(pairs, 2)})) / 2


@pytest.mark.parametrize("lora", [None, LoraSection(r=4, alpha=8)])
def test_it_brings_texts_together_and_apart_beside_the_answers(
    run: Train, template: Template, tiny_model: Path, tmp_path: Path, lora: LoraSection | None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = margin_loss(tiny_model, template)
    trained = run(max_steps=12, learning_rate=1e-2, lora=lora)
    assert margin_loss(tmp_path / "model", template) < 0.6 * before
    assert trained.curve[-1]["loss"] < trained.curve[0]["loss"]
    assert "contrastive: 5 of 6 rows are pairs, 2 same, 3 different" in capsys.readouterr().err


def test_accumulated_batches_train_as_one(run: Train, tmp_path: Path) -> None:
    """The row that is no pair makes the batches' numbers of pairs differ."""
    whole = run("whole", batch_size=6)
    parts = run("parts", batch_size=2, gradient_accumulation_steps=3)
    assert [point["loss"] for point in parts.curve] == pytest.approx([point["loss"] for point in whole.curve], rel=1e-4)
    plain = run("plain", objectives=({"name": "cross_entropy"},))
    assert whole.curve[0]["loss"] > plain.curve[0]["loss"] + 0.1


def test_the_first_loss_is_the_sum_of_both(run: Train, template: Template, tiny_model: Path) -> None:
    plain = run("plain", objectives=({"name": "cross_entropy"},)).curve[0]["loss"]
    assert run("both").curve[0]["loss"] == pytest.approx(float(plain or 0) + 2 * margin_loss(tiny_model, template), rel=1e-3)


def test_rows_without_a_pair_train_as_before(run: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("plain", objectives=({"name": "cross_entropy"},))
    monkeypatch.setattr(loop, "pairs_of", lambda rows, *_: [None] * len(rows))
    run("none")
    assert (tmp_path / "none/model.safetensors").read_bytes() == (tmp_path / "plain/model.safetensors").read_bytes()


def test_an_interrupted_run_goes_on_to_the_same_bytes(run: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"max_steps": 4, "batch_size": 3, "gradient_accumulation_steps": 2}
    run("whole", **options)
    with interrupted_in(monkeypatch, 6, "__call__", PairLoss):
        run("model", checkpoint_seconds=0, **options)
    assert (tmp_path / "model-work/checkpoint-2/complete").is_file()
    run("model", checkpoint_seconds=0, **options)
    assert (tmp_path / "model/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_a_pair_is_of_the_rows_of_its_batch() -> None:
    batch = into_batch([Pair((5, 1), (6, 7, 1), True), Pair((8, 1), (9, 1), False)], 0)
    assert batch["pair_input_ids"].tolist() == [[0, 5, 1], [0, 8, 1], [6, 7, 1], [0, 9, 1]]
    assert batch["pair_attention_mask"].tolist() == [[0, 1, 1], [0, 1, 1], [1, 1, 1], [0, 1, 1]]
    assert batch["pair_different"].tolist() == [True, False]
    assert int(batch["pair_count"]) == 2
