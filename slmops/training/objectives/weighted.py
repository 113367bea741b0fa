"""The loss of a recipe: a weighted sum of objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from slmops.config import build, plugin
from slmops.errors import ConfigError
from slmops.sections import PluginSpec
from slmops.signals.tensors import SampledTensors, Signal
from slmops.training.objectives.base import WHERE, Answers, Objective, not_for_samples
from slmops.training.objectives.contrastive import Contrastive
from slmops.training.objectives.matching import Matching
from slmops.training.objectives.modules import OwnPairLoss
from slmops.training.objectives.own import open_own
from slmops.training.objectives.schedule import Schedule, schedule_of
from slmops.training.registry import OBJECTIVES, own_file

PAIRS = (Contrastive, OwnPairLoss)
"""Losses on pairs of texts."""


@dataclass(frozen=True)
class Term:
    """An objective with its weight."""

    name: str
    weight: Schedule
    objective: Objective

    def may(self, what: str) -> bool:
        """Whether the objective has one of the attributes that may be left out (see :class:`Objective`)."""
        return not self.objective.needs_signal or bool(getattr(self.objective, what, False))


@dataclass(frozen=True)
class WeightedSum:
    """The loss of a recipe.

    Called, it is the sum of the losses on tokens; those on layers are summed by :class:`slmops.training.matching.LayerLosses`, the
    one on pairs of texts is computed by :class:`slmops.training.pairs.PairLoss`.
    """

    terms: tuple[Term, ...]

    @classmethod
    def of(cls, specs: Sequence[PluginSpec]) -> WeightedSum:
        """Build it from a recipe's ``objectives``: ``{name, weight (1), <options>}`` each.

        Raises:
            UsageError: Unknown objective.
            ConfigError: Unknown option, a weight that is none, or a loss of the user's own that breaks the contract.
        """
        terms = []
        for spec in specs:
            name, options = plugin(spec, where=WHERE)
            weight = schedule_of(options.pop("weight", 1.0), name)
            terms.append(Term(name, weight, _open(spec, name, options)))
        for done, when in ((0.0, "at the first update"), (1.0, "at the last update")):
            if not any(term.weight.at(done) for term in terms):
                raise ConfigError(f"all weights are zero {when}", where=WHERE, fix="let one be above zero throughout")
        on_pairs = [term for term in terms if isinstance(term.objective, PAIRS)]
        if len(on_pairs) > 1 or len(on_pairs) == len(terms):
            name = on_pairs[-1].name
            what = (
                f"{name} is given twice" if len({term.name for term in on_pairs}) < len(on_pairs) else f"{name} is one of several"
            )
            raise ConfigError(
                f"{what}, and one loss on pairs is the most" if len(on_pairs) > 1 else f"{name} alone teaches no answers",
                where=WHERE,
                fix=f"give one {name} beside cross_entropy",
            )
        return cls(tuple(terms))

    @property
    def on_tokens(self) -> tuple[Term, ...]:
        """The terms about tokens."""
        return tuple(term for term in self.terms if not isinstance(term.objective, (Matching, *PAIRS)))

    @property
    def on_pairs(self) -> tuple[Schedule, Contrastive | OwnPairLoss] | None:
        """Weight and loss of the term about pairs of texts, if there is one."""
        found = [(term.weight, term.objective) for term in self.terms if isinstance(term.objective, Contrastive | OwnPairLoss)]
        return found[0] if found else None

    @property
    def on_layers(self) -> tuple[Term, ...]:
        """The terms about layers."""
        return tuple(term for term in self.terms if isinstance(term.objective, Matching))

    @property
    def needs_signal(self) -> bool:
        """Whether any term does."""
        return any(term.objective.needs_signal for term in self.terms)

    @property
    def across_tokenizers(self) -> bool:
        """Whether all terms can do with a teacher whose tokens are others than the student's."""
        return all(term.may("across_tokenizers") for term in self.terms)

    def check(self, signal: Signal | None) -> None:
        """Try every term on a teacher's distribution, where there is one, before the training starts.

        Raises:
            ConfigError: A term is not defined for signals of this form.
        """
        if signal is None:
            return
        for term in self.terms:
            if isinstance(signal, SampledTensors) and not term.may("takes_samples"):
                raise not_for_samples(term.name)
        vocabulary = int(signal.ids.max()) + 2
        answers = Answers(torch.zeros(signal.ids.shape[0], vocabulary), torch.zeros(signal.ids.shape[0], dtype=torch.int64), signal)
        self(answers)
        self(answers, done=1.0)

    def __call__(self, answers: Answers, *, done: float = 0.0) -> torch.Tensor:
        """The weighted loss on tokens at each position, float32 ``[N]``.

        Args:
            answers: What the objectives see.
            done: Share of the updates that are done, for weights that change.
        """
        weighted = [(term.weight.at(done), term.objective) for term in self.on_tokens]
        losses = [weight * objective(answers) for weight, objective in weighted if weight]
        return torch.stack(losses).sum(0) if losses else 0 * answers.logits[:, 0]


def _open(spec: Mapping[str, Any], name: str, options: dict[str, Any]) -> Any:
    if own_file(spec) is not None:
        return open_own(spec)
    objective: Any = build(OBJECTIVES.get(name), options, where=f"objective {name!r}")
    return objective
