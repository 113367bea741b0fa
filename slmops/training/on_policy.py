"""On-policy distillation: some updates are about what the student itself says, scored by the teacher (Agarwal et al. 2024, GKD)."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from slmops.data.rows import Row
from slmops.data.templates import IGNORED, Encoded
from slmops.errors import ConfigError
from slmops.files import canonical, read_json, write_text
from slmops.models.load import end_token_ids
from slmops.runtimes.base import Sampling
from slmops.runtimes.torch_runtime import TorchRuntime
from slmops.sections import OnPolicySection
from slmops.signals.distribution import Distribution
from slmops.training.batches import collate
from slmops.training.machine import evaluated
from slmops.training.objectives import WeightedSum

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = tuple[int, ...]

WHERE = "training.on_policy"
"""The key of a recipe."""

_STATE = "own_samples.json"
_POSITIONS = 1 << 13  # of all prompts and samples at once: the weights are read rarely, and keys and values fit


class Scorer(Protocol):
    """A teacher that says what it would have said in the student's place."""

    def score(self, rows: Sequence[Row], samples: Sequence[Tokens]) -> Sequence[Distribution]:
        """Its distribution at each token of samples, in the student's token ids, as one batch.

        A sample's distributions end where the teacher cannot read on; there is at least one.

        Args:
            rows: What was asked.
            samples: What the student said to each, in its token ids.
        """


@dataclass(frozen=True)
class Updates:
    """What the updates of a run are about.

    Args:
        plan: The rows of each forward pass, by their numbers.
        accumulation: Forward passes of an update.
        rows: Training rows.
        encoded: The same in the student's tokens.
        tokenizer: The student's.
        max_length: Longest prompt and sample together, in tokens.
        seed: Of which updates are about own samples, and of these.
    """

    plan: Sequence[Sequence[int]]
    accumulation: int
    rows: Sequence[Row]
    encoded: Sequence[Encoded]
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    seed: int

    def __len__(self) -> int:
        """Updates."""
        return len(self.plan) // self.accumulation

    def places(self, update: int) -> range:
        """Where the forward passes of an update stand in the plan."""
        return range(update * self.accumulation, (update + 1) * self.accumulation)

    def prompt(self, row: int) -> Tokens:
        """What is asked in a row."""
        return self.encoded[row].input_ids[: self.encoded[row].prompt_length]


class OwnSamples:
    """The student's samples to the rows of some updates, in the place of the rows' answers.

    Samples are drawn for several updates at once. Which updates these are, and every draw, follows from the seed, the update
    and the weights; samples that wait for their update are part of a checkpoint, so an interrupted run goes on to the same bytes.

    Args:
        section: Of the recipe.
        run: All updates, among which some are chosen.
        objective: The recipe's loss; of own samples only what compares with the teacher is learned, not the samples themselves.
        scorer: The teacher.
        dtype: Type to draw in; ``None`` is plain float32.

    Raises:
        ConfigError: No objective compares with the teacher.
    """

    def __init__(
        self, section: OnPolicySection, run: Updates, objective: WeightedSum, scorer: Scorer, dtype: torch.dtype | None
    ) -> None:
        self.objective = signal_terms(objective)
        self._section, self._run, self._scorer, self._dtype = section, run, scorer, dtype
        self._longest = section.max_new_tokens or max(len(row.answer_ids) for row in run.encoded)
        self._waiting: dict[int, list[Tokens]] = {}
        self._counts: dict[str, float] = dict.fromkeys(("samples", "tokens", "ended_at_once", "cut_off", "seconds"), 0)
        self.updates = frozenset(filter(self._chosen, range(len(run))))
        self.places = frozenset(place for update in self.updates for place in run.places(update))

    def batches(self, update: int, model: Any) -> list[dict[str, torch.Tensor]]:
        """The batches of one of ``updates``; for the first of several the model answers the rows of all of them.

        Args:
            update: Its number, from 0.
            model: The student as it is now.
        """
        if update not in self._waiting:
            self._draw(update, model)
        samples = iter(self._waiting.pop(update))
        ends = end_token_ids(getattr(model.generation_config, "eos_token_id", None), self._run.tokenizer)
        passes = [self._run.plan[place] for place in self._run.places(update)]
        return [self._batch(rows, [next(samples) for _ in rows], ends) for rows in passes]

    @property
    def facts(self) -> dict[str, float]:
        """Updates about own samples and their share; samples and tokens learned from, and seconds it took to draw them."""
        counts = self._counts
        return {
            "updates": len(self.updates),
            "share": round(len(self.updates) / len(self._run), 4),
            **counts,
            "mean_tokens": round(counts["tokens"] / max(1, counts["samples"]), 2),
            "seconds": round(counts["seconds"], 1),
        }

    def describe(self) -> str:
        """The same so far, for people."""
        facts = self.facts
        return f"{facts['samples']:,} own samples of {facts['mean_tokens']:.1f} tokens, drawn in {facts['seconds']:.0f} s"

    def save(self, checkpoint: Path) -> None:
        """Write the samples that wait, and the counts, to a checkpoint."""
        write_text(checkpoint / _STATE, canonical({"waiting": self._waiting, "counts": self._counts}))

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint."""
        state = read_json(checkpoint / _STATE)
        self._waiting = {int(update): [tuple(one) for one in samples] for update, samples in state["waiting"].items()}
        self._counts = state["counts"]

    def _chosen(self, update: int) -> bool:
        weighs = any(term.weight.at(update / len(self._run)) for term in self.objective.terms)
        return weighs and random.Random(f"{self._run.seed}:own samples:{update}").random() < self._section.share

    def _batch(self, rows: Sequence[int], samples: Sequence[Tokens], ends: Collection[int]) -> dict[str, torch.Tensor]:
        """One forward pass: the loss is about the sampled tokens, the end token among them, and about nothing else."""
        signals = self._scorer.score([self._run.rows[row] for row in rows], samples)
        read = [sample[: len(signal)] for sample, signal in zip(samples, signals, strict=True)]
        self._count(read, ends)
        prompts = [self._run.prompt(row) for row in rows]
        encoded = [
            Encoded(prompt + sample, (IGNORED,) * len(prompt) + sample) for prompt, sample in zip(prompts, read, strict=True)
        ]
        return collate(encoded, int(self._run.tokenizer.eos_token_id), signals)

    def _count(self, samples: Sequence[Tokens], ends: Collection[int]) -> None:
        self._counts["samples"] += len(samples)
        self._counts["tokens"] += sum(map(len, samples))
        self._counts["ended_at_once"] += sum(len(sample) == 1 and sample[0] in ends for sample in samples)
        self._counts["cut_off"] += sum(sample[-1] not in ends for sample in samples)

    def _draw(self, update: int, model: Any) -> None:
        """Have the model answer the rows of an update and of those that share its draw, prompts of like length together."""
        started = time.monotonic()
        every = self._section.every
        sharing = [other for other in range(update, (update // every + 1) * every) if other in self.updates]
        rows = {other: [row for place in self._run.places(other) for row in self._run.plan[place]] for other in sharing}
        prompts = [self._run.prompt(row) for other in sharing for row in rows[other]]
        found: dict[int, Tokens] = {}
        with _answering(model, self._dtype, self._run) as runtime:
            for group in self._groups(prompts):
                limits = [min(self._longest, self._run.max_length - len(prompts[number])) for number in group]
                seed = random.Random(f"{self._run.seed}:samples:{update}:{group[0]}").getrandbits(63)
                sampling = Sampling(max(limits), self._section.temperature, seed=seed)
                drawn = runtime.complete([prompts[number] for number in group], sampling)
                found |= {number: sample[:limit] for number, sample, limit in zip(group, drawn, limits, strict=True)}
        samples = iter(found[number] for number in range(len(prompts)))
        self._waiting = {other: [next(samples) for _ in rows[other]] for other in sharing}
        self._counts["seconds"] += time.monotonic() - started

    def _groups(self, prompts: Sequence[Tokens]) -> Iterator[list[int]]:
        """Numbers of prompts of like length, as many as are answered at once."""
        group: list[int] = []
        for number in sorted(range(len(prompts)), key=lambda number: (len(prompts[number]), number)):
            if (len(group) + 1) * (len(prompts[number]) + self._longest) > _POSITIONS and group:
                yield group
                group = []
            group.append(number)
        yield group


def signal_terms(objective: WeightedSum) -> WeightedSum:
    """The part of a loss on tokens that compares with the teacher; of own samples the teacher's layers are not kept.

    To learn its own samples as answers would confirm a student's mistakes.

    Raises:
        ConfigError: There is none.
    """
    terms = tuple(term for term in objective.on_tokens if term.objective.needs_signal and term.weight.highest)
    if not terms:
        raise ConfigError(
            "no objective compares the student's own samples with the teacher",
            where=WHERE,
            fix="add one that needs the teacher's distribution to training.objectives, such as jsd",
        )
    return WeightedSum(terms)


@contextmanager
def _answering(model: Any, dtype: torch.dtype | None, run: Updates) -> Iterator[TorchRuntime]:
    """A model in training as one that answers: without dropout, in the type it is trained in, its weights converted once."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    # Autocast keeps a converted weight for the next token only where the weight requires a gradient.
    frozen = [weight for weight in inner.parameters() if not weight.requires_grad] if dtype is not None else []
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        with evaluated(model), torch.autocast(inner.device.type, dtype=dtype, enabled=dtype is not None):
            yield TorchRuntime(inner, run.tokenizer, run.max_length)
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
