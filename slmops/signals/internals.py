"""What is kept of a teacher's layers: hidden states at answer positions, and what enters the attention."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from slmops.signals.distribution import Sized

Part = Literal["hidden", "attention"]
"""What of a layer a loss is about."""


@dataclass(frozen=True)
class Layers:
    """Layers of a model, from 0, in increasing order.

    Args:
        hidden: Those whose hidden states are kept, which is what a layer hands to the next.
        attention: Those of which the queries, keys and values are.
    """

    hidden: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()

    @classmethod
    def of(cls, wanted: Iterable[tuple[Part, int]]) -> Layers:
        """All that are wanted, each once."""
        found = set(wanted)
        hidden, attention = (tuple(sorted(number for part, number in found if part == name)) for name in ("hidden", "attention"))
        return cls(hidden, attention)

    @classmethod
    def read(cls, facts: Any) -> Layers:
        """From :meth:`as_dict`."""
        return cls(tuple(facts["hidden"]), tuple(facts["attention"]))

    def as_dict(self) -> dict[str, list[int]]:
        """For JSON."""
        return {"hidden": list(self.hidden), "attention": list(self.attention)}

    @property
    def fingerprint(self) -> str:
        """Names the layers and the rounding."""
        return " ".join(["hidden", *map(str, self.hidden), "attention", *map(str, self.attention), "float16"])


@dataclass(frozen=True)
class Internals(Sized):
    """A teacher's hidden states at ``N`` answer positions, and queries, keys and values at the ``M`` tokens read by then.

    A hidden state at an answer position is the one that predicts the answer's token there. Queries and keys have their
    rotation, and queries the factor with which ``softmax(q k / √d)`` is the attention; so relations of any number of heads
    follow, and the maps. Keys and values are not repeated for the heads that share them.

    Args:
        sizes: uint32 ``[N]``, tokens read since the position before; those of a row are all but its last one.
        hidden: float16 ``[N, L, H]``, of ``L`` layers, each divided by its scale.
        scales: float32 ``[N, L]``, root mean square of a hidden state, as float16 is too narrow for those of some models.
        ids: uint32 ``[M]``, the tokens.
        query: float16 ``[M, A, h, d]``, of ``A`` layers.
        key: float16 ``[M, A, g, d]``.
        value: float16 ``[M, A, g, d]``.
    """

    by_position: ClassVar[tuple[str, ...]] = ("sizes", "hidden", "scales")
    by_token: ClassVar[tuple[str, ...]] = ("ids", "query", "key", "value")

    sizes: np.ndarray
    hidden: np.ndarray
    scales: np.ndarray
    ids: np.ndarray
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class RowInternals:
    """What is kept for a row, and where it is about the student's tokens.

    Args:
        kept: Of the teacher.
        answer: Whether the answer has the student's tokens, so that hidden states can be compared.
        whole: Whether the prompt has, too, so that what is about earlier tokens can be.
    """

    kept: Internals
    answer: bool
    whole: bool
