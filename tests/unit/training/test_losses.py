"""The values and gradients of the losses, against references in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from slmops.errors import ConfigError, UsageError
from slmops.testing.objectives import POSITIONS, VOCABULARY, example_answers, with_teacher
from slmops.training.objectives import Answers, CrossEntropy, ForwardKL, WeightedSum


def softmax(values: np.ndarray) -> np.ndarray:
    exponents = np.exp(values - values.max())
    return exponents / exponents.sum()


def forward_kl_at(logits: np.ndarray, ids: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    """One position: ``teacher`` holds the masses of ``ids`` and, last, of all other tokens."""
    p = softmax(logits)
    student = np.append(p[ids], p.sum() - p[ids].sum())
    if len(ids) == len(logits):
        student, teacher = student[:-1], teacher[:-1]
    soft_student = student ** (1 / temperature) / (student ** (1 / temperature)).sum()
    soft_teacher = teacher ** (1 / temperature) / (teacher ** (1 / temperature)).sum()
    return float(temperature**2 * (soft_teacher * np.log(soft_teacher / soft_student)).sum())


def slope(function: Callable[[np.ndarray], float], at: np.ndarray) -> np.ndarray:
    """Central differences in float64."""
    steps = np.eye(len(at)) * 1e-5
    return np.array([(function(at + step) - function(at - step)) / 2e-5 for step in steps])


def gradient(objective: Callable[[Answers], torch.Tensor], answers: Answers) -> torch.Tensor:
    logits = answers.logits.clone().requires_grad_(True)
    objective(replace(answers, logits=logits)).sum().backward()
    assert logits.grad is not None
    return logits.grad


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("k", [1, 4, VOCABULARY])
def test_forward_kl_and_its_gradient_are_those_of_a_float64_reference(k: int, temperature: float) -> None:
    answers = example_answers(k)
    objective = ForwardKL(kd_temperature=temperature)
    values, slopes = objective(answers), gradient(objective, answers)
    signal = answers.signal
    assert signal is not None
    for position in range(POSITIONS):
        logits, ids = answers.logits[position].double().numpy(), signal.ids[position].numpy()
        teacher = np.exp(np.append(signal.logprobs[position].double().numpy(), signal.tail[position].double()))

        def reference(at: np.ndarray, ids: np.ndarray = ids, teacher: np.ndarray = teacher) -> float:
            return forward_kl_at(at, ids, teacher, temperature)

        assert float(values[position]) == pytest.approx(reference(logits), rel=1e-5, abs=1e-6)
        assert slopes[position].numpy() == pytest.approx(slope(reference, logits), abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("k", [1, 4, VOCABULARY])
def test_forward_kl_is_zero_where_the_student_is_the_teacher(k: int, temperature: float) -> None:
    answers = example_answers(k)
    agreeing = with_teacher(answers, answers.logits, k)
    objective = ForwardKL(kd_temperature=temperature)
    assert objective(agreeing).abs().max() < 1e-6 * temperature**2  # the factor before the loss scales its rounding
    assert gradient(objective, agreeing).abs().max() < 1e-6


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_forward_kl_over_the_whole_vocabulary_is_the_dense_kl_times_the_temperature_squared(temperature: float) -> None:
    answers = example_answers()
    teacher_logits = 2.0 * torch.randn(POSITIONS, VOCABULARY, generator=torch.Generator().manual_seed(5))
    dense = torch.nn.functional.kl_div(
        torch.log_softmax(answers.logits.double() / temperature, -1),
        torch.log_softmax(teacher_logits.double() / temperature, -1),
        reduction="none",
        log_target=True,
    ).sum(-1)
    whole = with_teacher(answers, teacher_logits, VOCABULARY)
    assert ForwardKL(kd_temperature=temperature)(whole).double() == pytest.approx(temperature**2 * dense, rel=1e-5)


def test_fewer_tokens_never_make_the_kl_larger() -> None:
    """Joining outcomes loses information (the log-sum inequality), so the top-k loss is a lower bound of the dense one."""
    losses = torch.stack([ForwardKL()(example_answers(k)) for k in range(1, VOCABULARY + 1)])
    assert (losses.diff(dim=0) > -1e-6).all()


def test_cross_entropy_is_torchs() -> None:
    answers = example_answers()
    expected = torch.nn.functional.cross_entropy(answers.logits.double(), answers.labels, reduction="none")
    assert CrossEntropy()(answers).double() == pytest.approx(expected, rel=1e-6)
    probabilities = torch.softmax(answers.logits, -1)
    one_hot = torch.nn.functional.one_hot(answers.labels, VOCABULARY)
    assert gradient(CrossEntropy(), answers).numpy() == pytest.approx((probabilities - one_hot).numpy(), abs=1e-6)


def test_a_recipes_loss_is_the_weighted_sum() -> None:
    answers = example_answers()
    loss = WeightedSum.of([{"name": "cross_entropy", "weight": 0.3}, {"name": "forward_kl", "weight": 2, "kd_temperature": 3.0}])
    assert loss(answers).numpy() == pytest.approx(
        (0.3 * CrossEntropy()(answers) + 2 * ForwardKL(kd_temperature=3.0)(answers)).numpy(), rel=1e-6
    )
    assert loss.needs_signal
    assert not WeightedSum.of([{"name": "cross_entropy"}]).needs_signal


def test_the_weight_is_one_where_the_recipe_gives_none() -> None:
    answers = example_answers()
    assert torch.equal(WeightedSum.of([{"name": "cross_entropy"}])(answers), CrossEntropy()(answers))


@pytest.mark.parametrize("weight", [0, -1, "much", True, math.nan, math.inf])
def test_a_weight_is_a_number_above_zero(weight: object) -> None:
    with pytest.raises(ConfigError, match="the weight of cross_entropy"):
        WeightedSum.of([{"name": "cross_entropy", "weight": weight}])


def test_mistakes_in_a_recipes_objectives_are_named() -> None:
    with pytest.raises(UsageError, match=r"unknown objective 'forward_lk'\n.*did you mean 'forward_kl'"):
        WeightedSum.of([{"name": "forward_lk"}])
    with pytest.raises(ConfigError, match="temperature: unknown key; did you mean 'kd_temperature'"):
        WeightedSum.of([{"name": "forward_kl", "temperature": 2}])
    with pytest.raises(ConfigError, match="kd_temperature: Input should be greater than 0"):
        WeightedSum.of([{"name": "forward_kl", "kd_temperature": 0}])
    with pytest.raises(ConfigError, match="needs a name"):
        WeightedSum.of([{"weight": 1}])


def test_forward_kl_without_a_teacher_is_a_mistake_in_the_recipe() -> None:
    answers = example_answers()
    with pytest.raises(ConfigError, match="needs a teacher's signals"):
        ForwardKL()(Answers(answers.logits, answers.labels))
