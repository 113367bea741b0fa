"""Every registered objective keeps the contract, and the contract notices the mistakes it is there for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from slmops.models.watching import answer_rows
from slmops.signals.tensors import SampledTensors
from slmops.testing import batches
from slmops.testing.objectives import check_objective
from slmops.training import matching
from slmops.training.batches import collate
from slmops.training.objectives import Answers, CrossEntropy, ForwardKL
from slmops.training.objectives.base import Matched
from slmops.training.objectives.hidden import HiddenStates
from slmops.training.registry import OBJECTIVES

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "attention_maps": [{"measure": "mse"}],
    "attention_relations": [{"relations": ["query-key"]}, {"heads": 1, "relations": ["value-value", "query-key"]}],
    "contrastive": [{"pooling": "last"}, {"distance": "cosine"}, {"margin": 1.5}, {"pooling": "last", "distance": "cosine"}],
    "forward_kl": [{"kd_temperature": 3.0}, {"kd_temperature": 0.5}],
    "hidden_states": [{"measure": "mse"}, {"measure": "cosine"}],
    "jsd": [{"beta": 0.0}, {"beta": 0.1}, {"beta": 1.0, "kd_temperature": 2.0}],
    "reverse_kl": [{"kd_temperature": 3.0}],
    "skew_kl": [{"alpha": 0.0}, {"alpha": 0.5, "kd_temperature": 2.0}],
    "skew_reverse_kl": [{"alpha": 0.0}, {"alpha": 0.5, "kd_temperature": 2.0}],
    "total_variation": [{"kd_temperature": 2.0}],
    "uld": [{"kd_temperature": 2.0}],
}


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_a_registered_objective_keeps_the_contract(name: str) -> None:
    for options in [{}, *OPTIONS.get(name, [])]:
        check_objective(OBJECTIVES.get(name)(**options))


class Broken:
    """An objective with a mistake."""

    def __init__(self, needs_signal: bool, loss: Callable[[Answers], torch.Tensor], *, takes_samples: bool = False) -> None:
        self.needs_signal, self.takes_samples, self._loss = needs_signal, takes_samples, loss

    def __call__(self, answers: Answers) -> torch.Tensor:
        return self._loss(answers)


def kl_of_top(answers: Answers) -> torch.Tensor:
    """Forgets the tail, so that a student is drawn to give the teacher's tokens all its mass."""
    student = torch.log_softmax(answers.logits, -1).gather(-1, answers.signal.ids)
    return (answers.signal.logprobs.exp() * (answers.signal.logprobs - student)).sum(-1)


def kl_softened_on_one_side(answers: Answers) -> torch.Tensor:
    return ForwardKL().__call__(replace(answers, logits=answers.logits / 2))


def sampled_as_if_top(answers: Answers) -> torch.Tensor:
    """Forgets the teacher's entropy."""
    losses = ForwardKL()(answers)
    return losses + answers.signal.entropy if isinstance(answers.signal, SampledTensors) else losses


def changing_its_input(answers: Answers) -> torch.Tensor:
    losses = CrossEntropy()(answers)
    answers.logits.detach().mul_(2.0)
    return losses


MISTAKES = {
    "not one a position": Broken(False, lambda answers: CrossEntropy()(answers).mean()),
    "not float32": Broken(False, lambda answers: CrossEntropy()(answers).double()),
    "a loss is not finite": Broken(
        False, lambda answers: -answers.logits.softmax(-1).log().gather(-1, answers.labels[:, None])[:, 0]
    ),
    "a gradient is not finite": Broken(False, lambda answers: (answers.logits**2).sum(-1).sqrt()),
    "depends on the other positions": Broken(False, lambda answers: CrossEntropy()(answers) / answers.labels.numel()),
    "an input was changed": Broken(False, changing_its_input),
    "needs no signal, and uses it": Broken(
        False, lambda answers: CrossEntropy()(answers) * (1.0 if answers.signal is None else 2.0)
    ),
    "does not raise ConfigError": Broken(True, CrossEntropy()),
    "gradient is not zero": Broken(True, lambda answers: ForwardKL()(answers) + (answers.logits**2).mean(-1)),
    "not zero where teacher and student agree": Broken(True, lambda answers: ForwardKL()(answers) + 1.0),
    "not zero where the samples have the student's": Broken(True, lambda answers: sampled_as_if_top(answers), takes_samples=True),
    "has a lower loss": Broken(True, lambda answers: -ForwardKL()(answers)),
    "costs nothing": Broken(True, lambda answers: 0.0 * ForwardKL()(answers)),
    "a likelier label does not cost less": Broken(False, lambda answers: -CrossEntropy()(answers)),
}


@pytest.mark.parametrize("promise", MISTAKES)
def test_the_contract_names_the_broken_promise(promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_objective(MISTAKES[promise])


class BrokenOnLayers(HiddenStates):
    """A loss on layers with a mistake: the loss is the real one, times a factor, plus what is added."""

    def between(self, matched: Matched) -> torch.Tensor:
        return WRONG[0](super().between(matched), matched)


WRONG: list[Callable[[torch.Tensor, Matched], torch.Tensor]] = []
LAYER_MISTAKES: dict[str, Callable[[torch.Tensor, Matched], torch.Tensor]] = {
    "not one a position": lambda losses, matched: losses.mean(),
    "not float32": lambda losses, matched: losses.double(),
    "a loss is not finite": lambda losses, matched: losses / losses.sum() * 0 + losses.exp().exp(),
    "not zero where teacher and student agree": lambda losses, matched: losses + 1.0,
    "gradient is not zero": lambda losses, matched: losses + (matched.hidden[0][0] - matched.hidden[0][1]).sum(-1),
    "has a lower loss": lambda losses, matched: -losses,
    "costs nothing": lambda losses, matched: 0.0 * losses,
    "not about what was read before each token": lambda losses, matched: losses * matched.read.shape[1],
    "split into several": lambda losses, matched: losses * (1 if len(losses) < 11 else 1 + 1e-4),
}


@pytest.mark.parametrize("promise", LAYER_MISTAKES)
def test_the_contract_names_the_broken_promise_of_a_loss_on_layers(promise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "WRONG", [LAYER_MISTAKES[promise]])
    with pytest.raises(AssertionError, match=promise):
        check_objective(BrokenOnLayers())


def test_the_contract_notices_a_shift_by_one_in_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the hidden state at an answer token is taken for the one that predicts it."""

    def shifted(states: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return answer_rows(states, {**batch, "logits_to_keep": batch["logits_to_keep"] + 1})

    monkeypatch.setattr(matching, "answer_rows", shifted)
    with pytest.raises(AssertionError, match="not about what was read before each token"):
        check_objective(HiddenStates())


@pytest.mark.parametrize("loss", [kl_of_top, kl_softened_on_one_side])
def test_the_contract_notices_a_loss_that_pulls_away_from_the_teacher(loss: Callable[[Answers], torch.Tensor]) -> None:
    def guarded(answers: Answers) -> torch.Tensor:
        ForwardKL()(answers)  # raises without a signal
        return loss(answers)

    with pytest.raises(AssertionError, match="gradient is not zero"):
        check_objective(Broken(True, guarded))


@pytest.mark.parametrize("objective", [CrossEntropy(), ForwardKL()])
@pytest.mark.parametrize("column", [1, -1])
def test_the_contract_notices_a_shift_by_one(objective: Any, column: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the logits at an answer token are taken for those that predict it."""

    def shifted(*arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        batch = collate(*arguments, **options)
        return {**batch, "logits_to_keep": (batch["logits_to_keep"] + column) % batch["input_ids"].shape[1]}

    monkeypatch.setattr(batches, "collate", shifted)
    with pytest.raises(AssertionError, match="not those of the answers' tokens, each predicted by the token before it"):
        check_objective(objective)


def test_the_contract_notices_a_loss_that_depends_on_the_size_of_a_batch() -> None:
    """One that is careful where it is asked about few positions for the first time, as no rule of its options says."""
    asked: list[int] = []

    def moody(answers: Answers) -> torch.Tensor:
        asked.append(len(answers.logits))
        return CrossEntropy()(answers) * (2.0 if asked.count(3) and len(answers.logits) == 1 else 1.0)

    with pytest.raises(AssertionError, match="it differs for a batch that is projected 1 positions at a time"):
        check_objective(Broken(False, moody))
