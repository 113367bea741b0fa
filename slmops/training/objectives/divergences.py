"""Divergences between teacher and student over the teacher's top-k tokens and one bucket for all others.

Both distributions are reduced to the same ``k + 1`` outcomes before they are softened with the temperature (each
probability to the power ``1/T``, normalised), so every divergence is zero where teacher and student agree at every
temperature, and equals the dense one when ``k`` is the vocabulary. The factor ``T²`` keeps gradients at the scale of
cross-entropy's (Hinton et al. 2015). In the formulas ``p`` is the teacher and ``q`` the student.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from pydantic import Field

from slmops.sections import Section
from slmops.signals.tensors import SampledTensors
from slmops.signals.topk import LOG_ZERO
from slmops.training.objectives.base import Answers, not_for_samples, required, top_k_of
from slmops.training.objectives.buckets import buckets

LEAST = -16.0
"""Log of what rounding may have taken from an outcome; at zero a reverse KL would let no student have any mass there."""

ROUNDING = 1e-6
"""Difference of two float32 probabilities that is no difference; an absolute value has no gradient at zero but one beside it."""


class Divergence(Section):
    """Base of all that compare ``p`` and ``q`` outcome by outcome; a subclass has :meth:`between`."""

    name: ClassVar[str]

    kd_temperature: float = Field(1.0, gt=0, description="Softness of both distributions")

    @property
    def needs_signal(self) -> bool:
        """It does."""
        return True

    def __call__(self, answers: Answers) -> torch.Tensor:
        """The loss at each position, float32 ``[N]``."""
        signal = top_k_of(self.name, answers.signal)
        student = buckets(answers.logits, signal.ids)
        teacher = self.known(torch.cat([signal.logprobs, signal.tail.unsqueeze(-1)], dim=-1))
        if signal.ids.shape[-1] == answers.logits.shape[-1]:
            student, teacher = student[:, :-1], teacher[:, :-1]
        temperature = self.kd_temperature
        teacher = torch.log_softmax(teacher / temperature, dim=-1)
        student = torch.log_softmax(student / temperature, dim=-1)
        return temperature**2 * self.between(teacher, student)

    def known(self, teacher: torch.Tensor) -> torch.Tensor:
        """The teacher's log-probabilities ``[N, k + 1]``, the tail last, as this divergence uses them."""
        return teacher

    @abstractmethod
    def between(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        """The divergence ``[N]`` of two tensors of log-probabilities ``[N, outcomes]``."""


class ForwardKL(Divergence):
    """``KL(p ‖ q)`` (Hinton et al. 2015).

    With sampled signals it is ``−Σ w log q − H(p)``, which is the dense KL in expectation over the samples; at a single
    position it may lie below zero.
    """

    name: ClassVar[str] = "forward_kl"

    @property
    def takes_samples(self) -> bool:
        """It does at the temperature that the teacher is sampled at."""
        return self.kd_temperature == 1

    def __call__(self, answers: Answers) -> torch.Tensor:
        """The loss at each position, float32 ``[N]``."""
        signal = required(self.name, answers.signal)
        if not isinstance(signal, SampledTensors):
            return super().__call__(answers)
        if not self.takes_samples:
            raise not_for_samples(f"{self.name} with kd_temperature {self.kd_temperature:g}")
        drawn = (signal.weights * answers.logits.gather(-1, signal.ids)).sum(-1)
        return torch.logsumexp(answers.logits, dim=-1) - drawn - signal.entropy

    def between(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        """``KL(p ‖ q)``."""
        return _kl(teacher, student)


class _Reverse(Divergence):
    """Base of those that divide by the teacher's probabilities."""

    def known(self, teacher: torch.Tensor) -> torch.Tensor:
        """Where nothing is stored, and in the tail, at least what rounding may have taken."""
        found = torch.where(teacher > LOG_ZERO / 2, teacher, torch.full_like(teacher, LEAST))
        return torch.cat([found[:, :-1], found[:, -1:].clamp(min=LEAST)], dim=-1)


class ReverseKL(_Reverse):
    """``KL(q ‖ p)``, MiniLLM's term (Gu et al. 2024), exact over all outcomes instead of sampled."""

    name: ClassVar[str] = "reverse_kl"

    def between(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        """``KL(q ‖ p)``."""
        return _kl(student, teacher)


class GeneralizedJSD(_Reverse):
    """``β KL(p ‖ m) + (1 − β) KL(q ‖ m)`` with ``m = β p + (1 − β) q`` (GKD, Agarwal et al. 2024, equation 1).

    Its gradient goes to that of ``β KL(p ‖ q)`` for ``β → 0`` and of ``(1 − β) KL(q ‖ p)`` for ``β → 1``. At the ends, where
    the formula is zero for all ``q``, it is these KLs themselves, as other implementations have it.
    """

    name: ClassVar[str] = "jsd"

    beta: float = Field(0.5, ge=0, le=1, description="0: forward KL; 1: reverse KL; between: their mixture")

    def between(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        """The formula above."""
        if self.beta == 0:
            return _kl(teacher, student)
        if self.beta == 1:
            return _kl(student, teacher)
        mixture = _mixture(teacher, student, self.beta)
        return self.beta * _kl(teacher, mixture) + (1 - self.beta) * _kl(student, mixture)


class SkewKL(Divergence):
    """``KL(p ‖ α p + (1 − α) q)`` (DistiLLM, Ko et al. 2024): a forward KL that stays bounded where ``q`` is small."""

    name: ClassVar[str] = "skew_kl"

    alpha: float = Field(0.1, ge=0, lt=1, description="Share of the teacher in the mixture; 0: forward KL")

    def between(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        """The formula above."""
        return _kl(teacher, _mixture(teacher, student, self.alpha))


class SkewReverseKL(_Reverse):
    """``KL(q ‖ (1 − α) p + α q)`` (DistiLLM, Ko et al. 2024): a reverse KL that stays bounded where ``p`` is small."""

    name: ClassVar[str] = "skew_reverse_kl"

    alpha: float = Field(0.1, ge=0, lt=1, description="Share of the student in the mixture; 0: reverse KL")

    def between(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        """The formula above."""
        return _kl(student, _mixture(student, teacher, self.alpha))


class TotalVariation(Divergence):
    """``½ Σ |p − q|`` (f-distill, Wen et al. 2023)."""

    name: ClassVar[str] = "total_variation"

    def between(self, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        """The formula above."""
        return distance(teacher, student) / 2


def distance(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """``Σ |p − q|``, ``[N]``, of log-probabilities ``[N, outcomes]``; differences within rounding count as none."""
    return torch.nn.functional.hardshrink(teacher.exp() - student.exp(), ROUNDING).abs().sum(-1)


def _kl(of: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    return (of.exp() * (of - to)).sum(-1)


def _mixture(first: torch.Tensor, second: torch.Tensor, share: float) -> torch.Tensor:
    """Log of ``share`` parts of one distribution and the rest of the other."""
    if share == 0:
        return second
    return torch.logaddexp(first + math.log(share), second + math.log1p(-share))
