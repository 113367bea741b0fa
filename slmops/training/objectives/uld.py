"""A loss for teachers with another vocabulary."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from slmops.sections import Section
from slmops.signals.tensors import TopKTensors
from slmops.signals.topk import LOG_ZERO
from slmops.training.objectives.base import Answers, top_k_of
from slmops.training.objectives.buckets import buckets
from slmops.training.objectives.divergences import distance


class ULD(Section):
    """Universal logit distillation (Boizard et al. 2024): the Wasserstein-1 distance of two *sorted* distributions.

    Sorting takes the place of knowing which token is which: ``Σ |p₍ᵢ₎ − q₍ᵢ₎|`` with the shorter vocabulary filled up with
    zeros. Of the teacher the ``k`` largest probabilities and the mass of all others are known, so the student is reduced to
    its own ``k`` largest and the mass of its others: exact where ``k`` is the teacher's vocabulary, a lower bound elsewhere.

    An answer has another number of tokens in the teacher's tokenizer. Positions are compared in order up to the shorter of
    the two; the student's further ones have a signal without any mass (``signals.topk.TopK.fitted``), and no loss.
    """

    name: ClassVar[str] = "uld"

    kd_temperature: float = Field(1.0, gt=0, description="Softness of both distributions; the loss is multiplied by its square")

    @property
    def needs_signal(self) -> bool:
        """It does."""
        return True

    @property
    def across_tokenizers(self) -> bool:
        """It is made for that."""
        return True

    def __call__(self, answers: Answers) -> torch.Tensor:
        """The loss at each position, float32 ``[N]``."""
        signal = top_k_of(self.name, answers.signal)
        width, vocabulary = signal.ids.shape[-1], answers.logits.shape[-1]
        largest = answers.logits.detach().topk(min(width, vocabulary), dim=-1).indices
        student = buckets(answers.logits, largest)
        missing = student.new_full((student.shape[0], max(0, width - vocabulary)), LOG_ZERO)
        student = torch.cat([student[:, :-1], missing, student[:, -1:]], dim=-1)
        sorted_top = signal.logprobs.sort(dim=-1, descending=True).values
        teacher = torch.cat([sorted_top, signal.tail.unsqueeze(-1)], dim=-1)
        temperature = self.kd_temperature
        apart = distance(torch.log_softmax(teacher / temperature, dim=-1), torch.log_softmax(student / temperature, dim=-1))
        return temperature**2 * torch.where(_known(signal), apart, torch.zeros_like(apart))


def _known(signal: TopKTensors) -> torch.Tensor:
    """Where there is any mass, bool ``[N]``."""
    return torch.maximum(signal.logprobs.amax(-1), signal.tail) > LOG_ZERO / 2
