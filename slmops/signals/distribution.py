"""What every stored form of a teacher's distribution, and what is kept of its layers, has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, TypeVar

import numpy as np

D = TypeVar("D", bound="Distribution")
S = TypeVar("S", bound="Sized")


class Distribution(ABC):
    """Arrays about ``N`` answer positions, already shifted and masked: entry ``i`` is about answer token ``i``.

    A form is a frozen dataclass of arrays. It names those with one row a position, and those with a varying number of rows
    a position, its drawn tokens, which lie one position after the other.
    """

    by_position: ClassVar[tuple[str, ...]]
    by_token: ClassVar[tuple[str, ...]] = ()

    def __len__(self) -> int:
        """Positions."""
        return len(getattr(self, self.by_position[0]))

    @property
    def tokens(self) -> int:
        """Rows of the arrays in ``by_token``."""
        return len(getattr(self, self.by_token[0])) if self.by_token else 0

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of all arrays."""
        return (*cls.by_position, *cls.by_token)

    @classmethod
    def concatenate(cls: type[D], parts: Sequence[D]) -> D:
        """Join along the positions."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.names()})

    @abstractmethod
    def __getitem__(self: D, positions: slice) -> D:
        """The part with these positions, which lie together."""

    def cut(self: D, positions: slice, tokens: slice) -> D:
        """The part with these positions and these rows of the arrays in ``by_token``."""
        cuts = dict.fromkeys(self.by_position, positions) | dict.fromkeys(self.by_token, tokens)
        return type(self)(**{name: getattr(self, name)[cut] for name, cut in cuts.items()})


class Sized(Distribution):
    """One whose array ``sizes`` ``[N]`` says how many rows of the arrays in ``by_token`` a position has."""

    sizes: np.ndarray

    def __getitem__(self: S, positions: slice) -> S:
        start, stop, step = positions.indices(len(self))
        assert step == 1, "positions lie together"
        first = int(self.sizes[:start].sum(dtype=np.int64))
        return self.cut(positions, slice(first, first + int(self.sizes[start:stop].sum(dtype=np.int64))))


def id_type(vocabulary: int) -> np.dtype:
    """The smallest type for the token ids of a vocabulary."""
    return np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)
