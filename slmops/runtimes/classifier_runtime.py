"""A model with a classification head as an engine: its answer to a prompt is the likeliest label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from slmops.models.classifier import head_of, load_classifier
from slmops.models.load import context_length, load_tokenizer
from slmops.runtimes.base import Generation, RuntimeInfo, Sampling
from slmops.runtimes.decoding import check_prompt
from slmops.training.batches import padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def open_classifier(path: Path) -> ClassifierRuntime:
    """Load the folder of a model with a classification head.

    Raises:
        ModelError: It cannot be loaded.
    """
    model = load_classifier(path)
    if torch.cuda.is_available():
        model = model.to("cuda")
    return ClassifierRuntime(model, load_tokenizer(path), context_length(path))


class ClassifierRuntime:
    """Answers are labels with the probabilities of all; how tokens are sampled does not matter, since none are."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: int) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._labels = [str(model.config.id2label[number]) for number in range(model.config.num_labels)]
        self.info = RuntimeInfo("torch", str(model.dtype).removeprefix("torch."), context, batch_dependent=True)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of rendered text, special tokens recognised, nothing added."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Generation]:
        """The likeliest label of each prompt, in order.

        Raises:
            DataError: A prompt is empty or does not fit into the context.
        """
        batch = [self.tokenize(prompt) for prompt in prompts]
        for ids in batch:
            check_prompt(ids, sampling, self.info.context_length)
        return [self._answer(len(ids), row) for ids, row in zip(batch, self._probabilities(batch), strict=True)] if batch else []

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[str | Generation]:
        """The label as the only piece, then the whole :class:`Generation`."""
        (answer,) = self.generate([prompt], sampling)
        yield answer.text
        yield answer

    def _answer(self, prompt_tokens: int, probabilities: torch.Tensor) -> Generation:
        number = int(probabilities.argmax())
        by_label = dict(zip(self._labels, probabilities.tolist(), strict=True))
        return Generation(self._labels[number], (number,), "stop", prompt_tokens, by_label)

    def _probabilities(self, batch: Sequence[Sequence[int]]) -> torch.Tensor:
        """Of each label, ``[B, labels]``, from the state of each row's last token."""
        read = {name: tensor.to(self._model.device) for name, tensor in padded(batch, self._tokenizer.pad_token_id or 0).items()}
        body: Any = self._model.base_model
        with torch.inference_mode():
            states = body(**read, use_cache=False)[0][:, -1]
            probabilities: torch.Tensor = head_of(self._model)(states).float().softmax(-1).cpu()
        return probabilities
