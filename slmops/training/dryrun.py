"""A training's time and memory before its first step: a few real batches, forward and backward, on a model of its own.

Nothing of the training is touched: the model is loaded for this and thrown away, random numbers are drawn from a copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch

from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.evaluation.memory import Peak, resident_mb
from slmops.models.fit import activations_mb, memory_available_mb
from slmops.sections import TrainingSection
from slmops.training.attempt import Attempt, updating
from slmops.training.batches import collate, padded_width, plan_batches, steps_of
from slmops.training.gradients import rows_of_embedding
from slmops.training.inputs import encode_rows, encode_validation
from slmops.training.machine import autocast_type, keep_freed_memory, same_sums
from slmops.training.objectives import WeightedSum
from slmops.training.objectives.contrastive import Contrastive
from slmops.training.pairs import Pair, PairLoss, into_batch, pairs_of
from slmops.training.parallel import DataParallel
from slmops.training.projection import Projection
from slmops.training.rehearsal import few, spread
from slmops.training.row_pairs import row_pairs
from slmops.training.watching import CURVE_POINTS

_MOST_ROWS = 2000
_WARM_TOKENS = 128
_SECONDS, _SHARE = 4.0, 0.05
"""What the batches may take: seconds, or what is left of a share of the training."""

_ROOM = 0.8
"""Share of the available memory that a batch may be expected to take and is tried whole."""

MIB = 2**20 / 1e6
"""Units of 10⁶ bytes in a MiB."""


@dataclass(frozen=True)
class Work:
    """What a training has to do.

    Args:
        rows: That are trained on.
        lengths: Tokens of rows, of more than 2,000 of an even sample and the longest.
        batch_size: Rows of a forward pass.
        updates: Of the whole training.
        accumulation: Forward passes of an update.
        looked: Rows that a look at the validation loss reads.
    """

    rows: int
    lengths: tuple[int, ...]
    batch_size: int
    updates: int
    accumulation: int
    looked: int

    @property
    def batch_tokens(self) -> float:
        """Real tokens of a forward pass, in the mean."""
        return mean(self.lengths) * min(self.batch_size, self.rows)

    @property
    def padded_tokens(self) -> int:
        """Tokens of the longest forward pass, padding included."""
        return self.padded(self.batch_size, max(self.lengths))

    def padded(self, batch_size: int, length: int) -> int:
        """Tokens of a forward pass whose longest row has so many."""
        return min(batch_size, self.rows) * padded_width(length)

    @property
    def looks(self) -> int:
        """Times that the validation loss is looked at."""
        return -(-self.updates // max(1, self.updates // CURVE_POINTS)) if self.looked else 0


@dataclass(frozen=True)
class Measured:
    """What the dry run measured.

    Args:
        typical: Real tokens, padded tokens and seconds of a batch as most are.
        widest: The same of the batch with the longest rows, or of a part of it.
        update_seconds: The optimizer's part of an update.
        fixed_mb: Resident memory whatever a batch has, in units of 10⁶ bytes.
        token_mb: More for each token of a batch, padding included.
        available_mb: What this process may have, with what it has already.
        parameters: All weights.
        linear: Those of linear layers but the output.
        trained: Those that are trained.
        layers: Of the model, as far as known.
        seconds: The dry run took.
    """

    typical: tuple[int, int, float]
    widest: tuple[int, int, float]
    update_seconds: float
    fixed_mb: float
    token_mb: float
    available_mb: float
    parameters: int
    linear: int
    trained: int
    layers: int
    seconds: float

    def batch_seconds(self, tokens: float) -> float:
        """A forward and backward pass of so many real tokens: on the line through the two batches that were timed.

        A token of a smaller batch takes no less than one of a typical batch.
        """
        (few, _, least), (many, _, most) = self.typical, self.widest
        slope = (most - least) / (many - few) if many > 1.2 * few else least / few
        slope = min(max(slope, 0.25 * least / few), 4 * least / few)  # a moment's noise makes no training free
        line = least + slope * (tokens - few)
        return line if tokens >= few else max(line, least * tokens / few)

    def seconds_of(self, work: Work, *, tokens: float | None = None, accumulation: int | None = None) -> float:
        """A whole training, with looks at the validation loss, each a third of a pass over its rows."""
        own = work.batch_tokens if tokens is None else tokens
        passes = work.updates * (work.accumulation if accumulation is None else accumulation)
        look = self.batch_seconds(work.batch_tokens) / work.batch_tokens * work.looked * mean(work.lengths) / 3
        return passes * self.batch_seconds(own) + work.updates * self.update_seconds + work.looks * look

    def memory_of(self, padded_tokens: float) -> float:
        """Peak of a training whose longest batch has so many tokens, in units of 10⁶ bytes."""
        return self.fixed_mb + self.token_mb * padded_tokens


@dataclass(frozen=True)
class Batches:
    """The batches of a dry run, and what they are taken from."""

    typical: list[Encoded]
    widest: list[Encoded]
    pairs: Sequence[Pair]
    work: Work


def sample(
    rows: Sequence[Row], validation: Sequence[Row], template: Template, section: TrainingSection, seed: int
) -> Batches | None:
    """A typical batch and that of the longest rows; ``None`` where no row fits into ``max_length``."""
    looked = set(spread(len(rows), _MOST_ROWS))
    by_length = sorted(range(len(rows)), key=lambda index: -sum(len(turn["content"]) for turn in rows[index].messages))
    chosen = sorted(looked | set(by_length[: 2 * section.batch_size]))
    kept, encoded = encode_rows([rows[index] for index in chosen], template, section.max_length)
    if not encoded:
        return None
    share = len(kept) / len(chosen)
    left = max(1, round(len(rows) * share))
    lengths = [len(row.input_ids) for row in encoded]
    plan = plan_batches(lengths, section.batch_size, seed, count=-(-len(encoded) // section.batch_size))
    full = [batch for batch in plan if len(batch) == min(section.batch_size, len(encoded))]
    typical = sorted(full, key=lambda batch: sum(lengths[row] for row in batch))[len(full) // 2]
    widest = sorted(range(len(encoded)), key=lambda index: -lengths[index])[: section.batch_size]
    updates = section.max_steps or steps_of(left, section.batch_size, section.gradient_accumulation_steps, section.epochs)
    on_pairs = WeightedSum.of(section.objectives).on_pairs
    found: list[Pair | None] = []
    if on_pairs is not None and isinstance(on_pairs[1], Contrastive):
        found = pairs_of(kept, template, on_pairs[1], section.max_length)
    elif on_pairs is not None:
        found = [pair for batch in row_pairs(plan, kept, encoded, seed) for pair in batch]
    pairs = [pair for pair in found if pair is not None]
    work = Work(
        rows=left,
        lengths=tuple(lengths),
        batch_size=section.batch_size,
        updates=updates,
        accumulation=section.gradient_accumulation_steps,
        looked=len(encode_validation(validation, template, updates, section)),
    )
    return Batches([encoded[row] for row in typical], [encoded[row] for row in widest], pairs[: section.batch_size], work)


def measure(opened: Callable[[], Any], section: TrainingSection, batches: Batches, pad_id: int) -> Measured:
    """Time and memory of the batches, forward and backward, with the optimizer's state in place.

    Each is tried whole where that takes a few seconds or a twentieth of the training and is likely to fit; else some of its rows
    are, and the rest is reckoned from these.

    Args:
        opened: Opens a model as the training would.
        section: Objectives and hyperparameters.
        batches: What to try.
        pad_id: Token that pads.
    """
    began = time.perf_counter()
    keep_freed_memory()
    available = resident_mb() * MIB + memory_available_mb()
    objective = WeightedSum.of(section.objectives)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = autocast_type(section.precision)
    with torch.random.fork_rng(), same_sums():
        model = opened().to(device).train()
        projection = Projection.of(model)
        if section.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            projection = projection and projection.whole
        # Pairs are looked at by one model that sees all rows; as in the training itself.
        alone = objective.on_pairs is not None or section.gradient_checkpointing
        with DataParallel.of(model, projection, dtype) as threads, rows_of_embedding(model):
            run = Attempt(model, projection, None, PairLoss.of(objective, model), dtype, None if alone else threads)
            trial = _Trial(run, objective, batches, pad_id, device)
            some = few(batches.widest, len(batches.widest), _WARM_TOKENS)
            trial.of(batches.widest, some)
            update = updating(model)
            update()
            warm = trial.of(batches.widest, some)
            update_seconds = update()
            parameters = sum(one.numel() for one in model.parameters())
            may = _May(warm, batches.work, update_seconds, available, parameters, time.perf_counter() - began)
            widest = trial.of(batches.widest, may.take(batches.widest))
            typical = [trial.of(batches.typical, may.take(batches.typical)) for _ in range(2)]
        token_mb = max(0.0, (widest.peak_mb - warm.peak_mb) / max(1, widest.padded - warm.padded))
        head = model.get_output_embeddings()
        linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]
        config: Any = getattr(model, "config", None)
        return Measured(
            typical=(typical[0].tokens, typical[0].padded, mean(one.seconds for one in typical)),
            widest=(widest.tokens, widest.padded, widest.seconds),
            update_seconds=update_seconds,
            fixed_mb=widest.peak_mb - token_mb * widest.padded,
            token_mb=token_mb,
            available_mb=available,
            parameters=parameters,
            linear=sum(module.in_features * module.out_features for module in linear),
            trained=sum(one.numel() for one in model.parameters() if one.requires_grad),
            layers=int(getattr(config, "num_hidden_layers", 0) or 0),
            seconds=time.perf_counter() - began,
        )


@dataclass(frozen=True)
class _Tried:
    tokens: int
    padded: int
    seconds: float
    peak_mb: float


@dataclass(frozen=True)
class _Trial:
    run: Attempt
    objective: WeightedSum
    batches: Batches
    pad_id: int
    device: torch.device

    def of(self, rows: Sequence[Encoded], chosen: Sequence[int]) -> _Tried:
        own = [rows[index] for index in chosen]
        whole: Mapping[str, torch.Tensor] = {**collate(own, self.pad_id), **into_batch(self.batches.pairs[: len(own)], self.pad_id)}
        batch = {name: tensor.to(self.device) for name, tensor in whole.items()}
        with Peak() as peak:
            started = time.perf_counter()
            self.run.backward(batch, self.objective, done=0.0)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
        return _Tried(int(batch["attention_mask"].sum()), batch["input_ids"].numel(), seconds, peak.mb * MIB)


@dataclass(frozen=True)
class _May:
    """How much may be tried, after a small batch.

    Args:
        warm: The small batch.
        work: Of the training.
        update_seconds: The optimizer's part.
        available_mb: Memory that this process may have.
        parameters: Of the model.
        spent: Seconds that the dry run took so far.
    """

    warm: _Tried
    work: Work
    update_seconds: float
    available_mb: float
    parameters: int
    spent: float

    def take(self, rows: Sequence[Encoded]) -> list[int]:
        """As many rows as take a short time and fit; at least one."""
        token_seconds = self.warm.seconds / self.warm.tokens
        tokens = sum(len(row.input_ids) for row in rows)
        padded = len(rows) * padded_width(max(len(row.input_ids) for row in rows))
        passes = self.work.accumulation * self.work.batch_tokens * token_seconds
        allowed = max(_SECONDS, _SHARE * self.work.updates * (passes + self.update_seconds) - self.spent) / 3
        room = _ROOM * self.available_mb - self.warm.peak_mb
        fitting = self.warm.padded + max(0.0, room) / activations_mb(self.parameters, 1)
        share = min(1.0, allowed / (tokens * token_seconds), fitting / padded)
        return spread(len(rows), max(1, int(len(rows) * share)))
