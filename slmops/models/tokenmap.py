"""Which token of one tokenizer is which of another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class TokenMap:
    """Which token of a smaller vocabulary is which of a larger one.

    Args:
        new_ids: int64, by the larger vocabulary's id: the id in the smaller one, or -1.
        larger: The tokenizer of the larger one.
        smaller: The other.
    """

    new_ids: np.ndarray
    larger: PreTrainedTokenizerBase
    smaller: PreTrainedTokenizerBase

    @classmethod
    def between(cls, larger: PreTrainedTokenizerBase, smaller: PreTrainedTokenizerBase) -> TokenMap:
        """The map by the tokens' texts."""
        before, after = larger.get_vocab(), smaller.get_vocab()
        new_ids = np.full(max(before.values()) + 1, -1, np.int64)
        for token, number in before.items():
            new_ids[number] = after.get(token, -1)
        return cls(new_ids, larger, smaller)

    @cached_property
    def same(self) -> bool:
        """Whether both give each token the same id."""
        return bool((self.new_ids == np.arange(len(self.new_ids))).all()) and len(self.smaller) == len(self.larger)

    @cached_property
    def old_ids(self) -> np.ndarray:
        """The other way round, int64, by the smaller vocabulary's id: the id in the larger one, or -1."""
        kept = np.flatnonzero(self.new_ids >= 0)
        old_ids = np.full(int(self.new_ids.max()) + 1, -1, np.int64)
        old_ids[self.new_ids[kept]] = kept
        return old_ids

    @property
    def part(self) -> bool:
        """Whether the smaller vocabulary has no tokens of its own but single bytes that the larger one lacks."""
        known = self.larger.get_vocab()
        return all(token in known or len(token) == 1 or _BYTE.fullmatch(token) for token in self.smaller.get_vocab())

    def moved(self, ids: Sequence[int]) -> list[int]:
        """Ids of the larger vocabulary in the smaller one; -1 for tokens it lacks."""
        return [int(number) for number in self.new_ids[list(ids)]]

    def share_alike(self, texts: Sequence[str]) -> float:
        """Share of texts that both split into the same tokens; 1 without texts."""
        alike = (
            self.moved(self.larger(text, add_special_tokens=False)["input_ids"])
            == self.smaller(text, add_special_tokens=False)["input_ids"]
            for text in texts
        )
        return sum(alike) / len(texts) if texts else 1.0
