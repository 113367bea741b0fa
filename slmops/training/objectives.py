"""Losses at answer positions.

An objective is an options model that is called with the student's logits and returns one loss a position. Adding one is
a class with a ``__call__``, its options, a line in ``training.registry``; the contract tests then run over it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from pydantic import Field

from slmops.config import PluginSpec, Section, build, plugin
from slmops.errors import ConfigError
from slmops.signals.tensors import SampledTensors, Signal
from slmops.training.registry import OBJECTIVES


@dataclass(frozen=True)
class Answers:
    """What an objective sees of a batch: ``N`` answer positions, shifted and masked already.

    Args:
        logits: Student's logits, float32 ``[N, V]``.
        labels: Token ids of the answers, int64 ``[N]``.
        signal: Teacher's distribution there, or ``None`` without a teacher.
    """

    logits: torch.Tensor
    labels: torch.Tensor
    signal: Signal | None = None


class Objective(Protocol):
    """A loss; ``needs_signal`` says whether it can work without a teacher's distribution."""

    needs_signal: bool

    def __call__(self, answers: Answers) -> torch.Tensor:
        """The loss at each position, float32 ``[N]``."""


class CrossEntropy(Section):
    """Negative log-likelihood of the answer."""

    @property
    def needs_signal(self) -> bool:
        """It does not."""
        return False

    def __call__(self, answers: Answers) -> torch.Tensor:
        """The loss at each position, float32 ``[N]``."""
        return torch.nn.functional.cross_entropy(answers.logits, answers.labels, reduction="none")


class ForwardKL(Section):
    """KL(teacher ‖ student) (Hinton et al. 2015) over the teacher's top-k tokens and one bucket for all others.

    Both distributions are reduced to the same ``k + 1`` outcomes before they are softened with the temperature
    (each probability to the power ``1/T``, normalised), so the loss is zero where teacher and student agree at every
    temperature, and equals the dense KL when ``k`` is the vocabulary. The factor ``T²`` keeps its gradients at the
    scale of cross-entropy's.

    Of tokens drawn from the teacher it is an unbiased estimate of the dense KL, in value and gradient, at temperature 1; of a
    single position it may be negative.
    """

    kd_temperature: float = Field(1.0, gt=0, description="Softness of both distributions")

    @property
    def needs_signal(self) -> bool:
        """It does."""
        return True

    def __call__(self, answers: Answers) -> torch.Tensor:
        """The loss at each position, float32 ``[N]``."""
        signal = answers.signal
        if signal is None:
            raise ConfigError("forward_kl needs a teacher's signals", where="training.objectives", fix="use cross_entropy alone")
        if isinstance(signal, SampledTensors):
            return self._of_draws(answers.logits, signal)
        student = _buckets(answers.logits, signal.ids)
        teacher = torch.cat([signal.logprobs, signal.tail.unsqueeze(-1)], dim=-1)
        if signal.ids.shape[-1] == answers.logits.shape[-1]:
            student, teacher = student[:, :-1], teacher[:, :-1]
        temperature = self.kd_temperature
        student = torch.log_softmax(student / temperature, dim=-1)
        teacher = torch.log_softmax(teacher / temperature, dim=-1)
        return temperature**2 * (teacher.exp() * (teacher - student)).sum(-1)

    def _of_draws(self, logits: torch.Tensor, signal: SampledTensors) -> torch.Tensor:
        if self.kd_temperature != 1:
            raise ConfigError(
                "tokens are drawn from the teacher at temperature 1, so forward_kl cannot soften them",
                where="training.objectives",
                fix="remove kd_temperature, or use signals.form: topk",
            )
        return torch.logsumexp(logits, dim=-1) - (signal.weights * logits.gather(-1, signal.ids)).sum(-1) - signal.entropy


def _buckets(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Log-probabilities ``[N, k + 1]`` of the tokens in ``ids`` and of all others together."""
    top = logits.gather(-1, ids)
    total = torch.logsumexp(logits, dim=-1, keepdim=True)
    others = logits.scatter(-1, ids, float("-inf"))
    tail = torch.logsumexp(others, dim=-1, keepdim=True) if ids.shape[-1] < logits.shape[-1] else torch.full_like(total, -1e4)
    return torch.cat([top, tail], dim=-1) - total


@dataclass(frozen=True)
class WeightedSum:
    """The loss of a recipe."""

    terms: tuple[tuple[float, Objective], ...]

    @classmethod
    def of(cls, specs: Sequence[PluginSpec]) -> WeightedSum:
        """Build it from a recipe's ``objectives``: ``{name, weight (1), <options>}`` each.

        Raises:
            UsageError: Unknown objective.
            ConfigError: Unknown option, or a weight that is no number above zero.
        """
        terms = []
        for spec in specs:
            name, options = plugin(spec, where="training.objectives")
            weight = options.pop("weight", 1.0)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
                raise ConfigError(f"the weight of {name} is {weight!r}, not a number above zero", where="training.objectives")
            terms.append((float(weight), build(OBJECTIVES.get(name), options, where=f"objective {name!r}")))
        return cls(tuple(terms))

    @property
    def needs_signal(self) -> bool:
        """Whether any term does."""
        return any(objective.needs_signal for _, objective in self.terms)

    def __call__(self, answers: Answers) -> torch.Tensor:
        """The weighted loss at each position, float32 ``[N]``."""
        return torch.stack([weight * objective(answers) for weight, objective in self.terms]).sum(0)
