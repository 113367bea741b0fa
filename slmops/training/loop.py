"""The one training loop: tuning, control and distillation differ only in rows, objectives and signals."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.trainer_callback import PrinterCallback

from slmops.data.label_template import LabelTemplate
from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.errors import ConfigError, TrainingError
from slmops.files import read_json, write_json
from slmops.progress import progress, say
from slmops.sections import TrainingSection
from slmops.training.batches import PlannedBatches, only_item, plan_batches, steps_of
from slmops.training.checkpoints import load_best, newest_checkpoint, step_of
from slmops.training.gradients import rows_of_embedding
from slmops.training.inputs import Signals, encode_rows, encode_validation, open_student, signals_of
from slmops.training.machine import autocast_type, keep_freed_memory, same_sums
from slmops.training.matching import LayerLosses, RowLayers
from slmops.training.objectives import WeightedSum
from slmops.training.objectives.contrastive import Contrastive
from slmops.training.on_policy import OwnSamples, Scorer, Updates
from slmops.training.pairs import Pair, PairLoss, WithPairs, among, describe, pairs_of
from slmops.training.parallel import DataParallel
from slmops.training.processes import Team, by_all
from slmops.training.projection import Projection
from slmops.training.rehearsal import try_own_losses
from slmops.training.reports import Reports
from slmops.training.row_pairs import row_pairs
from slmops.training.saving import save_student
from slmops.training.trainer import PlannedTrainer, arguments
from slmops.training.watching import Watch, Watcher, curve_of, lowest_of, rates_of

_BEFORE = "before.json"
"""The validation loss before the first update."""


@dataclass(frozen=True)
class Trained:
    """Facts of a finished run: updates, made and planned, answer tokens, seconds of this process, loss curve, rows set aside.

    ``rates`` are the learning rates after the updates of the curve; ``on_policy`` has the facts of the student's own samples
    (:attr:`slmops.training.on_policy.OwnSamples.facts`), where it learned from such; ``kept`` is the update whose weights were
    kept, where that was the one with the lowest validation loss; ``texts`` has the ``blocks`` that texts became, their ``tokens``,
    and the validation loss ``before`` the first update.
    """

    steps: int
    planned: int
    answer_tokens: int
    seconds: float
    curve: list[dict[str, float | None]]
    too_long: int
    rates: list[float]
    on_policy: dict[str, float] | None = None
    kept: int | None = None
    texts: dict[str, float] | None = None


@by_all
def train(
    base: Path,
    target: Path,
    work: Path,
    *,
    template: Template,
    rows: Sequence[Row],
    validation: Sequence[Row],
    section: TrainingSection,
    seed: int,
    what: str,
    signals: Signals | None = None,
    layers: RowLayers | None = None,
    scorer: Scorer | None = None,
    watch: Watch | None = None,
    adapter_alone: bool = False,
    logs: Path | None = None,
    adapter: Path | None = None,
) -> Trained:
    """Train a causal language model on rows with answers and save it to ``target`` (Hugging Face layout, float32).

    Interrupted at any point and called again with the same arguments it goes on from the newest complete checkpoint in
    ``work``; on a CPU with as many threads the weights are then byte for byte those of an uninterrupted run.

    Args:
        base: Folder of the model to start from.
        target: Folder for the result.
        work: Folder for checkpoints; removed by the caller when the stage completed.
        template: Renders and masks rows; one of labels trains a model with a classification head.
        rows: Training rows, all with answers.
        validation: Rows for the validation loss, all with answers; of many an even part is looked at.
        section: Objectives and hyperparameters.
        seed: Of batches, dropout and new weights.
        what: Name of the run, for progress.
        signals: Teacher's distributions of the rows, where an objective needs them.
        layers: What is kept of the teacher's layers, where an objective is about these.
        scorer: The teacher of an on-policy training.
        watch: Is told each validation loss; what it raises ends the training.
        adapter_alone: Save the adapter, and not the model that it makes of the base.
        logs: Folder for the files of the reports that the section asks for; without one there are none.
        adapter: Folder of an adapter that is trained on; absent: a new one, where the section has one.

    Raises:
        TrainingError: Nothing to train on, or the loss is not finite.
        ConfigError: An objective is not defined for signals of this form, or a loss of the user's own does not work; the
            student's own samples have no teacher, or no objective that compares with it.
        FingerprintError: A row has no signal.
    """
    team = Team.here()
    team.check(section)
    keep_freed_memory()
    objective = WeightedSum.of(section.objectives)
    kept, encoded = encode_rows(rows, template, section.max_length)
    of_texts = template.trained_on == "text"
    if not encoded:
        raise TrainingError(
            "no row is left to train on", where=what, fix=f"raise max_length (now {section.max_length}) or check the data"
        )
    pad_id = int(template.tokenizer.eos_token_id)
    steps = section.max_steps or steps_of(len(kept), section.batch_size, section.gradient_accumulation_steps, section.epochs)
    plan = plan_batches(
        [len(row.input_ids) for row in encoded], section.batch_size, seed, count=steps * section.gradient_accumulation_steps
    )
    pairs = _pairs(objective, plan, kept, encoded, template, section, seed)
    updates = Updates(plan, section.gradient_accumulation_steps, kept, encoded, template.tokenizer, section.max_length, seed)
    own = _own_samples(section, updates, objective, scorer)
    cached = objective.needs_signal and (own is None or len(own.updates) < steps)
    row_signals = signals_of(kept, encoded, signals, objective, pad_id) if cached else None

    set_seed(seed)
    labels = template.labels if isinstance(template, LabelTemplate) else None
    model = open_student(base, section, template.added, adapter, labels)
    projection = None if team.sharded else Projection.of(model)
    if projection is not None and section.gradient_checkpointing:
        # Layers are run again in the backward pass, when nothing says any more which positions count.
        projection = projection.whole
    on_layers = _on_layers(model, objective, layers, kept, encoded, pad_id=pad_id, seed=seed) if objective.on_layers else None
    batches: torch.utils.data.Dataset[dict[str, torch.Tensor]] = PlannedBatches(
        plan,
        encoded,
        pad_id,
        row_signals,
        left_out=own.places if own is not None else (),
        internals=on_layers.rows if on_layers is not None else None,
    )
    if pairs is not None:
        batches = WithPairs(batches, pairs, section.gradient_accumulation_steps, pad_id)
    checked = encode_validation(validation, template, steps, section)
    checkpoint = team.decided(lambda: newest_checkpoint(work))
    if own is not None and checkpoint is not None:
        own.load(checkpoint)
    started = time.monotonic()
    note = own.describe if own is not None else None
    # What looks at layers or at pairs sees one model and all rows; layers that are run again draw and autocast as the thread did.
    is_split = on_layers is None and pairs is None and not section.gradient_checkpointing and not team.sharded
    threads = DataParallel.of(model, projection, autocast_type(section.precision))
    with (
        same_sums(),
        threads if is_split else nullcontext() as parallel,
        nullcontext() if team.sharded else rows_of_embedding(model),
        progress(what, steps, "updates", done=step_of(checkpoint), note=note) as advance,
    ):
        keep = partial(team.keep, work) if section.keep == "best" else None
        watcher = Watcher(advance, steps, section, checked, pad_id, projection, watch, keep, team)
        reports = Reports.of(section, steps, logs, checkpoint, step_of(checkpoint))
        trainer = PlannedTrainer(
            model=model,
            args=arguments(work, steps, section, seed),
            train_dataset=batches,
            data_collator=only_item,
            objective=objective,
            projection=projection,
            on_layers=on_layers,
            on_pairs=PairLoss.of(objective, model),
            own=own,
            parallel=parallel,
            reports=reports,
            keep_checkpoints=section.save_total_limit,
            team=team,
            callbacks=[watcher, *([reports] if reports is not None else [])],
        )
        trainer.remove_callback(PrinterCallback)
        try_own_losses(model, objective, batches[0], projection, autocast_type(section.precision))
        look = partial(watcher.validation_loss, model) if checked else None
        texts = _text_facts(encoded, work, look, team) if of_texts else None
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    lowest = lowest_of(trainer.state) if section.keep == "best" else None
    if team.sharded:
        if lowest is None:
            team.keep(work, trainer.model)
        model = open_student(base, section, template.added, adapter, labels) if team.leads else model
    if team.leads and (lowest is not None or team.sharded):
        load_best(work, model)
    if on_layers is not None:
        on_layers.leave(model)
    if team.leads:
        save_student(model, base, target, work, section, adapter_alone=adapter_alone, widened=bool(template.added))
        template.save(target)
    done = int(trainer.state.global_step)
    return Trained(
        steps=done,
        planned=steps,
        answer_tokens=_answer_tokens(plan[: done * section.gradient_accumulation_steps], encoded, own),
        seconds=round(time.monotonic() - started, 1),
        curve=curve_of(trainer.state),
        too_long=len(rows) - len(kept) if not of_texts else 0,
        rates=rates_of(trainer.state),
        on_policy=own.facts if own is not None else None,
        kept=lowest,
        texts=texts,
    )


def _on_layers(model: Any, objective: WeightedSum, layers: RowLayers | None, *values: Any, **options: Any) -> LayerLosses:
    if layers is None:
        names = " and ".join(term.name for term in objective.on_layers)
        raise TrainingError(f"{names} needs the teacher's layers and there are none", fix="use losses on tokens alone")
    return LayerLosses.of(model, objective, layers, *values, **options)


def _pairs(
    objective: WeightedSum,
    plan: Sequence[Sequence[int]],
    rows: Sequence[Row],
    encoded: Sequence[Encoded],
    template: Template,
    section: TrainingSection,
    seed: int,
) -> list[list[Pair]] | None:
    """The pairs of each batch: texts within its rows, or rows; ``None`` without a loss on pairs."""
    if objective.on_pairs is None:
        return None
    loss = objective.on_pairs[1]
    if not isinstance(loss, Contrastive):
        return row_pairs(plan, rows, encoded, seed)
    found = pairs_of(rows, template, loss, section.max_length)
    say(describe(found))
    return among(plan, found)


def _own_samples(section: TrainingSection, updates: Updates, objective: WeightedSum, scorer: Scorer | None) -> OwnSamples | None:
    if section.on_policy is None:
        return None
    if scorer is None:
        raise ConfigError(
            "there is no teacher that could score the student's own samples", where="training.on_policy", fix="leave it out"
        )
    return OwnSamples(section.on_policy, updates, objective, scorer, autocast_type(section.precision))


def _text_facts(blocks: Sequence[Encoded], work: Path, loss: Callable[[], float] | None, team: Team) -> dict[str, float]:
    """Blocks and tokens of texts, and the loss of the model as it was, which a resumed run no longer has."""
    facts: dict[str, float] = {"blocks": len(blocks), "tokens": sum(len(block.input_ids) for block in blocks)}
    if loss is None:
        return facts
    file = work / _BEFORE
    if team.decided(file.is_file):
        return {**facts, "before": float(read_json(file))}
    before = loss()
    if team.leads:
        write_json(file, before)
    return {**facts, "before": before}


def _answer_tokens(plan: Sequence[Sequence[int]], encoded: Sequence[Encoded], own: OwnSamples | None) -> int:
    """Tokens that were trained on, those of own samples among them."""
    left_out = own.places if own is not None else ()
    given = sum(len(encoded[row].answer_ids) for place, batch in enumerate(plan) if place not in left_out for row in batch)
    return given + int(own.facts["tokens"] if own is not None else 0)
