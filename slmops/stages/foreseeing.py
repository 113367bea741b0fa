"""What is said before a training's first step, and measured beside it: settings, hours and memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.data.rows import Row
from slmops.files import read_json, write_json
from slmops.progress import say
from slmops.sections import TrainingSection

if TYPE_CHECKING:
    from slmops.data.templates import Template

_ESTIMATE = "estimate.json"


@dataclass(frozen=True)
class Start:
    """A training that is about to start.

    Args:
        base: Folder of the model.
        section: Objectives and hyperparameters.
        template: Renders rows.
        rows: That are trained on.
        validation: For the validation loss.
        seed: Of batches.
        work: Where its checkpoints lie.
        adapter: Folder of an adapter that is trained further.
    """

    base: Path
    section: TrainingSection
    template: Template
    rows: Sequence[Row]
    validation: Sequence[Row]
    seed: int
    work: Path
    adapter: Path | None = None


Around = Callable[[Start], AbstractContextManager[dict[str, Any]]]
"""What lies around a training; it gives facts, which are complete when it ends."""


@contextmanager
def foreseen(start: Start, intro: str) -> Iterator[dict[str, Any]]:
    """Say the settings, estimate the training by a dry run, and watch the memory of the process while it lasts.

    A training that goes on from a checkpoint is not tried again; its estimate is that of its beginning.

    Args:
        start: The training.
        intro: The settings, as a table.

    Yields:
        ``estimate``, and when it ends ``peak_mb`` in units of 10⁶ bytes; ``resumed`` where both are of the last part alone.

    Raises:
        ResourceError: It does not fit; the message has settings that would.
    """
    from slmops.evaluation.memory import Peak
    from slmops.training.checkpoints import newest_checkpoint
    from slmops.training.dryrun import MIB
    from slmops.training.machine import same_sums

    say("\n".join(f"  {line}" for line in intro.splitlines()))
    facts: dict[str, Any] = {}
    kept = start.work / _ESTIMATE
    if newest_checkpoint(start.work) is not None:
        facts["resumed"] = True
    else:
        _estimate(start, kept)
    if kept.is_file():
        facts["estimate"] = read_json(kept)
    # The kernels' way of adding is settled at their first use, which must not depend on whether there was a dry run.
    with same_sums(), Peak() as peak:
        yield facts
    facts["peak_mb"] = round(peak.mb * MIB, 1)


def _estimate(start: Start, kept: Path) -> None:
    from slmops.data.label_template import LabelTemplate
    from slmops.training.dryrun import measure, sample
    from slmops.training.fitting import Estimate, check_fits
    from slmops.training.inputs import open_student

    batches = sample(start.rows, start.validation, start.template, start.section, start.seed)
    if batches is None:
        return  # the training says why
    labels = start.template.labels if isinstance(start.template, LabelTemplate) else None

    def opened() -> Any:
        return open_student(start.base, start.section, start.template.added, start.adapter, labels)

    measured = measure(opened, start.section, batches, int(start.template.tokenizer.eos_token_id))
    gc.collect()  # what refers to itself would stay beside the training
    check_fits(measured, batches.work, start.section, what="training")
    estimate = Estimate.of(measured, batches.work)
    say(f"  {estimate.describe()}")
    write_json(kept, estimate.as_dict())
