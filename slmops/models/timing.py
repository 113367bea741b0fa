"""How long a request takes: measured on a whole model, estimated for cuts of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.models.importance import decoder_layers
from slmops.models.load import load_model

if TYPE_CHECKING:
    from slmops.data.rows import Row
    from slmops.data.templates import Template

_REPEATS = 5
_FEW = 2


@dataclass(frozen=True)
class Request:
    """What is timed: a prompt is read and an answer written, greedily, in PyTorch, float32, one at a time.

    Args:
        prompt: Tokens read.
        answer: Tokens written.
    """

    prompt: int = 64
    answer: int = 16

    @classmethod
    def of(cls, template: Template, rows: Sequence[Row]) -> Request:
        """As long as rows are in the middle; 64 and 16 tokens where there are no rows, or no answers."""
        prompts = [len(template.prompt_ids(row)) for row in rows]
        answers = [len(template.encode(row).answer_ids) for row in rows if row.answer]
        return cls(
            round(statistics.median_low(prompts)) if prompts else cls.prompt,
            round(statistics.median_high(answers)) if answers else cls.answer,
        )

    def __str__(self) -> str:
        return f"a request of {self.prompt} tokens answered with {self.answer}"


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a request by parts of the model.

    Args:
        request: What was timed.
        layer: Of a layer.
        token: Of a token of the vocabulary: the output layer's work.
        rest: What is left whatever is cut.
        whole: Of the model as it is, measured.
    """

    request: Request
    layer: float
    token: float
    rest: float
    whole: float

    def of(self, layers: int, vocabulary: int) -> float:
        """Estimated milliseconds of a cut."""
        return self.rest + self.layer * layers + self.token * vocabulary


def measure_parts(model: Path, request: Request) -> Timing:
    """Time a request on a model, on its first two layers, and on its output layer alone.

    Raises:
        ModelError: The model cannot be loaded, or its layers are not in one list.
    """
    import torch

    network: Any = load_model(model)
    layers = decoder_layers(network)
    total, vocabulary = len(layers), network.get_output_embeddings().weight.shape[0]
    whole = _milliseconds(network, request)
    few = min(_FEW, total)
    layer = 0.0
    if few < total:
        del layers[few:]
        network.config.get_text_config().num_hidden_layers = few
        layer = max(0.0, whole - _milliseconds(network, request)) / (total - few)
    head = network.get_output_embeddings()
    vector = torch.zeros(1, 1, head.weight.shape[1])
    with torch.inference_mode():
        token = request.answer * _median(lambda: head(vector)) / vocabulary
    rest = max(0.0, whole - layer * total - token * vocabulary)
    return Timing(request, layer, token, rest, whole)


def measure_request(model: Path, request: Request) -> float:
    """Milliseconds of a request: the median of five, after one that is not counted.

    Raises:
        ModelError: The model cannot be loaded.
    """
    return _milliseconds(load_model(model), request)


def _milliseconds(network: Any, request: Request) -> float:
    import torch

    prompt = torch.arange(request.prompt).unsqueeze(0) % network.get_input_embeddings().weight.shape[0]

    def once() -> None:
        ids, cache = prompt, None
        for _ in range(request.answer):
            out = network(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            ids, cache = out.logits[:, -1:].argmax(-1), out.past_key_values

    with torch.inference_mode():
        return _median(once)


def _median(once: Any) -> float:
    once()
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        once()
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)
