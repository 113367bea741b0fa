"""Attention of rows that are kept as a tree of tokens, as an attention function of transformers.

Queries, keys and values come a node at a time; they are spread over the rows, so that heads lie together as batched products want
them, and the outputs are collected again, one place a node.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from slmops.training.machine import drops
from slmops.training.tree import Tree

_NAME = "slmops_tree"
_KINDS = {"full_attention", "sliding_attention"}


class Heads:
    """Where the vectors of a tree's nodes go, for so many heads: indices of rows of ``D`` numbers.

    Args:
        tree: Of a batch.
        heads: Of queries, ``H``.
        shared: Of keys and values, ``G``; each serves ``H / G`` heads of queries.
    """

    def __init__(self, tree: Tree, heads: int, shared: int) -> None:
        (rows, width), each = tree.nodes.shape, heads // shared
        self.groups, self.queries, self.keys, self.tree = rows * shared, each * width, width, tree
        # [B, G, H / G, T] and [B, G, T] out of [U, H] and [U, G].
        head = torch.arange(heads).view(1, shared, each, 1)
        self.of_queries = (tree.nodes.view(rows, 1, 1, width) * heads + head).flatten()
        self.of_keys = (tree.nodes.unsqueeze(1) * shared + torch.arange(shared).view(1, shared, 1)).flatten()
        row, column = tree.owners // width, tree.owners % width
        base = row.unsqueeze(1) * heads + torch.arange(heads)
        self.owned_queries = (base * width + column.unsqueeze(1)).flatten()
        self.owned_keys = _places(tree.owners, width, shared)
        self.twin_keys = _places(tree.twins[0], width, shared)

    def mask(self, like: torch.Tensor, window: int | None) -> torch.Tensor:
        """What is added to scores ``[1, queries, keys]``: nothing where a token may look, else minus infinity."""
        behind = torch.arange(self.keys).unsqueeze(1) - torch.arange(self.keys)
        hidden = behind < 0 if window is None else (behind < 0) | (behind >= window)
        mask = torch.zeros(self.keys, self.keys, dtype=like.dtype).masked_fill_(hidden, float("-inf"))
        return mask.repeat(self.queries // self.keys, 1).unsqueeze(0)


def _places(places: torch.Tensor, width: int, shared: int) -> torch.Tensor:
    """Places of a grid ``[B, T]`` in ``[B, G, T]``, for each of the ``G`` heads."""
    row, column = places // width, places % width
    return ((row.unsqueeze(1) * shared + torch.arange(shared)) * width + column.unsqueeze(1)).flatten()


class TreeBatch:
    """A tree on its way through a model's layers, which all need the same indices.

    Args:
        tree: Of a batch.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._heads: dict[tuple[int, int], Heads] = {}
        self._masks: dict[tuple[int, int | None, torch.dtype], torch.Tensor] = {}

    def heads(self, heads: int, shared: int) -> Heads:
        """Where vectors of so many heads go."""
        key = heads, shared
        if key not in self._heads:
            self._heads[key] = Heads(self._tree, heads, shared)
        return self._heads[key]

    def mask(self, heads: Heads, like: torch.Tensor, window: int | None) -> torch.Tensor:
        """That of scores; a window as wide as the rows hides nothing."""
        key = heads.queries, window if window is not None and window < heads.keys else None, like.dtype
        if key not in self._masks:
            self._masks[key] = heads.mask(like, key[1])
        return self._masks[key]


class TreeAttention:
    """Lets a model's layers attend along trees, as long as somebody wants that; other threads may at the same time.

    Args:
        body: Of the model.
    """

    def __init__(self, body: Any) -> None:
        from transformers import AttentionInterface

        AttentionInterface.register(_NAME, attend)
        self._config, self._lock = body.config, threading.Lock()
        self._users, self._before = 0, ""

    @classmethod
    def of(cls, model: Any, body: Any) -> TreeAttention | None:
        """That of a model's body; ``None`` with dropout, and where masks are of another kind. The rest has to be tried.

        With dropout, tokens that rows share would be dropped for all of them or none.
        """
        kinds = set(getattr(body.config, "layer_types", None) or ())
        return cls(body) if kinds <= _KINDS and not drops(model) else None

    @contextmanager
    def on(self, tree: Tree) -> Iterator[dict[str, Any]]:
        """While it lasts, the model reads trees and nothing else; yields what to call its body with."""
        with self._lock:
            if not self._users:
                self._before, self._config._attn_implementation = self._config._attn_implementation, _NAME
            self._users += 1
        try:
            yield {"input_ids": tree.input_ids, "position_ids": tree.position_ids, "tree": TreeBatch(tree)}
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._config._attn_implementation = self._before


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    tree: TreeBatch | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers, without dropout.

    Args:
        module: The attention layer.
        query: ``[1, H, U, D]``.
        key: ``[1, G, U, D]``.
        value: ``[1, G, U, D]``.
        attention_mask: Nothing; what is seen is a matter of the tree.
        tree: The batch.
        scaling: Of scores; absent: one over the root of ``D``.
        softcap: Bound that a hyperbolic tangent keeps scores in (Gemma 2).
        sliding_window: Tokens that each sees, itself included.

    Returns:
        ``[1, U, H, D]``, and nothing in place of the weights.

    Raises:
        RuntimeError: The model hands no tree on to its layers.
    """
    if tree is None or attention_mask is not None:
        raise RuntimeError("a layer was not given the tree of its tokens")
    heads = tree.heads(query.shape[1], key.shape[1])
    q, k, v = (_by_node(vectors) for vectors in (query, key, value))
    rows = _Spread.apply(q, heads, True).view(heads.groups, heads.queries, -1)
    keys, values = (_Spread.apply(vectors, heads, False).view(heads.groups, heads.keys, -1) for vectors in (k, v))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    mask = tree.mask(heads, rows, sliding_window)
    if softcap is None:
        scores = torch.baddbmm(mask, rows, keys.transpose(1, 2), alpha=scale)
    else:
        scores = softcap * torch.tanh(torch.bmm(rows, keys.transpose(1, 2)) * (scale / softcap)) + mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(rows.dtype)
    found = _Collect.apply(torch.bmm(weights, values).flatten(0, 1), heads, q.shape[0])
    return found.view(1, query.shape[2], query.shape[1], -1), None


def _by_node(vectors: torch.Tensor) -> torch.Tensor:
    """``[1, H, U, D]`` as ``[U * H, D]``, which is how it lies in memory as a rule."""
    return vectors[0].transpose(0, 1).reshape(-1, vectors.shape[-1])


class _Spread(torch.autograd.Function):
    """Vectors of nodes to the rows' places; back, those of a node's places are added up.

    Of queries only the owner's output is read, so nothing comes back from a node's other places.
    """

    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor, heads: Heads, are_queries: bool) -> torch.Tensor:
        ctx.heads, ctx.are_queries, ctx.count = heads, are_queries, len(vectors)
        return vectors.index_select(0, heads.of_queries if are_queries else heads.of_keys)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (above,), heads = gradients, ctx.heads
        owned = heads.owned_queries if ctx.are_queries else heads.owned_keys
        found = above.new_zeros(ctx.count, above.shape[-1])
        torch.index_select(above, 0, owned, out=found[: len(owned)])
        if not ctx.are_queries and len(heads.twin_keys):
            shared, which = heads.tree.sharing
            twins = above.index_select(0, heads.twin_keys).view(which.shape[1], -1)
            found.view(-1, twins.shape[1]).index_add_(0, shared, (which.to(twins.dtype) @ twins).to(found.dtype))
        return found, None, None


class _Collect(torch.autograd.Function):
    """Vectors at the owners' places to nodes; what fills up gets any."""

    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor, heads: Heads, count: int) -> torch.Tensor:
        ctx.heads, ctx.shape = heads, vectors.shape
        found = vectors.new_zeros(count, vectors.shape[-1])
        torch.index_select(vectors, 0, heads.owned_queries, out=found[: len(heads.owned_queries)])
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (above,), owned = gradients, ctx.heads.owned_queries
        return above.new_zeros(ctx.shape).index_copy_(0, owned, above[: len(owned)]), None, None
