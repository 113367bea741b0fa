"""From hidden states to losses: answer positions alone reach the vocabulary, and only a chunk of them at a time.

The logits of ``N`` answer tokens over ``V`` words are by far the largest tensor of a small model's training. Here they are
made for a chunk of positions, become losses and gradients, and are gone before the next chunk's are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from slmops.data.templates import IGNORED, Encoded
from slmops.models.classifier import head_of
from slmops.progress import say
from slmops.signals.tensors import from_batch
from slmops.training.batches import collate
from slmops.training.machine import evaluated
from slmops.training.narrow import LastLayer
from slmops.training.objectives.base import Answers
from slmops.training.tree import Tree
from slmops.training.tree_attention import TreeAttention

Losses = Callable[[Answers], torch.Tensor]
"""What makes one loss a position out of answers; a position's loss depends on that position alone."""

_CHUNK_VALUES = 1 << 25
"""Logits of a chunk: 128 MiB in float32. With fewer, adding up the chunks' gradients of the output layer takes its time."""

_FEW = 128
"""Positions up to which products in float32 take less time than weights and gradients of bfloat16, on two cores with AMX."""

_SCALED_BY = {"logit_scale": 1.0, "lm_head_multiplier": 1.0, "logits_scaling": -1.0}
"""Values of a model's configuration that its logits are multiplied by, and the power they are raised to."""


@dataclass(frozen=True)
class Projection:
    """What a causal language model consists of, seen from its end.

    Args:
        body: Token ids to hidden states.
        head: Hidden states to logits.
        scale: Factor of the logits.
        cap: Bound that a hyperbolic tangent keeps them in (Gemma 2), or ``None``.
        last: The body's last layer, where it can leave out the positions that predict nothing.
        tree: The body's attention, where it can read what rows begin with alike once; on a processor it does.
    """

    body: Any
    head: Any
    scale: float = 1.0
    cap: float | None = None
    last: LastLayer | None = None
    tree: TreeAttention | None = None

    @classmethod
    def of(cls, model: Any) -> Projection | None:
        """That of a model of transformers, also within an adapter of PEFT; ``None`` where the parts do not make its logits.

        It is tried on a few tokens, so a family that does something else to its logits is noticed, and said.
        """
        inner = _inner(model)
        body, head, classifies = getattr(inner, "base_model", None), _head_of(inner), head_of(inner) is not None
        if body is None or body is inner or head is None:
            return None
        settings = inner.config.get_text_config() if hasattr(inner.config, "get_text_config") else inner.config
        scale = 1.0
        for name, power in _SCALED_BY.items():
            value = getattr(settings, name, None)
            scale *= value**power if isinstance(value, int | float) and value else 1.0
        found = cls(body, head, scale, getattr(settings, "final_logit_softcapping", None))
        if classifies:  # the model itself gives logits of its last token alone
            found = cls(body, head)
        if classifies or found._makes_the_logits_of(model):
            narrow = replace(found, last=LastLayer.of(body))
            found = narrow if narrow.last and narrow._has_the_states_of(found) else found
            shared = replace(found, tree=TreeAttention.of(model, body))
            return shared if shared.tree and shared._has_the_states_of(found) else found
        say("  this model's logits are more than its output layer: they are made all at once, not in chunks")
        return None

    def of_twin(self, model: Any) -> Projection:
        """The same parts of another model of the same form, untried."""
        inner = _inner(model)
        body = inner.base_model
        last, tree = LastLayer.of(body) if self.last else None, TreeAttention(body) if self.tree else None
        return replace(self, body=body, head=_head_of(inner), last=last, tree=tree)

    @property
    def whole(self) -> Projection:
        """The same with layers that leave nothing out, for those who look at them."""
        return replace(self, last=None, tree=None)

    @property
    def chunk_positions(self) -> int:
        """Answer positions whose logits are made at once."""
        return max(1, _CHUNK_VALUES // int(self.head.weight.shape[0]))

    def hidden(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Hidden states at the answer positions of a batch of :func:`slmops.training.batches.collate`, ``[N, H]``."""
        if self.tree is None or batch["input_ids"].device.type != "cpu":
            read = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
            return self._states(read, batch["logits_to_keep"]).flatten(0, 1).index_select(0, batch["answer_index"])
        tree = Tree.of(batch)
        with self.tree.on(tree) as read:
            return self._states(read, tree.answers)[0].index_select(0, tree.answer_index)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits in float32, ``[..., V]``."""
        with self._fast(hidden):
            logits: torch.Tensor = self.head(hidden).float()
        if self.scale != 1:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def _fast(self, hidden: torch.Tensor) -> AbstractContextManager[object]:
        """Autocast off where few positions meet a large vocabulary: to convert the weights would take longer than the products."""
        few = hidden.device.type == "cpu" and hidden.dtype is torch.float32 and hidden.numel() <= _FEW * hidden.shape[-1]
        return torch.autocast("cpu", enabled=False) if few and type(self.head) is torch.nn.Linear else nullcontext()

    def _states(self, read: Mapping[str, Any], columns: torch.Tensor) -> torch.Tensor:
        """Hidden states at some columns of what the body reads, ``[B, K, H]``."""
        with self.last.only(columns) if self.last else nullcontext():
            states: torch.Tensor = self.body(**read, use_cache=False)[0]
        return states if self.last else states.index_select(1, columns)

    def _has_the_states_of(self, other: Projection) -> bool:
        """Whether what is left out changes nothing, tried on a few rows that begin alike."""
        ids = [token % self.head.weight.shape[0] for token in range(9)]
        rows = [Encoded(tuple(ids[:end]), tuple([IGNORED] * start + ids[start:end])) for start, end in ((6, 9), (2, 4))]
        rows.append(Encoded(tuple(ids[:3] + ids[5:]), tuple([IGNORED] * 5 + ids[7:])))
        batch = {name: tensor.to(self.head.weight.device) for name, tensor in collate(rows, 0).items()}
        with evaluated(self.body), torch.no_grad():
            try:
                own = self.hidden(batch)
            except (RuntimeError, IndexError, TypeError):  # a layer of another form
                return False
            others = other.hidden(batch)
        return own.shape == others.shape and bool(torch.allclose(own, others, rtol=1e-4, atol=1e-4))

    def _makes_the_logits_of(self, model: Any) -> bool:
        tokens = torch.arange(8, device=self.head.weight.device).unsqueeze(0) % self.head.weight.shape[0]
        with evaluated(model), torch.no_grad():
            own = model(input_ids=tokens, use_cache=False).logits.float()
            parts = self.logits(self.body(input_ids=tokens, use_cache=False)[0])
        return own.shape == parts.shape and bool(torch.allclose(own, parts, rtol=1e-3, atol=1e-3 * float(own.abs().max())))


def summed(
    projection: Projection, batch: Mapping[str, torch.Tensor], losses: Losses, *, positions: int | None = None
) -> torch.Tensor:
    """The sum of the losses of a batch's answer tokens, with its gradient.

    What fits into one chunk is differentiated as usual. Of more, each chunk's gradient is computed together with its losses,
    so that nothing of it is kept and nothing computed twice.

    Args:
        projection: Of the model.
        batch: Of :func:`slmops.training.batches.collate`.
        losses: What is summed.
        positions: Answer tokens of a chunk; absent: as many as 128 MiB of logits hold.
    """
    hidden = projection.hidden(batch)
    answers = _answers_in(projection, batch, losses)
    size = positions or projection.chunk_positions
    if len(hidden) <= size:
        return answers(hidden, slice(None)).sum()
    parameters = [parameter for parameter in projection.head.parameters() if parameter.requires_grad]
    total: torch.Tensor = _SumOfChunks.apply(hidden, answers, size, *parameters)
    return total


def each(
    projection: Projection, batch: Mapping[str, torch.Tensor], losses: Losses, *, positions: int | None = None
) -> torch.Tensor:
    """The loss at each answer token of a batch, ``[N]``, without gradient."""
    with torch.no_grad():
        hidden = projection.hidden(batch)
        answers = _answers_in(projection, batch, losses)
        size = positions or projection.chunk_positions
        return torch.cat([answers(hidden[part], part) for part in _chunks(len(hidden), size)])


_InChunk = Callable[[torch.Tensor, slice], torch.Tensor]


def _answers_in(projection: Projection, batch: Mapping[str, torch.Tensor], losses: Losses) -> _InChunk:
    """Losses of hidden states that stand at a slice of the answer positions."""
    labels, signal = batch["shift_labels"], from_batch(batch)

    def answered(hidden: torch.Tensor, part: slice) -> torch.Tensor:
        logits = projection.logits(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            return losses(Answers(logits, labels[part], None if signal is None else signal.at(part)))

    return answered


class _SumOfChunks(torch.autograd.Function):
    """The sum of all chunks' losses; the gradients are those of the forward pass, times what comes from above."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, answered: _InChunk, size: int, *parameters: torch.Tensor) -> torch.Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        of_hidden = torch.empty_like(hidden)
        of_parameters: list[torch.Tensor] = []
        for part in _chunks(len(hidden), size):
            with torch.enable_grad():
                own = hidden[part].detach().requires_grad_(True)
                loss = answered(own, part).sum()
            of_hidden[part], *more = torch.autograd.grad(loss, (own, *parameters))
            of_parameters = [so_far.add_(one) for so_far, one in zip(of_parameters, more, strict=True)] if of_parameters else more
            total += loss.detach()
        ctx.save_for_backward(of_hidden, *of_parameters)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (above,) = gradients
        of_hidden, *of_parameters = (gradient.mul_(above) for gradient in ctx.saved_tensors)
        return of_hidden, None, None, *of_parameters


def _chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _inner(model: Any) -> Any:
    """What an adapter is around."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _head_of(model: Any) -> Any:
    head = head_of(model)
    if head is None and hasattr(model, "get_output_embeddings"):
        head = model.get_output_embeddings()
    return head if isinstance(getattr(head, "weight", None), torch.Tensor) else None
