"""The one training loop: tuning, control and distillation differ only in rows, objectives and signals."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from slmops.config import TrainingSection
from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.errors import TrainingError
from slmops.files import write_json
from slmops.models.load import load_model
from slmops.progress import Advance, progress
from slmops.signals.distribution import Distribution
from slmops.signals.tensors import from_batch
from slmops.signals.topk import TopK
from slmops.training.batches import PlannedBatches, collate, only_item, plan_batches, steps_of
from slmops.training.forward import losses_of, total_loss
from slmops.training.machine import autocast_type, keep_freed_memory, same_sums
from slmops.training.matching import LayerLosses, RowLayers
from slmops.training.objectives import CrossEntropy, WeightedSum
from slmops.training.projection import Projection

Watch = Callable[[float, float], None]
"""Is told the share of the updates that are done and the validation loss, about eight times a run."""

_COMPLETE = "complete"
_CURVE_POINTS = 8
_VALIDATION_BATCH = 32


@dataclass(frozen=True)
class Trained:
    """Facts of a finished run: updates, answer tokens trained on, seconds of this process, loss curve, rows set aside."""

    steps: int
    answer_tokens: int
    seconds: float
    curve: list[dict[str, float | None]]
    too_long: int


class Signals(Protocol):
    """A teacher's distributions by row."""

    def get(self, row: Row) -> Distribution:
        """The one at the answer tokens of a row."""


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
    watch: Watch | None = None,
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
        validation: Rows for the validation loss, all with answers.
        section: Objectives and hyperparameters.
        seed: Of batches, dropout and new weights.
        what: Name of the run, for progress.
        signals: Teacher's distributions of the rows, where an objective needs them.
        layers: What is kept of the teacher's layers, where an objective is about these.
        watch: Is told each validation loss; what it raises ends the training.

    Raises:
        TrainingError: Nothing to train on, or the loss is not finite.
        ConfigError: An objective is not defined for signals of this form, or a loss of the user's own does not work.
        FingerprintError: A row has no signal.
    """
    keep_freed_memory()
    objective = WeightedSum.of(section.objectives)
    kept, encoded = _encode(rows, template, section.max_length)
    if not encoded:
        raise TrainingError(
            "no row is left to train on", where=what, fix=f"raise max_length (now {section.max_length}) or check the data"
        )
    pad_id = int(template.tokenizer.eos_token_id)
    row_signals = _signals_of(kept, encoded, signals, objective, pad_id) if objective.needs_signal else None
    steps = section.max_steps or steps_of(len(kept), section.batch_size, section.gradient_accumulation_steps, section.epochs)
    plan = plan_batches(
        [len(row.input_ids) for row in encoded], section.batch_size, seed, count=steps * section.gradient_accumulation_steps
    )

    set_seed(seed)
    model = load_model(base, dtype="float32", attention="eager")
    if section.lora is not None:
        model = _with_lora(model, section)
    if section.freeze_embeddings:
        model.get_input_embeddings().weight.requires_grad_(False)
    projection = Projection.of(model)
    on_layers = _on_layers(model, objective, layers, kept, encoded, pad_id=pad_id, seed=seed) if objective.on_layers else None
    checked = [template.encode(row) for row in validation]
    checkpoint = _newest_checkpoint(work)
    started = time.monotonic()
    with same_sums(), progress(what, steps, "updates", done=_step_of(checkpoint)) as advance:
        watcher = _Watcher(advance, steps, section, checked, pad_id, projection, watch)
        trainer = _Trainer(
            model=model,
            args=_arguments(work, steps, section, seed),
            train_dataset=PlannedBatches(plan, encoded, pad_id, row_signals, on_layers.rows if on_layers else None),
            data_collator=only_item,
            objective=objective,
            projection=projection,
            on_layers=on_layers,
            callbacks=[watcher],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if on_layers is not None:
        on_layers.leave(model)
    final = model.merge_and_unload() if section.lora is not None else model
    final.to(torch.float32).save_pretrained(target)
    template.save(target)
    return Trained(
        steps=steps,
        answer_tokens=sum(len(encoded[row].answer_ids) for batch in plan for row in batch),
        seconds=round(time.monotonic() - started, 1),
        curve=_curve(trainer.state),
        too_long=len(rows) - len(kept),
    )


class _Trainer(Trainer):  # type: ignore[misc,unused-ignore]  # a class without types to mypy
    """transformers' Trainer with our loss, batches planned ahead, and checkpoints that are marked when complete."""

    def __init__(
        self, *, objective: WeightedSum, projection: Projection | None, on_layers: LayerLosses | None, **options: Any
    ) -> None:
        super().__init__(**options)
        self._objective, self._projection, self._on_layers = objective, projection, on_layers
        # Our loss is a sum over answer tokens divided by their number in the whole accumulated batch.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, torch.Tensor]], device: torch.device) -> Any:
        # transformers counts only where a batch has "labels", and then counts "shift_labels".
        return super()._get_num_items_in_batch([{**batch, "labels": batch["shift_labels"]} for batch in batch_samples], device)

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        # The number of updates comes back with a checkpoint, and does not count the batches of one update.
        done = self.state.global_step / self.state.max_steps
        loss = partial(self._objective, done=done)
        projection = self._projection if model is self.model else None  # one that is spread over devices is called as a whole
        with self.accelerator.autocast():
            total = total_loss(model, inputs, loss, projection, self._on_layers, done)
        return total / num_items_in_batch * self.accelerator.num_processes

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self._on_layers is not None:
            self._on_layers.save(folder)
        write_json(folder / _COMPLETE, {"step": self.state.global_step})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._on_layers is not None:  # an adapter's checkpoint has nothing but the adapter
            self._on_layers.load(Path(resume_from_checkpoint))


class _Watcher(TrainerCallback):  # type: ignore[misc,unused-ignore]  # the same
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
    ) -> None:
        self._advance, self._watch = advance, watch
        self._every = max(1, steps // _CURVE_POINTS)
        self._checkpoint_seconds = section.checkpoint_seconds
        self._dtype = autocast_type(section.precision)
        self._validation, self._pad_id, self._projection = validation, pad_id, projection
        self._last_save = time.monotonic()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        self._advance(1)
        if time.monotonic() - self._last_save >= self._checkpoint_seconds and state.global_step < state.max_steps:
            control.should_save = True
            self._last_save = time.monotonic()
        control.should_log = state.global_step % self._every == 0 or state.global_step == state.max_steps
        return control

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        entry = state.log_history[-1]
        loss = entry.get("loss")
        if loss is None:
            return
        if loss != loss or abs(loss) == float("inf"):
            raise TrainingError(f"the loss is {loss} at update {state.global_step}", fix="lower learning_rate")
        if self._validation:
            entry["validation"] = self._validation_loss(kwargs["model"])
            if self._watch is not None:
                self._watch(state.global_step / state.max_steps, entry["validation"])

    def _validation_loss(self, model: Any) -> float:
        """Mean cross-entropy of the answers' tokens, in nats."""
        was_training = model.training
        model.eval()
        total, count = 0.0, 0
        with torch.no_grad(), torch.autocast(model.device.type, dtype=self._dtype, enabled=self._dtype is not None):
            for start in range(0, len(self._validation), _VALIDATION_BATCH):
                batch = collate(self._validation[start : start + _VALIDATION_BATCH], self._pad_id)
                losses = losses_of(model, batch, CrossEntropy(), self._projection)
                total += float(losses.sum())
                count += losses.numel()
        model.train(was_training)
        return total / count


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


def _encode(rows: Sequence[Row], template: Template, max_length: int) -> tuple[list[Row], list[Encoded]]:
    pairs = [(row, template.encode(row)) for row in rows]
    fitting = [(row, encoded) for row, encoded in pairs if len(encoded.input_ids) <= max_length]
    return [row for row, _ in fitting], [encoded for _, encoded in fitting]


def _signals_of(
    rows: Sequence[Row], encoded: Sequence[Encoded], store: Signals | None, objective: WeightedSum, pad_id: int
) -> list[Distribution]:
    """The signals of rows; those of another tokenizer are fitted to the student's tokens, position by position."""
    if store is None:
        raise TrainingError("an objective needs the teacher's signals and there are none", fix="use cross_entropy alone")
    signals = [store.get(row) for row in rows]
    objective.check(from_batch(collate(encoded[:1], pad_id, signals[:1])))
    if objective.across_tokenizers:
        whole = [signal for signal in signals if isinstance(signal, TopK)]  # the check lets no other form pass
        return [signal.fitted(len(own.answer_ids)) for own, signal in zip(encoded, whole, strict=True)]
    for row, own, signal in zip(rows, encoded, signals, strict=True):
        if len(signal) != len(own.answer_ids):
            raise TrainingError(
                f"{len(signal)} signal positions for {len(own.answer_ids)} answer tokens",
                where=row.origin,
                fix="teacher and student tokenize differently: use uld, or objectives without signals",
            )
    return signals


def _on_layers(model: Any, objective: WeightedSum, layers: RowLayers | None, *values: Any, **options: Any) -> LayerLosses:
    if layers is None:
        names = " and ".join(term.name for term in objective.on_layers)
        raise TrainingError(f"{names} needs the teacher's layers and there are none", fix="use losses on tokens alone")
    return LayerLosses.of(model, objective, layers, *values, **options)


def _with_lora(model: Any, section: TrainingSection) -> Any:
    from peft import LoraConfig, get_peft_model

    assert section.lora is not None
    config = LoraConfig(
        task_type="CAUSAL_LM",
        target_modules="all-linear",
        r=section.lora.r,
        lora_alpha=section.lora.alpha,
        lora_dropout=section.lora.dropout,
    )
    return get_peft_model(model, config)


def _newest_checkpoint(work: Path) -> Path | None:
    """The newest complete checkpoint; half-written ones are removed."""
    if not work.is_dir():
        return None
    complete = []
    for folder in work.glob("checkpoint-*"):
        if (folder / _COMPLETE).is_file():
            complete.append(folder)
        else:
            shutil.rmtree(folder)
    return max(complete, key=_step_of, default=None)


def _step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def _curve(state: TrainerState) -> list[dict[str, float | None]]:
    return [
        {"step": entry["step"], "loss": entry["loss"], "validation": entry.get("validation")}
        for entry in state.log_history
        if "loss" in entry
    ]
