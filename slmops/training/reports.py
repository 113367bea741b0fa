"""What others are told of a training on its way: lines of progress, TensorBoard, and whatever else transformers reports to."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback, TrainerState

from slmops.errors import ConfigError, MissingExtraError, nearest
from slmops.files import read_json, write_json
from slmops.progress import say
from slmops.sections import TrainingSection
from slmops.training.watching import looks_every

_STATE = "reports.json"
"""File of a checkpoint with what has been added up since the last report."""

_PACKAGES = {"azure_ml": "azureml-mlflow", "comet_ml": "comet-ml", "flyte": "flytekit"}
"""What pip calls the packages whose names are not those of the reports."""


def check_names(names: Sequence[str]) -> list[str]:
    """Those to report to; ``all`` is whatever is installed.

    Raises:
        ConfigError: transformers knows no report of a name.
        MissingExtraError: The package that it goes to is not installed, or not set up.
    """
    if not names:
        return []
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

    here = get_available_reporting_integrations()
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK and name != "all":
            known = sorted([*INTEGRATION_TO_CALLBACK, "all", "none"])
            raise ConfigError(
                f"nothing called {name!r} can be reported to",
                where="report_to",
                fix=f"{nearest(name, known)} (known: {', '.join(known)})",
            )
        if name == "tensorboard" and name not in here:
            raise MissingExtraError("tensorboard", "tensorboard")
        if name not in here and name != "all":
            raise MissingExtraError(_PACKAGES.get(name, name), None)
    return here if "all" in names else list(names)


class Reports(TrainerCallback):  # type: ignore[misc,unused-ignore]  # a class without types to mypy
    """Tells the figures of the last updates at every logging step, and the validation loss where it is looked at.

    They go to transformers' own callbacks and, where logging steps are asked for, to standard error. The loss curve of a run is
    made apart and is the same with reports and without. A resumed run goes on where its checkpoint was: what TensorBoard was told
    of later updates before the process was killed is withdrawn.

    Figures: ``loss`` a token since the last report, in nats, ``learning_rate``, ``grad_norm`` before clipping,
    ``tokens_per_second`` read, padding not counted, ``cpu_percent`` of all cores, ``resident_mb`` (10⁶ bytes), ``eval_loss``; on a
    GPU also ``gpu_memory_mb``, the most since the last report, and ``gpu_percent`` where its driver can be asked.

    Args:
        told: Callbacks of transformers.
        every: Updates between reports.
        aloud: Whether each is a line on standard error too.
    """

    def __init__(self, told: Sequence[Any], every: int, *, aloud: bool) -> None:
        self._told, self._every, self._aloud = tuple(told), every, aloud
        self._open, self._seen, self._last = 0.0, 0.0, 0
        self._due: dict[str, float] | None = None
        self._tokens, self._since = 0, time.monotonic()
        self._process = psutil.Process()
        self._process.cpu_percent()

    @classmethod
    def of(cls, section: TrainingSection, updates: int, folder: Path | None, checkpoint: Path | None, done: int) -> Reports | None:
        """Those that a section asks for; ``None`` where nobody wants to know.

        Args:
            section: Says who is told, and how often.
            updates: Of the run.
            folder: For TensorBoard's files; without one there are no reports but lines.
            checkpoint: That the run goes on from.
            done: Updates before that.
        """
        names = check_names(section.report_to) if folder is not None else []
        if not names and section.logging_steps is None:
            return None
        told = [_callback(name, folder, done) for name in names if folder is not None]
        made = cls(told, section.logging_steps or looks_every(updates, section), aloud=section.logging_steps is not None)
        if checkpoint is not None and (checkpoint / _STATE).is_file():
            made._open, made._seen, made._last = read_json(checkpoint / _STATE)
        return made

    def read(self, batch: Mapping[str, torch.Tensor]) -> None:
        """Count the tokens of a batch."""
        self._tokens += int(batch["attention_mask"].sum())

    def is_due(self, update: int) -> bool:
        """Whether there is a report after an update."""
        return update % self._every == 0 and update > self._last

    def see(self, update: int, total: float, *, grad_norm: Any, learning_rate: float, resets: bool) -> None:
        """After an update that is reported, or at which the trainer's sum of losses begins anew.

        Args:
            update: Its number.
            total: The trainer's sum of losses.
            grad_norm: Length of the gradient before clipping.
            learning_rate: Of the update.
            resets: Whether the sum begins anew.
        """
        self._open += total - self._seen
        self._seen = 0.0 if resets else total
        self._due = {}
        if not self.is_due(update):
            return
        now = time.monotonic()
        self._due = {
            "loss": self._open / (update - self._last),
            "learning_rate": learning_rate,
            **({"grad_norm": float(grad_norm)} if grad_norm is not None else {}),
            "tokens_per_second": self._tokens / max(now - self._since, 1e-9),
            "cpu_percent": self._process.cpu_percent() / (psutil.cpu_count() or 1),
            "resident_mb": self._process.memory_info().rss / 1e6,
            **_gpu(),
        }
        self._open, self._last, self._tokens, self._since = 0.0, update, 0, now

    def tell(self, args: Any, state: TrainerState, control: Any, model: Any) -> None:
        """Hand on what :meth:`see` saw, and the validation loss that was looked at since; once."""
        if self._due is None:
            return
        figures, self._due = self._due, None
        look = state.log_history[-1] if state.log_history else {}
        if look.get("step") == state.global_step and "validation" in look:
            figures["eval_loss"] = look["validation"]
        if not figures:
            return
        if self._aloud and "loss" in figures:
            say(f"  update {state.global_step}: {_in_words(figures)}")
        for one in self._told:
            one.on_log(args, state, control, logs=dict(figures), model=model)

    def save(self, checkpoint: Path) -> None:
        """What has been added up, beside a checkpoint."""
        write_json(checkpoint / _STATE, [self._open, self._seen, self._last])

    def on_init_end(self, args: Any, state: TrainerState, control: Any, **more: Any) -> None:
        """The trainer is made."""
        self._each("on_init_end", args, state, control, more)

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **more: Any) -> None:
        """Before the first update."""
        self._since = time.monotonic()
        self._each("on_train_begin", args, state, control, more)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **more: Any) -> None:
        """After each update."""
        self._each("on_step_end", args, state, control, more)

    def on_save(self, args: Any, state: TrainerState, control: Any, **more: Any) -> None:
        """After a checkpoint."""
        self._each("on_save", args, state, control, more)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **more: Any) -> None:
        """After the last update."""
        self._each("on_train_end", args, state, control, more)

    def _each(self, event: str, args: Any, state: TrainerState, control: Any, more: Mapping[str, Any]) -> None:
        for one in self._told:
            getattr(one, event)(args, state, control, **more)


def _callback(name: str, folder: Path, done: int) -> Any:
    """The one of transformers for a name; TensorBoard's forgets what an earlier process said of later updates."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    kind = INTEGRATION_TO_CALLBACK[name]
    if name != "tensorboard" or int(os.environ.get("RANK", "0")) != 0:
        return kind()
    from torch.utils.tensorboard import SummaryWriter

    say(f"  curves: tensorboard --logdir {folder}")
    return kind(SummaryWriter(str(folder), purge_step=done + 1))


def _gpu() -> dict[str, float]:
    if not torch.cuda.is_available():
        return {}
    figures = {"gpu_memory_mb": torch.cuda.max_memory_allocated() / 1e6}
    torch.cuda.reset_peak_memory_stats()
    with suppress(ModuleNotFoundError, RuntimeError):  # without NVIDIA's management library
        figures["gpu_percent"] = float(torch.cuda.utilization())
    return figures


def _in_words(figures: Mapping[str, float]) -> str:
    norm = f", gradient norm {figures['grad_norm']:.3g}" if "grad_norm" in figures else ""
    look = f", validation {figures['eval_loss']:.4f}" if "eval_loss" in figures else ""
    rate = f"learning rate {figures['learning_rate']:.3g}, {figures['tokens_per_second']:,.0f} tokens/s"
    return f"loss {figures['loss']:.4f}{look}, {rate}{norm}"
