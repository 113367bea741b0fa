"""The divergences and ULD: values and gradients against formulas written in float64, with PyTorch's own derivative."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from slmops.config import build
from slmops.errors import ConfigError
from slmops.signals.tensors import SampledTensors, TopKTensors, from_batch, into_batch
from slmops.signals.topk import LOG_ZERO, TopK
from slmops.testing.objectives import POSITIONS, VOCABULARY, example_answers, with_all_samples, with_teacher
from slmops.training.objectives.base import Answers, Objective
from slmops.training.objectives.buckets import buckets
from slmops.training.objectives.divergences import ForwardKL, GeneralizedJSD, ReverseKL
from slmops.training.objectives.uld import ULD
from slmops.training.registry import OBJECTIVES

ON_LAYERS = ("attention_maps", "attention_relations", "hidden_states")
OTHERS = ("contrastive", "cross_entropy", "forward_kl", *ON_LAYERS)

Formula = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p * (p / q).log()).sum(-1)


def jsd(beta: float) -> Formula:
    """Agarwal et al. 2024, equation 1: teacher p, student q."""
    return lambda p, q: beta * kl(p, beta * p + (1 - beta) * q) + (1 - beta) * kl(q, beta * p + (1 - beta) * q)


# Name, options, and the formula in probabilities: the teacher's p, the student's q.
CASES: list[tuple[str, dict[str, Any], Formula]] = [
    ("forward_kl", {}, kl),
    ("reverse_kl", {}, lambda p, q: kl(q, p)),
    ("jsd", {}, jsd(0.5)),
    ("jsd", {"beta": 0.1}, jsd(0.1)),
    ("jsd", {"beta": 0.9}, jsd(0.9)),
    ("jsd", {"beta": 0.0}, kl),
    ("jsd", {"beta": 1.0}, lambda p, q: kl(q, p)),
    ("skew_kl", {}, lambda p, q: kl(p, 0.1 * p + 0.9 * q)),
    ("skew_kl", {"alpha": 0.0}, kl),
    ("skew_reverse_kl", {"alpha": 0.3}, lambda p, q: kl(q, 0.7 * p + 0.3 * q)),
    ("skew_reverse_kl", {"alpha": 0.0}, lambda p, q: kl(q, p)),
    ("total_variation", {}, lambda p, q: (p - q).abs().sum(-1) / 2),
]
NAMES = [f"{name}{options or ''}" for name, options, _ in CASES]


def make(name: str, options: dict[str, Any]) -> Objective:
    return build(OBJECTIVES.get(name), options, where="test")


def soft(p: torch.Tensor, temperature: float) -> torch.Tensor:
    return p ** (1 / temperature) / (p ** (1 / temperature)).sum(-1, keepdim=True)


def reduced(p: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Dense probabilities as those of ``ids`` and of all others, which are dropped where there are none."""
    rest = torch.ones_like(p).scatter(-1, ids, 0.0)
    return torch.cat([p.gather(-1, ids), (p * rest).sum(-1, keepdim=True)], -1)[:, : p.shape[-1]]


def losses_and_gradient(objective: Objective, answers: Answers) -> tuple[torch.Tensor, torch.Tensor]:
    logits = answers.logits.clone().requires_grad_(True)
    losses = objective(replace(answers, logits=logits))
    # Positions weigh differently, so that a gradient at the wrong position would show.
    losses.mul(torch.arange(1.0, len(losses) + 1)).sum().backward()
    assert logits.grad is not None
    return losses.detach(), logits.grad


def reference_and_gradient(answers: Answers, loss: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    logits = answers.logits.double().requires_grad_(True)
    losses = loss(torch.softmax(logits, -1))
    losses.mul(torch.arange(1.0, len(losses) + 1)).sum().backward()
    assert logits.grad is not None
    return losses.detach(), logits.grad


@pytest.mark.parametrize(("name", "options", "formula"), CASES, ids=NAMES)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("k", [1, 4, VOCABULARY])
def test_values_and_gradients_are_those_of_the_formula(
    name: str, options: dict[str, Any], formula: Formula, temperature: float, k: int
) -> None:
    answers = example_answers(k, seed=3)
    signal = answers.signal
    assert isinstance(signal, TopKTensors)
    teacher = torch.cat([signal.logprobs, signal.tail[:, None]], -1).double().exp()[:, :VOCABULARY]

    def reference(q: torch.Tensor) -> torch.Tensor:
        return temperature**2 * formula(soft(teacher, temperature), soft(reduced(q, signal.ids), temperature))

    losses, gradient = losses_and_gradient(make(name, {**options, "kd_temperature": temperature}), answers)
    expected, expected_gradient = reference_and_gradient(answers, reference)
    assert losses.double() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert gradient.double().numpy() == pytest.approx(expected_gradient.numpy(), rel=1e-4, abs=2e-5)


@pytest.mark.parametrize(("name", "options", "formula"), CASES, ids=NAMES)
def test_with_the_whole_vocabulary_they_are_dense(name: str, options: dict[str, Any], formula: Formula) -> None:
    answers = example_answers()
    teacher_logits = 2.0 * torch.randn(POSITIONS, VOCABULARY, generator=torch.Generator().manual_seed(5))
    whole = with_teacher(answers, teacher_logits, VOCABULARY)
    dense = formula(torch.softmax(teacher_logits.double(), -1), torch.softmax(answers.logits.double(), -1))
    assert make(name, options)(whole).double() == pytest.approx(dense, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("name", "options", "formula"), CASES, ids=NAMES)
@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_they_are_zero_with_no_gradient_where_the_student_is_the_teacher(
    name: str, options: dict[str, Any], formula: Formula, temperature: float
) -> None:
    for k in (1, 4, VOCABULARY):
        answers = example_answers(k)
        losses, gradient = losses_and_gradient(
            make(name, {**options, "kd_temperature": temperature}), with_teacher(answers, answers.logits, k)
        )
        assert losses.abs().max() < 2e-6 * max(1, temperature**2)
        assert gradient.abs().max() < 3e-5


def test_the_jsd_goes_to_the_kls_at_its_ends() -> None:
    """``JSD(β) / β`` is the forward KL for a small β, and ``JSD(β) / (1 − β)`` the reverse KL for one near 1."""
    answers = example_answers(VOCABULARY)
    small = 1e-3
    assert (GeneralizedJSD(beta=small)(answers) / small).numpy() == pytest.approx(ForwardKL()(answers).numpy(), rel=0.03)
    assert (GeneralizedJSD(beta=1 - small)(answers) / small).numpy() == pytest.approx(ReverseKL()(answers).numpy(), rel=0.03)


def test_a_tail_lost_in_rounding_does_not_rule_a_reverse_kl() -> None:
    """A sure teacher's probabilities add up to one in float16, as if it could never say anything else."""
    logits = torch.tensor([[12.0, 3.0, *[0.0] * 30]])
    stored = TopK.from_logits(logits, 2)
    stored = TopK(stored.ids, stored.logprobs, stored.tail * 0 + LOG_ZERO)
    student = torch.tensor([[8.0, 4.0, *[0.0] * 30]])
    answers = Answers(student, torch.tensor([0]), TopKTensors.join([stored]))
    exact = kl(
        reduced(torch.softmax(student.double(), -1), torch.tensor([[0, 1]])),
        reduced(torch.softmax(logits.double(), -1), torch.tensor([[0, 1]])),
    )
    assert float(ReverseKL()(answers)) < 3 * float(exact) + 0.1
    assert float(GeneralizedJSD(beta=1.0)(answers)) == float(ReverseKL()(answers))


@pytest.mark.parametrize("k", [1, 7, 40])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_buckets_have_autograds_gradient(k: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = (scale * torch.randn(5, 40, generator=generator, dtype=torch.float64)).requires_grad_(True)
    ids = torch.rand(5, 40, generator=generator).argsort(-1)[:, :k]
    upstream = torch.randn(5, k + 1, generator=generator, dtype=torch.float64)
    rest = logits.scatter(-1, ids, float("-inf")).logsumexp(-1, keepdim=True)
    dense = torch.cat([logits.gather(-1, ids), rest], -1) - logits.logsumexp(-1, keepdim=True)
    if k == 40:  # nothing is left for the last bucket
        dense, upstream = dense[:, :-1], torch.cat([upstream[:, :-1], torch.zeros(5, 1, dtype=torch.float64)], -1)
    (expected,) = torch.autograd.grad(dense, logits, upstream[:, : dense.shape[-1]])
    found = buckets(logits, ids)
    torch.testing.assert_close(found[:, : dense.shape[-1]], dense)
    torch.testing.assert_close(torch.autograd.grad(found, logits, upstream)[0], expected)
    assert k < 40 or (found[:, -1] == LOG_ZERO).all()


def test_sampled_tokens_give_the_kl_in_expectation() -> None:
    answers = example_answers(VOCABULARY)
    teacher_logits = 2.0 * torch.randn(POSITIONS, VOCABULARY, generator=torch.Generator().manual_seed(5))
    p, q = torch.softmax(teacher_logits.double(), -1), torch.softmax(answers.logits.double(), -1)
    sampled = with_all_samples(answers, teacher_logits)
    assert ForwardKL()(sampled).double() == pytest.approx(kl(p, q), abs=1e-5)
    _, gradient = losses_and_gradient(ForwardKL(), sampled)
    weights = torch.arange(1.0, POSITIONS + 1, dtype=torch.float64)[:, None]
    assert gradient.double().numpy() == pytest.approx((weights * (q - p)).numpy(), abs=1e-5)


def test_sampled_tokens_travel_in_a_batch_and_padding_among_them_counts_nothing() -> None:
    ids, weights = torch.tensor([[3, 5], [2, 0]]), torch.tensor([[0.75, 0.25], [1.0, 0.0]])
    signal = from_batch(into_batch(SampledTensors(ids, weights, torch.tensor([0.5, 0.0]))))
    assert isinstance(signal, SampledTensors)
    logits = torch.zeros(2, 8)
    losses = ForwardKL()(Answers(logits, torch.zeros(2, dtype=torch.int64), signal))
    assert losses.tolist() == pytest.approx([math.log(8) - 0.5, math.log(8)])
    assert signal.at(slice(1, 2)).weights.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("name", [name for name in OBJECTIVES.names() if name not in OTHERS])
def test_only_the_forward_kl_is_defined_for_samples(name: str) -> None:
    answers = with_all_samples(example_answers(), torch.zeros(POSITIONS, VOCABULARY))
    with pytest.raises(ConfigError, match=f"{name} is not defined for tokens sampled from the teacher\n.*signals.form to topk"):
        make(name, {})(answers)
    with pytest.raises(ConfigError, match="forward_kl with kd_temperature 2 is not defined for tokens sampled"):
        ForwardKL(kd_temperature=2)(answers)


def uld(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Boizard et al. 2024: sorted, the shorter filled up with zeros, ``Σ |p₍ᵢ₎ − q₍ᵢ₎|``."""
    p, q = p.sort(-1, descending=True).values, q.sort(-1, descending=True).values
    width = max(p.shape[-1], q.shape[-1])
    p, q = (torch.nn.functional.pad(one, (0, width - one.shape[-1])) for one in (p, q))
    return (p - q).abs().sum(-1)


@pytest.mark.parametrize("vocabulary", [5, VOCABULARY, 20])
def test_uld_is_the_distance_of_the_sorted_probabilities(vocabulary: int) -> None:
    """With the teacher's whole vocabulary, which is smaller than the student's, as large, or larger."""
    generator = torch.Generator().manual_seed(2)
    answers = example_answers()
    teacher_logits = 2.0 * torch.randn(POSITIONS, vocabulary, generator=generator)
    p = torch.softmax(teacher_logits.double(), -1)
    losses, gradient = losses_and_gradient(ULD(), with_teacher(answers, teacher_logits, vocabulary))
    expected, expected_gradient = reference_and_gradient(answers, lambda q: uld(p, q))
    assert losses.double() == pytest.approx(expected, abs=1e-5)
    assert gradient.double().numpy() == pytest.approx(expected_gradient.numpy(), abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("k", [1, 4])
def test_uld_of_the_top_k_takes_all_others_as_one(k: int, temperature: float) -> None:
    answers = example_answers(k)
    signal = answers.signal
    assert isinstance(signal, TopKTensors)
    p = soft(torch.cat([signal.logprobs, signal.tail[:, None]], -1).double().exp(), temperature)

    def reference(q: torch.Tensor) -> torch.Tensor:
        own = reduced(q, q.detach().topk(k).indices)
        return temperature**2 * (p - soft(own, temperature)).abs().sum(-1)

    losses, gradient = losses_and_gradient(ULD(kd_temperature=temperature), answers)
    expected, expected_gradient = reference_and_gradient(answers, reference)
    assert losses.double() == pytest.approx(expected, abs=1e-5)
    assert gradient.double().numpy() == pytest.approx(expected_gradient.numpy(), abs=2e-5)


def test_uld_does_not_care_which_token_is_which() -> None:
    answers = example_answers()
    shuffled = answers.logits[:, torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(0))]
    assert ULD()(replace(answers, logits=shuffled)).numpy() == pytest.approx(ULD()(answers).numpy(), abs=1e-6)


def test_uld_compares_positions_up_to_the_shorter_answer() -> None:
    """A teacher with two answer tokens, students with three and with one."""
    two = TopK.from_logits(torch.randn(2, 20, generator=torch.Generator().manual_seed(1)), 4)
    longer, shorter = two.fitted(3), two.fitted(1)
    assert (len(longer), len(shorter)) == (3, 1)
    logits = torch.randn(3, VOCABULARY, generator=torch.Generator().manual_seed(2)).requires_grad_(True)
    losses = ULD()(Answers(logits, torch.zeros(3, dtype=torch.int64), TopKTensors.join([longer])))
    losses.sum().backward()
    assert (losses[:2] > 0.1).all()
    assert losses[2] == 0
    assert logits.grad is not None
    assert (logits.grad[2] == 0).all()
    one = ULD()(Answers(logits[:1], torch.zeros(1, dtype=torch.int64), TopKTensors.join([shorter])))
    assert torch.equal(one, losses[:1])


def test_a_certain_teacher_lets_a_student_of_a_reverse_kl_doubt() -> None:
    """An answer without probabilities is stored as one sure token and others that are none."""
    sure = TopKTensors(torch.tensor([[2, 0, 1]]), torch.tensor([[0.0, LOG_ZERO, LOG_ZERO]]), torch.tensor([LOG_ZERO]))
    answers = Answers(torch.zeros(1, 8), torch.tensor([2]), sure)
    for name in ("reverse_kl", "skew_reverse_kl", "jsd"):
        assert 0 < float(make(name, {})(answers)) < 16
