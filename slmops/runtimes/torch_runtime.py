"""The reference engine: PyTorch and transformers in float32, on the CPU or on a GPU where there is one."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from slmops.models.classifier import is_classifier
from slmops.models.load import context_length, end_token_ids, load_model, load_tokenizer
from slmops.runtimes.base import Generation, RuntimeInfo, Sampling
from slmops.runtimes.classifier_runtime import ClassifierRuntime, open_classifier
from slmops.runtimes.decoding import Answer, check_prompt, run_batch, run_stream

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def open_runtime(path: Path, *, threads: int | None = None) -> TorchRuntime | ClassifierRuntime:
    """Load a model folder in Hugging Face layout, a language model or one with a classification head.

    Args:
        path: The folder.
        threads: CPU threads of this whole process, as PyTorch knows no others.

    Raises:
        ModelError: The folder holds no model that can be loaded.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if is_classifier(path):
        return open_classifier(path)
    model = load_model(path, dtype="float32", attention="sdpa")
    if torch.cuda.is_available():
        model = model.to("cuda")
    return TorchRuntime(model, load_tokenizer(path), context_length(path))


class TorchRuntime:
    """A transformers model; ``model`` and ``tokenizer`` are open to those who need logits.

    Prompts of a batch are padded on the left. Greedy answers equal those of a batch of one except where two tokens are
    as good as equally likely, because matrices of another shape are summed in another order.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: int) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.info = RuntimeInfo("torch", str(model.dtype).removeprefix("torch."), context, batch_dependent=True)
        self._end_ids = end_token_ids(getattr(model.generation_config, "eos_token_id", None), tokenizer)
        known = inspect.signature(model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self._takes_positions = "position_ids" in known

    def tokenize(self, text: str) -> list[int]:
        """Token ids of rendered text, special tokens recognised, nothing added."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Generation]:
        """Answer prompts as one batch, in order.

        Raises:
            DataError: A prompt is empty or does not fit into the context.
        """
        if not prompts:
            return []
        batch = [self._checked(prompt, sampling) for prompt in prompts]
        answers = [Answer(self._decode, self._end_ids, sampling, len(ids)) for ids in batch]
        return run_batch(answers, self._tokens(batch, sampling))

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[str | Generation]:
        """Answer one prompt: pieces of text, then the whole :class:`Generation`.

        Raises:
            DataError: The prompt is empty or does not fit into the context.
        """
        ids = self._checked(prompt, sampling)
        answer = Answer(self._decode, self._end_ids, sampling, len(ids))
        yield from run_stream(answer, self._tokens([ids], sampling))

    def complete(self, batch: Sequence[Sequence[int]], sampling: Sampling) -> list[tuple[int, ...]]:
        """The tokens that follow each list of tokens, in order; the end token, where it comes in time, is the last one.

        Stop strings are no matter of tokens, and ignored.
        """
        found: list[list[int]] = [[] for _ in batch]
        going = list(range(len(batch)))
        for step in self._tokens(batch, sampling) if batch else ():
            for number in going:
                found[number].append(step[number])
            going = [number for number in going if found[number][-1] not in self._end_ids]
            if not going or len(found[going[0]]) >= sampling.max_new_tokens:
                break
        return [tuple(own) for own in found]

    def _checked(self, prompt: str, sampling: Sampling) -> list[int]:
        ids = self.tokenize(prompt)
        check_prompt(ids, sampling, self.info.context_length)
        return ids

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _tokens(self, batch: Sequence[Sequence[int]], sampling: Sampling) -> Iterator[list[int]]:
        """The next token of every row, step by step, for as long as the caller wants more."""
        device = self.model.device
        width = max(map(len, batch))
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in batch], device=device)
        mask: Any = None
        positions: Any = None
        if any(len(row) < width for row in batch):
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch], device=device)
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
        random = None if sampling.seed is None else torch.Generator(device).manual_seed(sampling.seed)
        cache: Any = None
        while True:
            logits, cache = self._forward(ids, mask, positions, cache)
            tokens = _choose(logits, sampling, random)
            yield tokens.tolist()
            ids = tokens[:, None]
            if mask is not None:
                mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
                positions = positions[:, -1:] + 1

    def _forward(self, ids: Any, mask: Any, positions: Any, cache: Any) -> tuple[Any, Any]:
        """Logits after the last column, shape (rows, vocabulary), and the key-value cache."""
        where = {"position_ids": positions} if self._takes_positions and positions is not None else {}
        inputs = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache, **where, **self._last_only}
        # Autocast keeps a converted weight for the next token, but not in inference mode.
        with torch.inference_mode(not torch.is_autocast_enabled(self.model.device.type)), torch.no_grad():
            output = self.model(**inputs, use_cache=True)
        return output.logits[:, -1].float(), output.past_key_values


def _choose(logits: Any, sampling: Sampling, random: Any) -> Any:
    """One token id a row: the most likely one, or drawn from the nucleus that holds ``top_p`` of the probability."""
    if sampling.temperature <= 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits / sampling.temperature, -1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(-1, descending=True)
        ordered[ordered.cumsum(-1) - ordered >= sampling.top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    return torch.multinomial(probabilities, 1, generator=random)[:, 0]
