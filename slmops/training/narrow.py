"""The last layer at answer positions alone: what lies behind its attention is a matter of each position by itself.

Of all other positions the last layer needs keys and values, nothing more: no output projection, no feed-forward network, no final
norm. That is nine tenths of the last layer where answers are short, and changes no number.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class LastLayer:
    """The parts of a decoder's last layer between which positions are dropped.

    Args:
        layer: A layer of the form ``x + attention(norm(x))``, then position by position.
        norm: Its norm before the attention.
        output: The linear layer at the attention's end.
    """

    layer: Any
    norm: Any
    output: Any

    @classmethod
    def of(cls, body: Any) -> LastLayer | None:
        """That of a model's body; ``None`` where it has other parts. Whether the form is right, the caller has to try."""
        layers = getattr(body, "layers", None)
        if not isinstance(layers, torch.nn.ModuleList) or not len(layers):
            return None
        layer: Any = layers[-1]
        norm = getattr(layer, "input_layernorm", None)
        output = getattr(getattr(layer, "self_attn", None), "o_proj", None)
        return cls(layer, norm, output) if norm is not None and output is not None else None

    @contextmanager
    def only(self, columns: torch.Tensor) -> Iterator[None]:
        """While it lasts, hidden states behind the last layer are those at some columns, int64 ``[K]``: ``[B, K, H]``."""
        whole: list[torch.Tensor] = []

        def enter(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
            whole[:] = [given[0]]
            return (given[0].index_select(1, columns), *given[1:])

        def read_all(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return (whole.pop(), *given[1:])

        def leave(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return (given[0].index_select(1, columns), *given[1:])

        with ExitStack() as stack:
            for module, hook in ((self.layer, enter), (self.norm, read_all), (self.output, leave)):
                stack.callback(module.register_forward_pre_hook(hook).remove)
            yield
