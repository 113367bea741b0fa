"""Whether a training fits this machine by its dry run, and which settings would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from slmops.errors import ResourceError
from slmops.progress import duration
from slmops.sections import TrainingSection
from slmops.training.dryrun import Measured, Work

_SAFE = 0.9
"""Share of the available memory that a setting may take to be named."""

_STATE_BYTES = 12
"""A trained weight's gradient and AdamW's two moments."""

_PACKED_BYTES = 4 - 4.5 / 8
"""What a float32 weight saves in 4 bits, of which a group's scale is half a bit."""

_KEPT_BETWEEN_LAYERS = 0.06
"""Share of what a training keeps that checkpoints between layers keep: a layer's input, of some 17 such tensors."""

_AGAIN = 4 / 3
"""A second forward pass beside one forward and a backward pass of twice its work (Chen et al. 2016)."""


@dataclass(frozen=True)
class Estimate:
    """What a training will take.

    Args:
        seconds: Of all its updates.
        peak_mb: Largest resident memory of its process, in units of 10⁶ bytes.
        available_mb: What its process may have.
        updates: Planned.
        tokens: Real tokens of all forward passes, those for the validation loss left out.
        dry_run_seconds: What it took to find out.
    """

    seconds: float
    peak_mb: float
    available_mb: float
    updates: int
    tokens: int
    dry_run_seconds: float

    @classmethod
    def of(cls, measured: Measured, work: Work) -> Estimate:
        """From what a dry run measured."""
        return cls(
            seconds=round(measured.seconds_of(work), 1),
            peak_mb=round(measured.memory_of(work.padded_tokens), 1),
            available_mb=round(measured.available_mb, 1),
            updates=work.updates,
            tokens=round(work.batch_tokens * work.accumulation * work.updates),
            dry_run_seconds=round(measured.seconds, 1),
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def describe(self) -> str:
        """For people, in a line."""
        return (
            f"ETA {duration(self.seconds)} for {self.updates:,} updates, {self.tokens:,} tokens; "
            f"peak {_gb(self.peak_mb)} of memory, {_gb(self.available_mb)} are available "
            f"(dry run of {duration(self.dry_run_seconds)})"
        )


@dataclass(frozen=True)
class Instead:
    """Settings that would fit.

    Args:
        settings: As they are written on the command line.
        peak_mb: About their peak, in units of 10⁶ bytes.
        seconds: About their time; ``None`` where the dry run says nothing of it.
        note: What else they change.
    """

    settings: str
    peak_mb: float
    seconds: float | None
    note: str = ""

    def __str__(self) -> str:
        time = duration(self.seconds) if self.seconds is not None else "more time"
        return f"{self.settings}: about {_gb(self.peak_mb)}, {time}" + (f"; {self.note}" if self.note else "")


def check_fits(measured: Measured, work: Work, section: TrainingSection, *, what: str) -> None:
    """Refuse a training that does not fit into the memory that its process may have.

    Raises:
        ResourceError: Says what it needs, and the settings that would fit with their own estimates.
    """
    peak = measured.memory_of(work.padded_tokens)
    if peak <= measured.available_mb:
        return
    ways = [way for way in instead(measured, work, section) if way.peak_mb <= _SAFE * measured.available_mb]
    listed = "".join(f"\n      {way}" for way in ways)
    raise ResourceError(
        f"the training needs about {_gb(peak)} of memory, and {_gb(measured.available_mb)} are available",
        where=what,
        fix=f"each of these would fit:{listed}" if ways else "take a smaller model, or a machine with more memory",
    )


def instead(measured: Measured, work: Work, section: TrainingSection) -> Iterator[Instead]:
    """Settings that need less memory, the least intrusive first."""
    size, longest = min(section.batch_size, work.rows), max(work.lengths)
    limit = _SAFE * measured.available_mb
    while size > 1:
        size //= 2
        peak = measured.memory_of(work.padded(size, longest))
        if peak <= limit or size == 1:
            passes = -(-section.batch_size * section.gradient_accumulation_steps // size)
            tokens = work.batch_tokens * size / min(section.batch_size, work.rows)
            seconds = measured.seconds_of(work, tokens=tokens, accumulation=passes)
            yield Instead(
                f"training.batch_size={size} training.gradient_accumulation_steps={passes}", peak, seconds, "the same updates"
            )
            break
    if not section.gradient_checkpointing and measured.layers:
        kept = measured.token_mb * work.padded_tokens * (_KEPT_BETWEEN_LAYERS + 1 / measured.layers)
        yield Instead("training.gradient_checkpointing=true", measured.fixed_mb + kept, _AGAIN * measured.seconds_of(work))
    if section.lora is None or section.lora.bits is None:
        saved = measured.linear * _PACKED_BYTES + (measured.trained * _STATE_BYTES if section.lora is None else 0)
        settings = "training.lora.bits=4" if section.lora is not None else "--method qlora"
        yield Instead(settings, measured.memory_of(work.padded_tokens) - saved / 1e6, None, "an adapter on weights in 4 bits")
    yield from _shorter(measured, work, section, limit)


def _shorter(measured: Measured, work: Work, section: TrainingSection, limit: float) -> Iterator[Instead]:
    """The longest ``max_length`` that fits, if it leaves most of the rows."""
    by_length = sorted(work.lengths)
    for left in range(len(by_length) - 1, len(by_length) // 2, -1):
        length = by_length[left - 1]
        peak = measured.memory_of(work.padded(section.batch_size, length))
        if length < by_length[-1] and peak <= limit:
            shorter = Work(
                rows=max(1, round(work.rows * left / len(by_length))),
                lengths=tuple(by_length[:left]),
                batch_size=work.batch_size,
                updates=work.updates,
                accumulation=work.accumulation,
                looked=work.looked,
            )
            gone = 1 - left / len(by_length)
            yield Instead(f"training.max_length={length}", peak, measured.seconds_of(shorter), f"sets {gone:.1%} of the rows aside")
            return


def _gb(mb: float) -> str:
    return f"{mb / 1e3:,.1f} GB"
