"""What an objective sees and what it is, and the loss that needs no teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from slmops.errors import ConfigError
from slmops.models.watching import Attended
from slmops.sections import Section
from slmops.signals.tensors import SampledTensors, Signal, TopKTensors

WHERE = "training.objectives"
"""The key of a recipe that names the losses."""


@dataclass(frozen=True)
class Matched:
    """Layers of the student beside those of the teacher that they should be like, of ``B`` rows of ``T`` tokens, in float32.

    Args:
        hidden: Of each pair the hidden states at the answer positions, the student's first, ``[N, H]``.
        attention: Of each pair what enters the attention, the student's first.
        columns: int64 ``[K]``, the columns at which any row has an answer position.
        places: int64 ``[N]``, the answer positions in the flattened ``[B, K]``.
        read: bool ``[B, T]``, false at padding.
    """

    hidden: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    attention: tuple[tuple[Attended, Attended], ...]
    columns: torch.Tensor
    places: torch.Tensor
    read: torch.Tensor

    @property
    def earlier(self) -> torch.Tensor:
        """Whether a position comes no later than a column, bool ``[B, K, T]``; false at padding."""
        position = torch.arange(self.read.shape[1], device=self.read.device)
        return self.read.unsqueeze(1) & (position <= self.columns.unsqueeze(-1))


@dataclass(frozen=True)
class Answers:
    """What an objective sees of a batch: ``N`` answer positions, shifted and masked already.

    Args:
        logits: Student's logits, float32 ``[N, V]``; a loss on layers sees none, ``[N, 0]``.
        labels: Token ids of the answers, int64 ``[N]``.
        signal: Teacher's distribution there, or ``None`` without a teacher.
        matched: Pairs of layers, for a loss on layers.
    """

    logits: torch.Tensor
    labels: torch.Tensor
    signal: Signal | None = None
    matched: Matched | None = None


class Objective(Protocol):
    """A loss; ``needs_signal`` says whether it can work without a teacher's distribution.

    Two more attributes may be given, and are False where they are not: ``takes_samples`` (tokens sampled from the teacher
    will do) and ``across_tokenizers`` (the teacher's token ids may mean other tokens than the student's). A loss on layers
    derives from :class:`slmops.training.objectives.matching.Matching`.
    """

    @property
    def needs_signal(self) -> bool:
        """Whether it needs a teacher's distribution."""

    def __call__(self, answers: Answers) -> torch.Tensor:
        """The loss at each position, float32 ``[N]``.

        Raises:
            ConfigError: It needs a teacher's distribution, and there is none, or one of a form that it is not defined for.
        """


class CrossEntropy(Section):
    """Negative log-likelihood of the answer."""

    @property
    def needs_signal(self) -> bool:
        """It does not."""
        return False

    def __call__(self, answers: Answers) -> torch.Tensor:
        """The loss at each position, float32 ``[N]``."""
        return torch.nn.functional.cross_entropy(answers.logits, answers.labels, reduction="none")


def required(name: str, signal: Signal | None) -> Signal:
    """The signal that an objective needs.

    Raises:
        ConfigError: There is none.
    """
    if signal is None:
        raise ConfigError(f"{name} needs a teacher's signals", where=WHERE, fix="use cross_entropy alone")
    return signal


def top_k_of(name: str, signal: Signal | None) -> TopKTensors:
    """The signal of an objective that compares whole distributions.

    Raises:
        ConfigError: There is none, or the teacher was only sampled from.
    """
    if isinstance(found := required(name, signal), SampledTensors):
        raise not_for_samples(name)
    return found


def not_for_samples(name: str) -> ConfigError:
    """What is wrong with a recipe that gives an objective tokens sampled from the teacher, and what to do."""
    return ConfigError(
        f"{name} is not defined for tokens sampled from the teacher",
        where=WHERE,
        fix="set signals.form to topk, or take forward_kl with kd_temperature 1 as objective",
    )
