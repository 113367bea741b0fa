"""The one training loop: tuning, control and distillation differ only in rows, objectives and signals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from slmops.data.label_template import LabelTemplate
from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.errors import ConfigError, TrainingError
from slmops.files import read_json, write_json
from slmops.models.bottleneck import Bottleneck, own_weights
from slmops.progress import progress, say
from slmops.sections import TrainingSection
from slmops.training.batches import PlannedBatches, only_item, plan_batches, steps_of
from slmops.training.checkpoints import checkpoint_at, keep_newest, load_best, mark_complete, newest_checkpoint, step_of
from slmops.training.forward import total_loss
from slmops.training.gradients import clip, rows_of_embedding
from slmops.training.inputs import Signals, encode_rows, encode_validation, open_student, signals_of
from slmops.training.machine import autocast_type, keep_freed_memory, same_sums
from slmops.training.matching import LayerLosses, RowLayers
from slmops.training.objectives import WeightedSum
from slmops.training.objectives.contrastive import Contrastive
from slmops.training.on_policy import OwnSamples, Scorer, Updates
from slmops.training.pairs import Pair, PairLoss, WithPairs, among, describe, pairs_of
from slmops.training.parallel import DataParallel
from slmops.training.processes import Team, by_all, counting
from slmops.training.projection import Projection
from slmops.training.rehearsal import try_own_losses
from slmops.training.reports import Reports
from slmops.training.row_pairs import row_pairs
from slmops.training.saving import save_student
from slmops.training.watching import Watch, Watcher, curve_of, lowest_of, rates_of

_BEFORE = "before.json"
"""The validation loss before the first update."""

_SINCE = "since_report.json"
"""The sum of the losses since the last report, and the update of that."""


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
        trainer = _Trainer(
            model=model,
            args=_arguments(work, steps, section, seed),
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


class _Trainer(Trainer):  # type: ignore[misc,unused-ignore]  # a class without types to mypy
    """transformers' Trainer with our loss, batches planned ahead, and checkpoints that are marked when complete."""

    def __init__(
        self,
        *,
        objective: WeightedSum,
        projection: Projection | None,
        on_layers: LayerLosses | None,
        on_pairs: PairLoss | None,
        own: OwnSamples | None,
        parallel: DataParallel | None,
        reports: Reports | None,
        keep_checkpoints: int,
        team: Team,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._reports, self._keep_checkpoints, self._team = reports, keep_checkpoints, team
        if team.size > 1:
            torch.manual_seed(self.args.seed + team.rank)  # each process drops its own
            team.start_alike(self.model)
            if not team.sharded:  # gradients are added here
                self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        self._objective, self._projection, self._parallel = objective, projection, parallel
        self._on_layers, self._on_pairs, self._own = on_layers, on_pairs, own
        self._reported: tuple[float, int] | None = None
        # Our loss is a sum over answer tokens divided by their number in the whole accumulated batch.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
        if self._team.size == 1:
            return super().get_train_dataloader()
        # accelerate would give each process batches of its own.
        return torch.utils.data.DataLoader(
            self.train_dataset, sampler=self._get_train_sampler(), batch_size=1, collate_fn=self.data_collator
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        # The loader is a batch ahead; here the update before is done, so samples are those of the student as it is.
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._own is None or self.state.global_step not in self._own.updates:
            return [self._team.share(batch) for batch in batches], count
        # What the loader gave has no rows here, only the pairs of texts beside them.
        own = self._own.batches(self.state.global_step, self.model)
        batches = [{**beside, **rows} for beside, rows in zip(batches, own, strict=True)]
        return batches, self._get_num_items_in_batch(batches, device)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, torch.Tensor]], device: torch.device) -> Any:
        if not all("shift_labels" in batch for batch in batch_samples):  # left out, to be replaced by own samples
            return None
        # transformers counts only where a batch has "labels", and then counts "shift_labels".
        return super()._get_num_items_in_batch([{**batch, "labels": batch["shift_labels"]} for batch in batch_samples], device)

    def training_step(
        self, model: Any, inputs: dict[str, torch.Tensor], num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        if self._reported is not None:  # the trainer begins a resumed run as if its losses had just been reported
            (since, self._globalstep_last_logged), self._reported = self._reported, None
            self._tr_loss += since
        if self._reports is not None:
            self._reports.read(inputs)
        loss: torch.Tensor
        if self._parallel is None or not self._parallel.splits(inputs):
            loss = super().training_step(model, inputs, num_items_in_batch)
        else:
            model.train()
            loss = self._parallel.backward(
                inputs, lambda one, projection, part: self._share(one, projection, part, num_items_in_batch)
            )
        if self.accelerator.sync_gradients:  # the last batch of an update
            self._team.average_gradients(self.model)
        return loss

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        projection = self._projection if model is self.model else None  # one that is spread over devices is called as a whole
        # Divided by the number of pairs of the whole accumulated batch already.
        with self.accelerator.autocast():
            of_pairs = self._on_pairs(inputs, done=self._done) if self._on_pairs is not None else 0.0
        return self._share(model, projection, inputs, num_items_in_batch) + of_pairs

    @property
    def _done(self) -> float:
        """Share of the updates; their number comes back with a checkpoint, and does not count the batches of one update."""
        return float(self.state.global_step / self.state.max_steps)

    def _share(self, model: Any, projection: Projection | None, batch: Mapping[str, torch.Tensor], count: Any) -> torch.Tensor:
        """What the losses on some rows' tokens and layers add to that of an update with so many answer tokens."""
        sampled = self._own is not None and self.state.global_step in self._own.updates
        loss = partial(self._own.objective if self._own is not None and sampled else self._objective, done=self._done)
        with self.accelerator.autocast():
            # Of own samples the teacher's layers are not kept.
            total = total_loss(model, batch, loss, projection, None if sampled else self._on_layers, self._done)
        # Losses and gradients of the processes are averaged, where they are added.
        return total * counting(batch) / count * self._team.size

    def _maybe_log_save_evaluate(self, tr_loss: torch.Tensor, grad_norm: Any, model: Any, *more: Any, **options: Any) -> None:
        if self._reports is not None and (self.control.should_log or self._reports.is_due(self.state.global_step)):
            total = float(self.accelerator.gather(tr_loss).mean())  # over all processes, as the trainer does
            rate = options.get("learning_rate") or self._get_learning_rate()
            at = self.state.global_step
            self._reports.see(at, total, grad_norm=grad_norm, learning_rate=rate, resets=self.control.should_log)
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, *more, **options)
        self._tell()

    def _tell(self) -> None:
        if self._reports is not None:
            self._reports.tell(self.args, self.state, self.control, self.model)

    def _clip_grad_norm(self, model: Any) -> Any:
        if self._team.sharded or model is not self.model or any(parameter.device.type != "cpu" for parameter in model.parameters()):
            return super()._clip_grad_norm(model)
        return clip(model.parameters(), self.args.max_grad_norm)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        if any(isinstance(module, Bottleneck) for module in self.model.modules()):
            state_dict = own_weights(self.model)  # what is frozen comes from the base again
        super()._save(output_dir, state_dict)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._tell()  # from this checkpoint on nobody would be told of the updates before
        super()._save_checkpoint(model, trial)
        (since,) = self._team.summed(float(self._tr_loss))  # all have written what is theirs
        if not self._team.leads:
            return
        folder = checkpoint_at(Path(self.args.output_dir), self.state.global_step)
        if self._own is not None:
            self._own.save(folder)
        if self._on_layers is not None:
            self._on_layers.save(folder)
        if self._reports is not None:
            self._reports.save(folder)
        write_json(folder / _SINCE, [since / self._team.size, self._globalstep_last_logged])
        mark_complete(folder)
        keep_newest(folder.parent, self._keep_checkpoints)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._reported = tuple(read_json(Path(resume_from_checkpoint) / _SINCE))
        if self._on_layers is not None:  # an adapter's checkpoint has nothing but the adapter
            self._on_layers.load(Path(resume_from_checkpoint))


def _arguments(work: Path, steps: int, section: TrainingSection, seed: int) -> TrainingArguments:
    amount = autocast_type(section.precision)
    return TrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        average_tokens_across_devices=False,  # each process sees, and counts, whole batches
        per_device_train_batch_size=1,
        gradient_accumulation_steps=section.gradient_accumulation_steps,
        learning_rate=section.learning_rate,
        lr_scheduler_type=section.lr_scheduler_type,
        warmup_steps=int(steps * section.warmup_share) if section.warmup_steps is None else section.warmup_steps,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=amount is torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        data_seed=seed,
        save_strategy="no",
        gradient_checkpointing=section.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
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
