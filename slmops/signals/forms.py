"""The forms in which a teacher's distribution is kept, as a recipe chooses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from slmops.sections import SignalsSection
from slmops.signals.distribution import Distribution
from slmops.signals.internals import Internals
from slmops.signals.sampled import Sampled, offsets_of
from slmops.signals.topk import TopK

if TYPE_CHECKING:
    import torch

    from slmops.data.templates import Encoded

KINDS: Mapping[str, type[Distribution]] = {"topk": TopK, "sampled": Sampled, "internals": Internals}
"""The arrays of each form, by the name that recipes and stores have for it; what is kept of layers is no form of recipes."""


class Form(Protocol):
    """How dense logits become what is kept."""

    @property
    def fingerprint(self) -> str:
        """Changes when the kept arrays would."""

    def reduce(self, logits: torch.Tensor, rows: Sequence[Encoded]) -> Distribution:
        """Reduce the logits ``[N, V]`` at all answer tokens of rows, one row after the other."""


@dataclass(frozen=True)
class TopKForm:
    """The ``k`` most likely tokens, and the rest as one mass."""

    k: int

    @property
    def fingerprint(self) -> str:
        """Names ``k`` and the rounding."""
        return f"topk {self.k} float16"

    def reduce(self, logits: torch.Tensor, rows: Sequence[Encoded]) -> TopK:
        """Reduce the logits ``[N, V]`` at all answer tokens of rows."""
        return TopK.from_logits(logits, self.k)


@dataclass(frozen=True)
class SampledForm:
    """Tokens from ``samples`` spaced draws; the same for a row in whatever batch and run."""

    samples: int

    @property
    def fingerprint(self) -> str:
        """Names the draws and how they are made."""
        return f"sampled {self.samples} spaced"

    def reduce(self, logits: torch.Tensor, rows: Sequence[Encoded]) -> Sampled:
        """Reduce the logits ``[N, V]`` at all answer tokens of rows."""
        offsets = np.concatenate([offsets_of(row.input_ids, len(row.answer_ids)) for row in rows])
        return Sampled.from_logits(logits, self.samples, offsets)


def form_of(section: SignalsSection) -> Form:
    """The form that a recipe chose."""
    return SampledForm(section.samples) if section.form == "sampled" else TopKForm(section.k)


def kind_of(signal: Distribution) -> str:
    """The name of a distribution's form."""
    return next(name for name, kind in KINDS.items() if isinstance(signal, kind))
