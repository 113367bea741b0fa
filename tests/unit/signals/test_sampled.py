"""Tokens drawn from a teacher's distribution: right on average, few bytes, the same for a row wherever it is drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from slmops.errors import ConfigError
from slmops.signals.sampled import Sampled, offsets_of
from slmops.signals.tensors import SampledTensors
from slmops.training.objectives import Answers, ForwardKL

POSITIONS, VOCABULARY = 5, 12
LOGITS = 2.0 * torch.randn(POSITIONS, VOCABULARY, generator=torch.Generator().manual_seed(0))
MANY = 4000


def dense(signal: Sampled, vocabulary: int = VOCABULARY) -> np.ndarray:
    """The estimated probabilities ``[N, V]``."""
    tensors = SampledTensors.join([signal])
    return torch.zeros(len(signal), vocabulary).scatter_add(1, tensors.ids, tensors.weights).numpy()


def spread(count: int) -> np.ndarray:
    """So many offsets, in [0, 1) at equal distances."""
    return (np.arange(count) + 0.5) / count


@pytest.mark.parametrize("samples", [1, 3, 50, 255])
def test_the_mean_over_all_offsets_is_the_distribution(samples: int) -> None:
    probabilities = torch.softmax(LOGITS[0].double(), -1).numpy()
    drawn = dense(Sampled.from_logits(LOGITS[:1].expand(MANY, -1), samples, spread(MANY)))
    assert drawn.mean(0) == pytest.approx(probabilities, abs=1.5 / MANY)


def test_random_offsets_are_right_on_average_and_closer_than_independent_draws() -> None:
    """The mean over 4,000 positions is within five standard errors at every token; the error of one is that of spaced draws."""
    samples, probabilities = 8, torch.softmax(LOGITS[0].double(), -1).numpy()
    offsets = np.concatenate([offsets_of([number], 1) for number in range(MANY)])
    drawn = dense(Sampled.from_logits(LOGITS[:1].expand(MANY, -1), samples, offsets))
    independent = probabilities * (1 - probabilities) / samples
    assert (np.abs(drawn.mean(0) - probabilities) < 5 * np.sqrt(independent / MANY)).all()
    assert drawn.var(0).sum() < 0.5 * independent.sum()


def test_what_is_kept_is_small_and_adds_up() -> None:
    signal = Sampled.from_logits(LOGITS, 40, spread(POSITIONS))
    assert [array.dtype for array in (signal.sizes, signal.entropy, signal.ids, signal.counts)] == [
        np.uint8,
        np.float16,
        np.uint16,
        np.uint8,
    ]
    assert len(signal) == POSITIONS
    assert signal.tokens == signal.sizes.sum() == len(signal.ids) == len(signal.counts)
    ends = np.cumsum(signal.sizes)
    for start, end in zip(ends - signal.sizes, ends, strict=True):
        assert signal.counts[start:end].sum() == 40
        assert (np.diff(signal.ids[start:end].astype(int)) > 0).all()  # each token once
    entropy = torch.special.entr(torch.softmax(LOGITS.double(), -1)).sum(-1)
    assert signal.entropy == pytest.approx(entropy.numpy(), rel=1e-3)


def test_a_vocabulary_beyond_two_bytes_has_four_byte_ids() -> None:
    logits = torch.zeros(1, 70_000)
    logits[0, 69_999] = 50.0
    signal = Sampled.from_logits(logits, 3, np.full(1, 0.5))
    assert signal.ids.dtype == np.uint32
    assert (signal.ids.tolist(), signal.counts.tolist()) == ([69_999], [3])


def test_a_forbidden_token_is_never_drawn_and_a_certain_one_always() -> None:
    logits = torch.full((2, 6), float("-inf"))
    logits[0, 5] = 0.0
    logits[1, [1, 4]] = 1e4
    for offset in (0.0, 0.5, 1 - 2.0**-53):
        signal = Sampled.from_logits(logits, 4, np.full(2, offset))
        assert signal.ids.tolist() == [5, 1, 4]
        assert signal.counts.tolist() in ([4, 2, 2], [4, 1, 3])  # the last is where rounding meets an offset of almost 1
        assert signal.entropy == pytest.approx([0.0, np.log(2)], abs=1e-3)


def test_offsets_follow_from_the_tokens_of_a_row_alone() -> None:
    offsets = offsets_of([5, 6, 7], 1000)
    assert np.array_equal(offsets, offsets_of((5, 6, 7), 1000))
    assert np.array_equal(offsets[:10], offsets_of([5, 6, 7], 10))
    assert offsets[:2] == pytest.approx([0.4643544, 0.9215209], abs=1e-6)  # written on any machine
    assert not np.isin(offsets, offsets_of([5, 6, 8], 1000)).any()
    assert (offsets.min() >= 0, offsets.max() < 1, abs(offsets.mean() - 0.5) < 0.05) == (True, True, True)


def test_a_position_is_drawn_alike_in_any_block_and_batch() -> None:
    logits = torch.randn(300, 40, generator=torch.Generator().manual_seed(1))
    offsets = offsets_of([1], 300)
    whole = Sampled.from_logits(logits, 16, offsets)
    parts = [Sampled.from_logits(logits[at], 16, offsets[at]) for at in (slice(0, 1), slice(1, 200), slice(200, 300))]
    again = Sampled.concatenate(parts)
    for name in Sampled.names():
        assert np.array_equal(getattr(whole, name), getattr(again, name))
    assert np.array_equal(dense(whole[120:250], 40), dense(whole, 40)[120:250])
    assert len(whole[7:7]) == whole[7:7].tokens == 0


def student_and_teacher(samples: int, positions: int) -> tuple[Answers, torch.Tensor]:
    """A student at so many alike positions, with tokens drawn from a teacher, and the teacher's distribution."""
    generator = torch.Generator().manual_seed(3)
    student, teacher = (2.0 * torch.randn(1, VOCABULARY, generator=generator) for _ in range(2))
    signal = SampledTensors.join([Sampled.from_logits(teacher.expand(positions, -1), samples, offsets_of([7], positions))])
    answers = Answers(student.expand(positions, -1).clone(), torch.zeros(positions, dtype=torch.int64), signal)
    return answers, torch.softmax(teacher[0], -1)


@pytest.mark.parametrize("samples", [2, 12])
def test_the_kl_is_unbiased_in_value_and_gradient(samples: int) -> None:
    """Means over 4,000 positions are within five of their standard errors of the dense KL and of its gradient."""
    answers, p = student_and_teacher(samples, MANY)
    logits = answers.logits.requires_grad_(True)
    values = ForwardKL()(replace(answers, logits=logits))
    (slopes,) = torch.autograd.grad(values.sum(), logits)
    q = torch.softmax(logits[0].detach(), -1)
    dense, error = (p * (p / q).log()).sum(), values.std() / MANY**0.5
    assert error < 0.03 * dense
    assert abs(values.mean() - dense) < 5 * error + 2e-3  # the entropy is a float16
    assert ((slopes.mean(0) - (q - p)).abs() < 5 * slopes.std(0) / MANY**0.5 + 1e-6).all()
    assert (q - p).abs().max() > 0.1


def test_the_kl_is_that_of_a_float64_reference() -> None:
    answers, _ = student_and_teacher(12, 3)
    signal = answers.signal
    assert isinstance(signal, SampledTensors)
    q = torch.log_softmax(answers.logits.double(), -1)
    expected = [
        sum(-float(w) * float(q[n, i]) for i, w in zip(signal.ids[n], signal.weights[n], strict=True)) - float(signal.entropy[n])
        for n in range(3)
    ]
    assert ForwardKL()(answers).tolist() == pytest.approx(expected, abs=1e-5)


def test_drawn_tokens_cannot_be_softened() -> None:
    answers, _ = student_and_teacher(12, 1)
    with pytest.raises(ConfigError, match="kd_temperature"):
        ForwardKL(kd_temperature=2.0)(answers)
