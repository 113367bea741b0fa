"""What happens inside a model while it reads: hidden states, and what enters the attention of a layer, with their gradients."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from slmops.errors import ModelError
from slmops.models.importance import decoder_layers
from slmops.signals.internals import Layers

_FIX = "take losses on tokens alone, or a model such as Llama, SmolLM2, Qwen 2 or 3, Gemma 3, Phi-3 or Phi-4"
_PREFIX = "watched_"


@dataclass(frozen=True)
class Attended:
    """What enters the attention of a layer, of ``B`` rows of ``T`` tokens; ``h`` heads may share ``g`` keys and values.

    Args:
        queries: ``[B, T, h, d]``, after the rotation, and so scaled that ``softmax(q k / √d)`` is the attention.
        keys: ``[B, T, g, d]``, after the rotation.
        values: ``[B, T, g, d]``.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True)
class Seen:
    """Of one forward pass, by layer: hidden states ``[B, T, H]``, which a layer hands to the next, and what was attended to."""

    hidden: dict[int, torch.Tensor] = field(default_factory=dict)
    attention: dict[int, Attended] = field(default_factory=dict)


class Watcher:
    """Looks at chosen layers of a causal language model of transformers, also within an adapter of PEFT.

    Attention is seen where every such model calls its kernel, so that it does not matter how the model makes queries, keys and
    values; the kernel and its result stay the same.
    """

    def __init__(self, model: Any, layers: Layers) -> None:
        """Find the layers.

        Raises:
            ModelError: The model's layers are not in one list, or there are fewer.
        """
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        if not hasattr(inner, "config") or not hasattr(inner.config, "get_text_config"):
            raise ModelError("the layers of this model cannot be looked at", fix=_FIX)
        self._inner, self._wanted = inner, layers
        blocks = decoder_layers(inner)
        most = max((*layers.hidden, *layers.attention), default=0)
        if most >= len(blocks):
            raise ModelError(f"there is no layer {most}: the model has {len(blocks)}, from 0", fix="choose other layers")
        self._blocks = {number: blocks[number] for number in layers.hidden}

    @contextmanager
    def watching(self) -> Iterator[Seen]:
        """What is filled during the forward pass within.

        Raises:
            ModelError: Nothing was seen of the attention of a layer, or it is more than a softmax of products.
        """
        seen = Seen()
        handles = [block.register_forward_hook(_keeping(seen, number)) for number, block in self._blocks.items()]
        config = self._inner.config
        usual = config._attn_implementation
        sink = _SINK.set((seen, frozenset(self._wanted.attention)))
        if self._wanted.attention:
            config._attn_implementation = _watched(usual)
        try:
            yield seen
        finally:
            config._attn_implementation = usual
            _SINK.reset(sink)
            for handle in handles:
                handle.remove()
        missing = [number for number in self._wanted.attention if number not in seen.attention]
        if missing:
            raise ModelError(f"the attention in layer {missing[0]} of a model of type {config.model_type!r} is not seen", fix=_FIX)


_SINK: ContextVar[tuple[Seen, frozenset[int]] | None] = ContextVar("seen", default=None)


def answer_rows(states: torch.Tensor, batch: Any) -> torch.Tensor:
    """Of values ``[B, T, …]`` those at the ``N`` answer positions of a batch of ``training.batches.collate``, ``[N, …]``."""
    return states.index_select(1, batch["logits_to_keep"]).flatten(0, 1).index_select(0, batch["answer_index"])


def _keeping(seen: Seen, number: int) -> Callable[..., None]:
    def hook(_module: Any, _arguments: Any, output: Any) -> None:
        seen.hidden[number] = output[0] if isinstance(output, tuple) else output

    return hook


def _watched(name: str) -> str:
    """The name of a kernel that does the same as another one, and looks at what it is given."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    def attend(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *more: Any, **options: Any) -> Any:
        _note(module, (query, key, value), options)
        home: Any = sys.modules[type(module).__module__]
        kernel = home.ALL_ATTENTION_FUNCTIONS.get_interface(name, home.eager_attention_forward)
        return kernel(module, query, key, value, *more, **options)

    if _PREFIX + name not in AttentionInterface._global_mapping:
        AttentionInterface.register(_PREFIX + name, attend)
        AttentionMaskInterface.register(_PREFIX + name, ALL_MASK_ATTENTION_FUNCTIONS[name])
    return _PREFIX + name


def _note(module: Any, states: Sequence[torch.Tensor], options: dict[str, Any]) -> None:
    sink = _SINK.get()
    number = getattr(module, "layer_idx", None)
    if sink is None or number not in sink[1]:
        return
    if options.get("softcap") is not None or options.get("s_aux") is not None:
        raise ModelError("the attention of this model is more than a softmax of products, which is not supported", fix=_FIX)
    queries, keys, values = (state.transpose(1, 2) for state in states)
    factor = options.get("scaling")
    factor = 1.0 if factor is None else float(factor) * math.sqrt(queries.shape[-1])
    if abs(factor - 1) > 1e-6:
        queries = queries * factor
    sink[0].attention[int(number)] = Attended(queries, keys, values)
