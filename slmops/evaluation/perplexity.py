"""Perplexity: how well a model foresees texts, per token and, so that tokenizers compare, per byte."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from slmops.data.templates import IGNORED, Encoded
from slmops.errors import ConfigError
from slmops.evaluation.outputs import Loss, Outputs
from slmops.evaluation.tally import Tally
from slmops.progress import Advance

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from slmops.data.rows import Row
    from slmops.data.templates import Template

Kind = Literal["perplexity", "byte_perplexity", "bits_per_byte"]


def perplexity_tally(outputs: Outputs, kind: Kind) -> Tally:
    """Perplexity of all tokens or bytes together; a row has its nats, tokens and bytes.

    Raises:
        ConfigError: The losses are not there.
    """
    if outputs.losses is None:
        raise ConfigError(
            f"{kind} needs the likelihood of the reference texts", fix="measure it with the torch runtime, or leave it out"
        )
    return Tally(np.asarray(outputs.losses, dtype=np.float64).reshape(len(outputs.rows), 3), KINDS[kind])


def text_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    context: int,
    stride: int | None = None,
    most_tokens: int | None = None,
    advance: Advance = lambda _: None,
) -> list[Loss]:
    """The losses of a text's tokens, one entry a window.

    A start token (the tokenizer's, else its end token) goes before the text, so that its first token counts too.

    Args:
        model: A causal language model in evaluation mode.
        tokenizer: Its own.
        text: Of any length.
        context: Tokens that the model sees at once, at most.
        stride: Tokens that a window adds to the one before; only these count in it. Fewer give every token more to go by, and
            take longer. Left out: half the context.
        most_tokens: The first ones alone; left out: all.
        advance: Told of tokens that are done.

    Raises:
        ConfigError: The stride is not between 1 and ``context - 1``.
        MissingExtraError: torch is not installed.
    """
    from slmops.evaluation.likelihood import losses_of

    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, ends = list(encoded["input_ids"])[:most_tokens], [end for _, end in encoded["offset_mapping"]][:most_tokens]
    found: list[Loss] = []
    done = character = 0
    for window in windows([int(start)], ids, context, _step(context, stride)):
        (loss,) = losses_of(model, [window], context)
        done += len(window.answer_ids)
        after = max(character, ends[done - 1])  # several tokens of one character have the same end
        found.append((loss, len(window.answer_ids), len(text[character:after].encode())))
        character = after
        advance(len(window.answer_ids))
    return found


def reference_losses(
    model: PreTrainedModel,
    template: Template,
    rows: Sequence[Row],
    *,
    context: int,
    stride: int | None = None,
    batch_tokens: int = 2048,
) -> list[Loss]:
    """The loss of the tokens of each row's answer behind its prompt; prompt and end token do not count.

    Args:
        model: A causal language model in evaluation mode.
        template: With its tokenizer; renders the rows.
        rows: With answers.
        context: Tokens that the model sees at once, at most.
        stride: Tokens that a window adds to the one before, where a row does not fit. Left out: half the context.
        batch_tokens: Tokens of a batch, padding included.

    Raises:
        ConfigError: The stride is not between 1 and ``context - 1``.
        DataError: A row has no answer.
        MissingExtraError: torch is not installed.
    """
    from slmops.evaluation.likelihood import losses_of

    encoded = [template.encode(row) for row in rows]
    step = _step(context, stride)
    cut = [windows(one.input_ids[: one.prompt_length], one.answer_ids[:-1], context, step) for one in encoded]
    found = iter(losses_of(model, [window for own in cut for window in own], batch_tokens))
    texts = [template.chat.answer_prefix + str(row.answer) for row in rows]
    return [
        (math.fsum(next(found) for _ in own), len(one.answer_ids) - 1, len(text.encode()))
        for own, one, text in zip(cut, encoded, texts, strict=True)
    ]


def windows(before: Sequence[int], counted: Sequence[int], context: int, stride: int) -> list[Encoded]:
    """Stretches of at most ``context`` tokens, in which each of the ``counted`` tokens is labelled once.

    The first takes as many as fit, each further one ``stride`` more. A counted token sees at least ``context - stride`` tokens
    before it, or all there are.
    """
    ids = [*before, *counted]
    found: list[Encoded] = []
    start = len(before)
    while start < len(ids):
        end = min(len(ids), max(context, start + stride))
        first = max(0, end - context)
        found.append(Encoded(tuple(ids[first:end]), (IGNORED,) * (start - first) + tuple(ids[start:end])))
        start = end
    return found


def _step(context: int, stride: int | None) -> int:
    step = max(1, context // 2) if stride is None else stride
    if not 1 <= step < context:
        raise ConfigError(f"{step} is no stride for a context of {context} tokens", where="stride", fix=f"1 to {context - 1}")
    return step


def _per(column: int, of: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    def measure(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return of(sums[..., 0] / sums[..., column])

    return measure


KINDS: dict[Kind, Callable[[np.ndarray], np.ndarray]] = {
    "perplexity": _per(1, np.exp),
    "byte_perplexity": _per(2, np.exp),
    "bits_per_byte": _per(2, lambda nats: nats / math.log(2)),
}
