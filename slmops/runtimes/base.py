"""What every engine offers, and the registry of engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from slmops.registry import Entry, Registry


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen and when to stop.

    Args:
        max_new_tokens: Most tokens to generate.
        temperature: 0 is greedy.
        top_p: Nucleus; 1 keeps all.
        seed: For sampling.
        stop: Strings that end the answer; they are not part of it.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generation:
    """One answer: its text without special tokens, its token ids without the end token, and why it ended.

    A classification head gives the ``probabilities`` of all labels too; its only token is the label's number.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str  # "stop" or "length"
    prompt_tokens: int
    probabilities: Mapping[str, float] | None = None


@dataclass(frozen=True)
class RuntimeInfo:
    """Facts of a loaded model.

    Args:
        name: Registry name of the engine.
        precision: Such as ``float32`` or ``int4``.
        context_length: Prompt and answer together, in tokens.
        batch_dependent: Whether an answer can depend on what else is in the batch.
    """

    name: str
    precision: str
    context_length: int
    batch_dependent: bool


class Runtime(Protocol):
    """A loaded model; prompts are already rendered text (see ``data.chat``)."""

    @property
    def info(self) -> RuntimeInfo:
        """What it is."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids of rendered text, special tokens recognised, nothing added."""

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Generation]:
        """Answer a batch of prompts, in order."""

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[str | Generation]:
        """Answer one prompt: pieces of text as they come, then the whole :class:`Generation` as the last item."""


class OpenRuntime(Protocol):
    """What a registry entry is: a function that loads a model folder."""

    def __call__(self, path: Path, *, threads: int | None = None) -> Runtime:
        """Load the model in ``path`` with so many CPU threads (``None``: the engine's own choice)."""


RUNTIMES = Registry(
    "runtime",
    {
        "torch": Entry("slmops.runtimes.torch_runtime:open_runtime", extra="train"),
        "ort-genai": Entry("slmops.runtimes.ort_genai:open_runtime", extra="serve"),
        "openvino-genai": Entry("slmops.runtimes.openvino_genai:open_runtime", extra="openvino"),
    },
)


def open_runtime(name: str, path: Path, *, threads: int | None = None) -> Runtime:
    """Load a model folder with the engine of that name.

    Raises:
        UsageError: No such engine.
        ModelError: The folder does not hold a model for that engine.
    """
    opener: OpenRuntime = RUNTIMES.get(name)
    return opener(path, threads=threads)
