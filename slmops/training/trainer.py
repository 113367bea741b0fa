"""The trainer of the loop: transformers' with our loss, batches planned ahead, and checkpoints that are marked when complete."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from slmops.files import read_json, write_json
from slmops.models.bottleneck import Bottleneck, own_weights
from slmops.sections import TrainingSection
from slmops.training.checkpoints import checkpoint_at, keep_newest, mark_complete
from slmops.training.forward import total_loss
from slmops.training.gradients import clip
from slmops.training.machine import autocast_type
from slmops.training.matching import LayerLosses
from slmops.training.objectives import WeightedSum
from slmops.training.on_policy import OwnSamples
from slmops.training.pairs import PairLoss
from slmops.training.parallel import DataParallel
from slmops.training.processes import Team, counting
from slmops.training.projection import Projection
from slmops.training.reports import Reports

_SINCE = "since_report.json"
"""The sum of the losses since the last report, and the update of that."""


class PlannedTrainer(Trainer):  # type: ignore[misc,unused-ignore]  # a class without types to mypy
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
        """The planned batches; all of them in every process."""
        if self._team.size == 1:
            return super().get_train_dataloader()
        # accelerate would give each process batches of its own.
        return torch.utils.data.DataLoader(
            self.train_dataset, sampler=self._get_train_sampler(), batch_size=1, collate_fn=self.data_collator
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The batches of an update, and the number of answer tokens in them."""
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
        """Add the gradients of a batch; its share of the update's loss."""
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
        """The share of a batch in the update's loss."""
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
        """Nobody asks for them."""
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


def arguments(work: Path, steps: int, section: TrainingSection, seed: int) -> TrainingArguments:
    """Those of a training, as transformers calls them; batches, checkpoints and looks are ours.

    Args:
        work: Folder for checkpoints.
        steps: Updates.
        section: Hyperparameters.
        seed: Of dropout and data.
    """
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
