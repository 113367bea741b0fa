"""Mixture: models of one vocabulary answer by the weighted mean of their distributions."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from slmops.errors import ConfigError
from slmops.runtimes.torch_runtime import TorchRuntime
from slmops.sections import Section
from slmops.teachers.base import Teacher
from slmops.teachers.combiners import Tools
from slmops.teachers.local import LocalTeacher
from slmops.teachers.panel import identity, open_seats
from slmops.teachers.spec import Member
from slmops.teachers.weights import WeightsTeacher

_PROBE = "Where's MY  order no. 1234567?\n\tÇa coûte 12,50 € … 日本語"
"""Tokenizers with one vocabulary that differ in merges or normalization split this differently."""


class Mixture(Section):
    """Local teachers of one vocabulary as one: its distribution is the mean of theirs by their weights.

    Prompts are rendered by the first member's template.
    """

    def over(self, members: Sequence[Member], tools: Tools) -> Teacher:
        """The members as one model."""
        outside = [member.model for member in members if member.kind != "local"]
        if outside or len(members) < 2:
            problem = f"{outside[0]} gives no distribution" if outside else "a mixture needs at least two members"
            raise ConfigError(problem, where="combine", fix="mix models on this machine, or use vote, best-of-n or judge")
        seats = open_seats(members, tools)
        weights = [member.weight for member in members]
        name = f"mixture of {', '.join(seat.teacher.name for seat in seats)}"
        return WeightsTeacher(
            name,
            lambda: identity("mixture", {}, seats),
            lambda rows, params, work: mix(
                [tools.load(member) for member in members], weights, [member.model for member in members]
            ),
            tools.chunk_rows,
        )


def mix(teachers: Sequence[LocalTeacher], weights: Sequence[float], names: Sequence[str]) -> LocalTeacher:
    """One local teacher whose distribution is the mean of several by their weights.

    Raises:
        ConfigError: Their tokenizers differ.
    """
    first = teachers[0]
    vocabulary = first.template.tokenizer.get_vocab()
    for teacher, name in zip(teachers[1:], names[1:], strict=True):
        own = teacher.template.tokenizer
        if own.get_vocab() != vocabulary or teacher.runtime.tokenize(_PROBE) != first.runtime.tokenize(_PROBE):
            raise ConfigError(
                f"{names[0]} and {name} have different vocabularies, so their distributions cannot be mixed",
                where="combine",
                fix="use vote, best-of-n or judge",
            )
    runtimes = [teacher.runtime for teacher in teachers if isinstance(teacher.runtime, TorchRuntime)]
    model: Any = MixtureModel([runtime.model for runtime in runtimes], weights)
    context = min(teacher.runtime.info.context_length for teacher in teachers)
    return LocalTeacher(TorchRuntime(model, first.template.tokenizer, context), first.template)


class MixtureModel(torch.nn.Module):
    """Causal language models as one whose logits are the log of the weighted mean of their probabilities.

    Padded vocabularies may differ in size; what goes beyond the smallest stands for no token.
    """

    def __init__(self, models: Sequence[Any], weights: Sequence[float]) -> None:
        super().__init__()
        self.models = torch.nn.ModuleList(models)
        total = sum(weights)
        self._log_weights = [float(torch.tensor(weight / total).log()) for weight in weights]
        self.generation_config = models[0].generation_config
        self.config = models[0].config

    @property
    def dtype(self) -> torch.dtype:
        """Of the first model."""
        dtype: torch.dtype = self.models[0].dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Of the first model."""
        device: torch.device = self.models[0].device
        return device

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Sequence[Any] | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        use_cache: bool = False,
    ) -> SimpleNamespace:
        """Log-probabilities ``[B, K, V]`` as ``logits``, and the models' caches."""
        caches = past_key_values or [None] * len(self.models)
        outputs = [
            model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=cache,
                logits_to_keep=logits_to_keep,
                use_cache=use_cache,
            )
            for model, cache in zip(self.models, caches, strict=True)
        ]
        width = min(output.logits.shape[-1] for output in outputs)
        mixed = torch.stack(
            [
                torch.log_softmax(output.logits[..., :width].float(), dim=-1) + log_weight
                for output, log_weight in zip(outputs, self._log_weights, strict=True)
            ]
        ).logsumexp(dim=0)
        return SimpleNamespace(logits=mixed, past_key_values=[output.past_key_values for output in outputs] if use_cache else None)
