"""Attention layers with rotary positions (Su et al. 2021) over a tree of tokens, in bfloat16 and few passes.

One pass rotates, takes nodes to the rows' places and changes the number type; another is the softmax with its mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from slmops.training.native import Kernels, Turn
from slmops.training.tree_attention import Heads, TreeBatch

_LOOKING = "slmops_look"
_LAYERS = {"q_proj", "k_proj", "v_proj", "o_proj"}


@dataclass(frozen=True)
class Rotary:
    """The forward pass of such a layer.

    Args:
        query: Layer that makes queries.
        key: Layer that makes keys.
        value: Layer that makes values.
        output: Layer behind.
        width: Of a head.
        scale: Of scores.
        window: Tokens that each sees, itself included; ``None``: all before it.
        original: What computes everything that is no tree in bfloat16.
        kernels: What computes that.
    """

    query: Any
    key: Any
    value: Any
    output: Any
    width: int
    scale: float
    window: int | None
    original: Any
    kernels: Kernels

    @classmethod
    def of(cls, module: Any, kernels: Kernels) -> Rotary | None:
        """That of a module which is one; ``None`` for all others: what it hands on to its attention function is looked at."""
        width, hidden = getattr(module, "head_dim", None), getattr(getattr(module, "q_proj", None), "in_features", None)
        own = {name for name, _ in module.named_children()} | {name for name, _ in module.named_parameters(recurse=False)}
        if own != _LAYERS or not width or width % 2 or hidden is None:
            return None
        numbers = torch.Generator().manual_seed(0)
        given, cos, sin = (torch.randn(1, 3, size, generator=numbers) for size in (hidden, width, width))
        seen = _seen_of(module, given, (cos, sin))
        if seen is None or seen.softcap is not None:
            return None
        scale = width**-0.5 if seen.scaling is None else seen.scaling
        found = cls(module.q_proj, module.k_proj, module.v_proj, module.o_proj, width, scale, seen.window, module.forward, kernels)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            q, k, v = (layer(given).view(1, 3, -1, width).transpose(1, 2) for layer in (found.query, found.key, found.value))
        alike = ((_rotated(q, cos, sin), seen.query), (_rotated(k, cos, sin), seen.key), (v, seen.value))
        return found if all(_same(a, b) for a, b in alike) else None

    def __call__(self, hidden_states: torch.Tensor, position_embeddings: Any = None, **more: Any) -> Any:
        """As the module's own forward pass."""
        tree, angles = more.get("tree"), (*hidden_states.shape[:2], self.width)
        if isinstance(tree, TreeBatch) and all(one.dtype is torch.float32 and one.shape == angles for one in position_embeddings):
            q, k, v = (layer(hidden_states) for layer in (self.query, self.key, self.value))
            if q.dtype is k.dtype is v.dtype is torch.bfloat16:
                cos, sin = (one[0].contiguous() for one in position_embeddings)
                heads = tree.heads(q.shape[-1] // self.width, k.shape[-1] // self.width)
                return self.output(_Attention.apply(q, k, v, (cos, sin), heads, self)), None
        return self.original(hidden_states, position_embeddings=position_embeddings, **more)


class _Attention(torch.autograd.Function):
    """Queries ``[1, U, H * D]``, keys and values ``[1, U, G * D]`` to outputs ``[1, U, H * D]``."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, turn: Turn, heads: Heads, layer: Rotary
    ) -> torch.Tensor:
        do, width = layer.kernels, layer.width
        q, k, v = (vectors.reshape(-1, width).contiguous() for vectors in (query, key, value))
        of_heads, shared = query.shape[-1] // width, key.shape[-1] // width
        rows = do.spread(q, heads.of_queries, turn, of_heads).view(heads.groups, heads.queries, width)
        keys = do.spread(k, heads.of_keys, turn, shared).view(heads.groups, heads.keys, width)
        values = do.spread(v, heads.of_keys, None, shared).view(heads.groups, heads.keys, width)
        weights = do.softmax_(torch.bmm(rows, keys.transpose(1, 2)), layer.scale, layer.window)
        found = torch.bmm(weights, values)
        ctx.save_for_backward(rows, keys, values, weights)
        ctx.turn, ctx.heads, ctx.layer, ctx.counts = turn, heads, layer, (len(q), len(k), of_heads, shared)
        return do.collect(found.view(-1, width), heads.owned_queries, None, of_heads, len(q)).view(query.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (rows, keys, values, weights), heads, layer = ctx.saved_tensors, ctx.heads, ctx.layer
        do, width, (count, count_shared, of_heads, shared) = layer.kernels, layer.width, ctx.counts
        by_head = gradients[0].reshape(-1, width).contiguous()
        above = do.settle(by_head, heads.owned_queries, rows.numel() // width).view(rows.shape)
        of_values = torch.bmm(weights.transpose(1, 2), above)
        of_scores = do.softmax_back_(weights, torch.bmm(above, values.transpose(1, 2)), layer.scale)
        of_keys = torch.bmm(of_scores.transpose(1, 2), rows)
        of_rows = torch.bmm(of_scores, keys)
        of_query = do.collect(of_rows.view(-1, width), heads.owned_queries, ctx.turn, of_heads, count)
        of_key = do.gather(of_keys.view(-1, width), heads.of_keys, ctx.turn, shared, count_shared)
        of_value = do.gather(of_values.view(-1, width), heads.of_keys, None, shared, count_shared)
        shape = gradients[0].shape[:-1]
        return of_query.view(*shape, -1), of_key.view(*shape, -1), of_value.view(*shape, -1), None, None, None


@dataclass(frozen=True)
class _Seen:
    """What an attention layer hands on to its attention function, as :func:`slmops.training.tree_attention.attend` takes it."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    scaling: float | None
    softcap: float | None
    window: int | None


def _seen_of(layer: Any, states: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]) -> _Seen | None:
    """What a layer makes of states ``[1, T, H]`` in bfloat16; ``None`` where it is no such layer, or hands nothing on."""
    from transformers import AttentionInterface

    seen: list[_Seen] = []
    config = getattr(layer, "config", None)
    if config is None:
        return None
    AttentionInterface.register(_LOOKING, _look)
    before, config._attn_implementation = config._attn_implementation, _LOOKING
    try:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            layer(states, position_embeddings=angles, attention_mask=None, seen=seen)
    except (RuntimeError, TypeError, ValueError, AttributeError):  # a layer of another form
        return None
    finally:
        config._attn_implementation = before
    return seen[0] if seen else None


def _look(
    _: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *__: Any,
    seen: list[_Seen],
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **___: Any,
) -> tuple[torch.Tensor, None]:
    seen.append(_Seen(query, key, value, scaling, softcap, sliding_window))
    return query.transpose(1, 2), None


def _rotated(vectors: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = vectors.chunk(2, dim=-1)
    return vectors * cos.unsqueeze(1) + torch.cat((-second, first), dim=-1) * sin.unsqueeze(1)


def _same(own: torch.Tensor, other: torch.Tensor) -> bool:
    return own.shape == other.shape and own.dtype is other.dtype and torch.allclose(own, other, rtol=1e-4, atol=1e-4)
