"""Hyperparameters for those who give none: chosen by method, width of the model and number of rows, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slmops.sections import TrainingSection

CHOSEN = ("learning_rate", "batch_size", "gradient_accumulation_steps", "epochs", "warmup_share")
"""Fields of a training that are chosen where the user gave nothing."""

_FULL_RATE, _WIDTH, _POWER = 5e-5, 2000, 0.78
"""Best rate of full fine-tuning at a width, and how it falls with wider models: a fit to Llama models (Schulman et al. 2025)."""

_ADAPTER_TIMES = 10
"""Times the rate of full fine-tuning that adapters take (Schulman et al. 2025: 9.8)."""

_RATES = {"full": (1e-5, 5e-4), "adapter": (1e-4, 5e-3)}
"""Least and highest rate: the fit is of models wider than 1,000, and is not to be trusted far from there."""

_ROWS_AN_UPDATE = ((500, 8), (20_000, 16))
_MOST_ROWS_AN_UPDATE = 32
_FORWARD_TOKENS = 4096
_UPDATES, _MOST_EPOCHS, _MANY_ROWS = 300, 10, 50_000
_WARMUP_SHARE, _WARMUP_UPDATES = 0.1, 100


@dataclass(frozen=True)
class Job:
    """What the defaults go by.

    Args:
        method: ``full``, or the name of an adapter's method.
        width: Of the model's hidden states; ``None`` while it is not on this machine.
        rows: That are trained on.
        tokens: Of a row that is longer than 95 % of them, about.
    """

    method: str
    width: int | None
    rows: int
    tokens: float


@dataclass(frozen=True)
class Setting:
    """A line of the table that is shown before a training.

    Args:
        name: Of the field.
        value: That the training has; ``None`` where it is not known yet.
        origin: ``default`` or ``yours``.
        reason: In a few words.
    """

    name: str
    value: float | int | str | None
    origin: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @property
    def text(self) -> str:
        """The value as people write it."""
        return "–" if self.value is None else f"{self.value:g}" if isinstance(self.value, float) else str(self.value)


def choose(job: Job, section: TrainingSection, names: Collection[str]) -> dict[str, Setting]:
    """Values for some fields of a training, with their reasons; the others stay as they are and are gone by.

    Args:
        job: What is trained on what.
        section: As the user gave it.
        names: Fields of :data:`CHOSEN` that may be chosen.
    """
    found: dict[str, Setting] = {}

    def take(name: str, value: float | int | None, reason: str) -> None:
        if name in names:
            found[name] = Setting(name, value, "default", reason)

    batch, accumulation = _rows_a_pass(job, section, names, take)
    an_epoch = max(1, math.ceil(math.ceil(job.rows / batch) / accumulation))
    epochs = section.epochs
    if section.max_steps is None:
        if "epochs" in names:
            epochs = float(_epochs(job, an_epoch))
        take("epochs", epochs, f"{an_epoch * epochs:,.0f} updates over {job.rows:,} rows; it stops when it is no longer of use")
    updates = section.max_steps or max(1, math.ceil(an_epoch * epochs))
    share = min(_WARMUP_SHARE, round(_WARMUP_UPDATES / updates, 3))
    take("warmup_share", share, f"{int(share * updates):,} of {updates:,} updates: a tenth, {_WARMUP_UPDATES} at most")
    rate = None if job.width is None else learning_rate(job.method, job.width)
    take("learning_rate", rate, _why(job))
    return found


def learning_rate(method: str, width: int) -> float:
    """The peak rate for a method and a model, in two digits.

    ``5e-5 (2000 / width)^0.78`` for all weights, ten times that for an adapter, whatever its rank (Schulman et al., "LoRA Without
    Regret", 2025), within bounds.
    """
    kind = "full" if method == "full" else "adapter"
    rate = _FULL_RATE * (_WIDTH / width) ** _POWER * (1 if kind == "full" else _ADAPTER_TIMES)
    low, high = _RATES[kind]
    return float(f"{min(max(rate, low), high):.1e}")


def settings_of(section: TrainingSection, chosen: Mapping[str, Setting], validation: Setting) -> list[Setting]:
    """The table's lines: what was chosen, what the user gave, and where validation rows come from.

    Args:
        section: With the chosen values.
        chosen: Of :func:`choose`.
        validation: The line about validation rows.
    """
    lines = []
    for name in (*CHOSEN, "max_steps"):
        value = getattr(section, name)
        if name in chosen:
            lines.append(chosen[name])
        elif name == "epochs" and section.max_steps is not None:
            continue  # max_steps takes its place
        elif value is not None:
            given = name in section.model_fields_set
            lines.append(Setting(name, value, "yours" if given else "default", "" if given else "as in every recipe"))
    return [*lines, validation]


def table(settings: Sequence[Setting]) -> str:
    """The settings for people: value, where it is from, reason."""
    rows = [("", "value", "from", "reason"), *((one.name, one.text, one.origin, one.reason) for one in settings)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _rows_a_pass(job: Job, section: TrainingSection, names: Collection[str], take: Any) -> tuple[int, int]:
    """Rows of a forward pass, and passes of an update."""
    wanted = next((size for rows, size in _ROWS_AN_UPDATE if job.rows < rows), _MOST_ROWS_AN_UPDATE)
    batch, accumulation = section.batch_size, section.gradient_accumulation_steps
    if "batch_size" in names:
        fitting = max(1, int(_FORWARD_TOKENS / max(1.0, job.tokens)))
        least = 1 if "gradient_accumulation_steps" in names else accumulation
        batch = max(1, min(wanted // least, 1 << (fitting.bit_length() - 1)))
        reason = f"{_FORWARD_TOKENS:,} tokens a forward pass at most" if batch < wanted // least else f"for {job.rows:,} rows"
        take("batch_size", batch, f"{reason}; adapters learn less from large batches" if job.method != "full" else reason)
        if "gradient_accumulation_steps" in names:
            accumulation = max(1, wanted // batch)
    elif "gradient_accumulation_steps" in names:
        accumulation = 1
    take("gradient_accumulation_steps", accumulation, f"{batch * accumulation} rows an update")
    return batch, accumulation


def _epochs(job: Job, an_epoch: int) -> int:
    least = 1 if job.rows >= _MANY_ROWS else 2
    return min(_MOST_EPOCHS, max(least, math.ceil(_UPDATES / an_epoch)))


def _why(job: Job) -> str:
    if job.width is None:
        return "by the model's width, which is known when it is on this machine"
    source = "(Schulman et al., LoRA Without Regret, 2025)"
    if job.method == "full":
        return f"all weights, width {job.width:,}: narrower models take larger rates {source}"
    return f"{job.method}, width {job.width:,}: {_ADAPTER_TIMES} times the rate of all weights {source}"
