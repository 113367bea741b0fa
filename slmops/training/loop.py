"""The one training loop: tuning, control and distillation differ only in rows, objectives and signals."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.errors import ConfigError, TrainingError
from slmops.files import read_json, write_json
from slmops.models.adapter import Adapter, merge_adapter
from slmops.progress import progress, say
from slmops.sections import TrainingSection
from slmops.training.batches import PlannedBatches, only_item, plan_batches, steps_of
from slmops.training.checkpoints import checkpoint_at, load_best, mark_complete, newest_checkpoint, save_best, step_of
from slmops.training.forward import total_loss
from slmops.training.gradients import clip, rows_of_embedding
from slmops.training.inputs import Signals, encode_rows, open_student, signals_of
from slmops.training.machine import autocast_type, keep_freed_memory, same_sums
from slmops.training.matching import LayerLosses, RowLayers
from slmops.training.objectives import WeightedSum
from slmops.training.on_policy import OwnSamples, Scorer, Updates
from slmops.training.pairs import PairLoss, WithPairs, describe, pairs_of
from slmops.training.parallel import DataParallel
from slmops.training.projection import Projection
from slmops.training.watching import Watch, Watcher, curve_of, looked_at, lowest_of

_SINCE = "since_report.json"
"""The sum of the losses since the last report, and the update of that."""


@dataclass(frozen=True)
class Trained:
    """Facts of a finished run: updates, made and planned, answer tokens, seconds of this process, loss curve, rows set aside.

    ``on_policy`` has those of the student's own samples (:attr:`slmops.training.on_policy.OwnSamples.facts`), where it
    learned from such; ``kept`` is the update whose weights were kept, where that was the one with the lowest validation loss.
    """

    steps: int
    planned: int
    answer_tokens: int
    seconds: float
    curve: list[dict[str, float | None]]
    too_long: int
    on_policy: dict[str, float] | None = None
    kept: int | None = None


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
) -> Trained:
    """Train a causal language model on rows with answers and save it to ``target`` (Hugging Face layout, float32).

    Interrupted at any point and called again with the same arguments it goes on from the newest complete checkpoint in
    ``work``; on a CPU with as many threads the weights are then byte for byte those of an uninterrupted run.

    Args:
        base: Folder of the model to start from.
        target: Folder for the result.
        work: Folder for checkpoints; removed by the caller when the stage completed.
        template: Renders and masks rows.
        rows: Training rows, all with answers.
        validation: Rows for the validation loss, all with answers; of many an even part is looked at.
        section: Objectives and hyperparameters.
        seed: Of batches, dropout and new weights.
        what: Name of the run, for progress.
        signals: Teacher's distributions of the rows, where an objective needs them.
        layers: What is kept of the teacher's layers, where an objective is about these.
        scorer: The teacher of an on-policy training.
        watch: Is told each validation loss; what it raises ends the training.
        adapter_alone: Save the adapter as PEFT does, and not the model that it makes of the base.

    Raises:
        TrainingError: Nothing to train on, or the loss is not finite.
        ConfigError: An objective is not defined for signals of this form, or a loss of the user's own does not work; the
            student's own samples have no teacher, or no objective that compares with it.
        FingerprintError: A row has no signal.
    """
    keep_freed_memory()
    objective = WeightedSum.of(section.objectives)
    kept, encoded = encode_rows(rows, template, section.max_length)
    if not encoded:
        raise TrainingError(
            "no row is left to train on", where=what, fix=f"raise max_length (now {section.max_length}) or check the data"
        )
    pad_id = int(template.tokenizer.eos_token_id)
    pairs = pairs_of(kept, template, objective.on_pairs[1], section.max_length) if objective.on_pairs else None
    if pairs is not None:
        say(describe(pairs))
    steps = section.max_steps or steps_of(len(kept), section.batch_size, section.gradient_accumulation_steps, section.epochs)
    plan = plan_batches(
        [len(row.input_ids) for row in encoded], section.batch_size, seed, count=steps * section.gradient_accumulation_steps
    )
    updates = Updates(plan, section.gradient_accumulation_steps, kept, encoded, template.tokenizer, section.max_length, seed)
    own = _own_samples(section, updates, objective, scorer)
    cached = objective.needs_signal and (own is None or len(own.updates) < steps)
    row_signals = signals_of(kept, encoded, signals, objective, pad_id) if cached else None

    set_seed(seed)
    model = open_student(base, section)
    projection = Projection.of(model)
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
        batches = WithPairs(batches, plan, pairs, section.gradient_accumulation_steps, pad_id)
    checked = [template.encode(row) for row in looked_at(validation, steps, section)]
    checkpoint = newest_checkpoint(work)
    if own is not None and checkpoint is not None:
        own.load(checkpoint)
    started = time.monotonic()
    note = own.describe if own is not None else None
    # What looks at layers or at pairs sees one model and all rows.
    is_split = on_layers is None and pairs is None
    threads = DataParallel.of(model, projection, autocast_type(section.precision))
    with (
        same_sums(),
        threads if is_split else nullcontext() as parallel,
        rows_of_embedding(model),
        progress(what, steps, "updates", done=step_of(checkpoint), note=note) as advance,
    ):
        keep = partial(save_best, work) if section.keep == "best" else None
        watcher = Watcher(advance, steps, section, checked, pad_id, projection, watch, keep)
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
            callbacks=[watcher],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    lowest = lowest_of(trainer.state) if section.keep == "best" else None
    if lowest is not None:
        load_best(work, model)
    if on_layers is not None:
        on_layers.leave(model)
    if section.lora is not None and section.lora.bits is not None and not adapter_alone:
        # Merged into the weights as they were before they were packed.
        model.save_pretrained(work / "adapter")
        merge_adapter(Adapter.read(work / "adapter"), base, target)
    elif adapter_alone:
        model.save_pretrained(target)  # float32 as it is, whatever its base lies in
    else:
        final = model.merge_and_unload() if section.lora is not None else model
        final.to(torch.float32).save_pretrained(target)
    template.save(target)
    done = int(trainer.state.global_step)
    return Trained(
        steps=done,
        planned=steps,
        answer_tokens=_answer_tokens(plan[: done * section.gradient_accumulation_steps], encoded, own),
        seconds=round(time.monotonic() - started, 1),
        curve=curve_of(trainer.state),
        too_long=len(rows) - len(kept),
        on_policy=own.facts if own is not None else None,
        kept=lowest,
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
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._objective, self._projection, self._parallel = objective, projection, parallel
        self._on_layers, self._on_pairs, self._own = on_layers, on_pairs, own
        self._reported: tuple[float, int] | None = None
        # Our loss is a sum over answer tokens divided by their number in the whole accumulated batch.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        # The loader is a batch ahead; here the update before is done, so samples are those of the student as it is.
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._own is None or self.state.global_step not in self._own.updates:
            return batches, count
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
        if self._parallel is None or not self._parallel.splits(inputs):
            step: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
            return step
        model.train()
        return self._parallel.backward(inputs, lambda one, projection, part: self._share(one, projection, part, num_items_in_batch))

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
        return total / count * self.accelerator.num_processes

    def _clip_grad_norm(self, model: Any) -> Any:
        if model is not self.model or any(parameter.device.type != "cpu" for parameter in model.parameters()):
            return super()._clip_grad_norm(model)
        return clip(model.parameters(), self.args.max_grad_norm)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = checkpoint_at(Path(self.args.output_dir), self.state.global_step)
        if self._own is not None:
            self._own.save(folder)
        if self._on_layers is not None:
            self._on_layers.save(folder)
        write_json(folder / _SINCE, [float(self._tr_loss), self._globalstep_last_logged])
        mark_complete(folder)

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
        per_device_train_batch_size=1,
        gradient_accumulation_steps=section.gradient_accumulation_steps,
        learning_rate=section.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=int(steps * section.warmup_share),
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=amount is torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        data_seed=seed,
        save_strategy="no",
        save_total_limit=2,
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


def _own_samples(section: TrainingSection, updates: Updates, objective: WeightedSum, scorer: Scorer | None) -> OwnSamples | None:
    if section.on_policy is None:
        return None
    if scorer is None:
        raise ConfigError(
            "there is no teacher that could score the student's own samples", where="training.on_policy", fix="leave it out"
        )
    return OwnSamples(section.on_policy, updates, objective, scorer, autocast_type(section.precision))


def _answer_tokens(plan: Sequence[Sequence[int]], encoded: Sequence[Encoded], own: OwnSamples | None) -> int:
    """Tokens that were trained on, those of own samples among them."""
    left_out = own.places if own is not None else ()
    given = sum(len(encoded[row].answer_ids) for place, batch in enumerate(plan) if place not in left_out for row in batch)
    return given + int(own.facts["tokens"] if own is not None else 0)
