"""What is seen of a training on its way: progress, the loss curve, and a loss that is not finite."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from slmops.data.templates import Encoded
from slmops.errors import TrainingError
from slmops.progress import Advance, say
from slmops.sections import TrainingSection
from slmops.training.batches import collate
from slmops.training.forward import losses_of
from slmops.training.machine import autocast_type, evaluated
from slmops.training.objectives import CrossEntropy
from slmops.training.processes import Team, counting
from slmops.training.projection import Projection

Watch = Callable[[float, float], None]
"""Is told the share of the updates that are done and the validation loss, about eight times a run."""

CURVE_POINTS = 8
"""Times that a training looks at its validation loss."""

_T = TypeVar("_T")

_FEWEST = 32
"""Validation rows that are always looked at, where there are so many."""


class Watcher(TrainerCallback):  # type: ignore[misc,unused-ignore]  # a class without types to mypy
    """Shows progress, asks for checkpoints by the clock, measures the validation loss and stops on a loss that is not finite."""

    def __init__(
        self,
        advance: Advance,
        steps: int,
        section: TrainingSection,
        validation: Sequence[Encoded],
        pad_id: int,
        projection: Projection | None,
        watch: Watch | None,
        keep: Callable[[Any], None] | None = None,
        team: Team | None = None,
    ) -> None:
        self._team = team or Team()
        self._advance, self._watch, self._keep, self._patience = advance, watch, keep, section.patience
        self._every, self._rows = looks_every(steps, section), section.eval_batch_size
        self._save_steps, self._checkpoint_seconds = section.save_steps, section.checkpoint_seconds
        self._dtype = autocast_type(section.precision)
        self._validation, self._pad_id, self._projection = validation, pad_id, projection
        self._last_save = time.monotonic()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """After an update."""
        self._advance(1)
        due = self._team.decided(lambda: self._is_due(state.global_step))
        if due and state.global_step < state.max_steps:
            control.should_save = True
            self._last_save = time.monotonic()
        control.should_log = state.global_step % self._every == 0 or state.global_step == state.max_steps
        return control

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Where the loss is reported."""
        entry = state.log_history[-1]
        loss = entry.get("loss")
        if loss is None:
            return
        if loss != loss or abs(loss) == float("inf"):
            raise TrainingError(f"the loss is {loss} at update {state.global_step}", fix="lower learning_rate")
        if self._validation:
            entry["validation"] = self.validation_loss(kwargs["model"])
            if self._watch is not None:
                self._watch(state.global_step / state.max_steps, entry["validation"])
            self._weigh(state, control, kwargs["model"])

    def _is_due(self, update: int) -> bool:
        """Whether it is time for a checkpoint."""
        if self._save_steps is not None:
            return update % self._save_steps == 0
        return time.monotonic() - self._last_save >= self._checkpoint_seconds

    def _weigh(self, state: TrainerState, control: TrainerControl, model: Any) -> None:
        """Keep the model where its validation loss is the lowest so far; stop where it has not been for too long."""
        losses = [entry["validation"] for entry in state.log_history if "validation" in entry]
        since = len(losses) - 1 - losses.index(min(losses))
        if self._keep is not None and since == 0:
            self._keep(model)
        if self._patience is not None and since >= self._patience:
            say(f"  the validation loss has had no new lowest for {since} looks: stopped after update {state.global_step}")
            # From a checkpoint made here a resumed run would go on.
            control.should_training_stop, control.should_save = True, False

    def validation_loss(self, model: Any) -> float:
        """Mean cross-entropy of the answers' tokens, in nats."""
        total = count = 0.0
        autocast = torch.autocast(model.device.type, dtype=self._dtype, enabled=self._dtype is not None)
        with evaluated(model), torch.no_grad(), autocast:
            for start in range(0, len(self._validation), self._rows):
                rows = self._validation[start : start + self._rows]
                share = self._team.share(collate(rows, self._pad_id))
                batch = {name: values.to(model.device) for name, values in share.items()}
                losses = losses_of(model, batch, CrossEntropy(), self._projection)
                total += float(losses.sum()) * counting(batch)
                count += losses.numel() * counting(batch)
        total, count = self._team.summed(total, count)
        return total / count


def looks_every(updates: int, section: TrainingSection) -> int:
    """Updates from one look at the validation loss to the next: what is asked for, else an eighth of the run."""
    return section.eval_steps or max(1, updates // CURVE_POINTS)


def looked_at(rows: Sequence[_T], updates: int, section: TrainingSection) -> list[_T]:
    """The validation rows of every look, evenly spread: at most half as many as are trained on from one look to the next.

    A look is a forward pass, a third of a training's, so all looks together take a sixth of its time at most.

    Args:
        rows: All validation rows, or blocks of texts.
        updates: Of the run.
        section: Hyperparameters.
    """
    between = looks_every(updates, section) * section.batch_size * section.gradient_accumulation_steps
    most = max(_FEWEST, between // 2)
    return list(rows) if len(rows) <= most else [rows[place * len(rows) // most] for place in range(most)]


def curve_of(state: TrainerState) -> list[dict[str, float | None]]:
    """The losses that were reported: of training since the last report, and of validation."""
    return [
        {"step": entry["step"], "loss": entry["loss"], "validation": entry.get("validation")}
        for entry in state.log_history
        if "loss" in entry
    ]


def rates_of(state: TrainerState) -> list[float]:
    """The learning rates after the updates of the curve."""
    return [float(entry["learning_rate"]) for entry in state.log_history if "loss" in entry]


def lowest_of(state: TrainerState) -> int | None:
    """The update after which the validation loss was the lowest; ``None`` without validation rows."""
    looks = [(entry["validation"], entry["step"]) for entry in state.log_history if "validation" in entry]
    return min(looks)[1] if looks else None
