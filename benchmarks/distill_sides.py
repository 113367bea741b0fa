"""The sides of ``distill.py``, each run in a process of its own: the signal pass, our training, TRL's, and both losses."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sides import SEED, WARM, Times, held_out, lengths, loss_by_answer, rows_of, template_of

from slmops.data.templates import Encoded, Template
from slmops.evaluation.memory import peak_mb
from slmops.files import read_json
from slmops.models.load import load_model
from slmops.sections import TrainingSection
from slmops.workspace import remove_tree

BETA = 0.5
_FINGERPRINTS = {"teacher": "of the benchmark"}


def signals(options: argparse.Namespace) -> dict[str, Any]:
    """The teacher's distributions at all answers, once."""
    from slmops.sections import SignalsSection
    from slmops.signals.forms import form_of
    from slmops.signals.store import write_signals
    from slmops.teachers.local import LocalTeacher
    from slmops.teachers.signals import signal_rows

    teacher = model_of(options, "ours", "teacher")
    template, rows = template_of(teacher), rows_of(options.output_path, options.rows)
    loaded = LocalTeacher.load(teacher, template, "auto")
    work, folder = options.output_path / "work", options.output_path / "signals"
    remove_tree(work)
    started = time.monotonic()
    found = signal_rows(loaded, rows, template, form_of(SignalsSection(k=options.k)), chunk_rows=64, work=work)
    write_signals(folder, found, _FINGERPRINTS)
    return {"seconds": time.monotonic() - started, "tokens": sum(lengths(template, rows)), "peak_mb": peak_mb()}


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """Training from the signals."""
    from slmops.training import loop
    from slmops.training.batches import plan_batches

    student, rows = model_of(options, "ours", "student"), rows_of(options.output_path, options.rows)
    template, steps = template_of(student), options.steps + WARM
    section = TrainingSection(
        objectives=({"name": "jsd", "beta": BETA},),
        learning_rate=5e-4,
        max_steps=steps,
        batch_size=options.batch_size,
        freeze_embeddings=not options.train_embeddings,
        checkpoint_seconds=1e9,
    )
    times = Times()
    work, target = options.output_path / "training", options.output_path / "trained-ours"
    remove_tree(work)
    loop.progress = times.as_progress  # the only door through which an update is seen from outside
    loop.train(
        student,
        target,
        work,
        template=template,
        rows=rows,
        validation=[],
        section=section,
        seed=SEED,
        what="ours",
        signals=fitting(options, template),
    )
    known = lengths(template, rows)
    plan = plan_batches(known, options.batch_size, SEED, count=steps)
    return times.rates([sum(known[row] for row in batch) for batch in plan]) | {
        "peak_mb": peak_mb(),
        "held_out": held_out_loss(options, "ours"),
        **shares([template.encode(row) for row in rows], plan),
    }


def shares(rows: Sequence[Encoded], plan: Sequence[Sequence[int]]) -> dict[str, float]:
    """Tokens that the batches' halves have as trees and as padded rows, over the rows' own."""
    from slmops.training.batches import collate
    from slmops.training.cores import THREADS, bounds_of
    from slmops.training.tree import Tree

    real = nodes = padded_rows = 0
    for batch in plan:
        for first, after in bounds_of(len(batch), THREADS):
            part = collate([rows[row] for row in batch[first:after]], 0)
            real += int(part["attention_mask"].sum())
            nodes += len(Tree.of(part).owners)
            padded_rows += part["input_ids"].numel()
    return {"computed": nodes / real, "computed_padded": padded_rows / real}


def trl(options: argparse.Namespace) -> dict[str, Any]:
    """TRL's GKD trainer on the same rows, tokenized beforehand."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    from slmops.training.machine import autocast_type, keep_freed_memory

    keep_freed_memory()
    folder, teacher = model_of(options, "whole", "student"), model_of(options, "whole", "teacher")
    template = template_of(folder)
    encoded = [template.encode(row) for row in rows_of(options.output_path, options.rows)]
    times, seen = Times(), []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.note()

    student = load_model(folder, dtype="float32")
    if not options.train_embeddings:
        student.get_input_embeddings().weight.requires_grad_(False)
    bfloat16 = autocast_type("auto") is not None
    config = GKDConfig(
        output_dir=str(options.output_path / "trl"),
        max_steps=options.steps + WARM,
        per_device_train_batch_size=options.batch_size,
        learning_rate=5e-4,
        warmup_steps=int(0.1 * (options.steps + WARM)),
        lr_scheduler_type="cosine",
        bf16=bfloat16,
        use_cpu=True,
        lmbda=0.0,
        beta=BETA,
        temperature=1.0,
        seed=SEED,
        save_strategy="no",
        report_to=[],
        gradient_checkpointing=False,
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = GKDTrainer(
        model=student,
        teacher_model=load_model(teacher, dtype="float32"),
        args=config,
        data_collator=lambda items: seen.append(sum(len(item["input_ids"]) for item in items)) or padded(items, template),
        train_dataset=Dataset.from_list([{"input_ids": one.input_ids, "labels": one.labels} for one in encoded]),
        processing_class=template.tokenizer,
        callbacks=[Clock()],
    )
    times.note()
    trainer.train()
    trainer.save_model(str(options.output_path / "trained-whole"))
    return times.rates(seen[: options.steps + WARM]) | {"peak_mb": peak_mb(), "held_out": held_out_loss(options, "whole")}


def loss(options: argparse.Namespace) -> dict[str, Any]:
    """Both losses of one batch of the untrained student, in float32 over the whole vocabulary."""
    import torch
    from trl.experimental.gkd import GKDTrainer

    from slmops.signals.tensors import TopKTensors, into_batch
    from slmops.signals.topk import TopK
    from slmops.training.batches import collate
    from slmops.training.forward import total_loss
    from slmops.training.objectives import WeightedSum
    from slmops.training.projection import Projection

    teacher, student = (load_model(model_of(options, "whole", role), dtype="float32").eval() for role in ("teacher", "student"))
    template = template_of(model_of(options, "whole", "teacher"))
    rows = [template.encode(row) for row in held_out(options.output_path, options.rows)[: options.batch_size]]
    batch = padded([{"input_ids": one.input_ids, "labels": one.labels} for one in rows], template)
    with torch.no_grad():
        known, own_logits = (
            model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1] for model in (teacher, student)
        )
        labels = batch["labels"][:, 1:]
        theirs = GKDTrainer.generalized_jsd_loss(own_logits, known, labels=labels, beta=BETA, temperature=1.0)
        shifted = labels != -100
        signal = TopKTensors.join([TopK.from_logits(known[shifted], known.shape[-1])])
        own = collate(rows, int(template.tokenizer.eos_token_id)) | into_batch(signal)
        total = total_loss(student, own, WeightedSum.of([{"name": "jsd", "beta": BETA}]), Projection.of(student))
    mean = float(total) / int(shifted.sum())
    return {"ours": mean, "trl": float(theirs), "apart": abs(mean - float(theirs))}


def fitting(options: argparse.Namespace, student: Template) -> Any:
    """The signals under the student's token ids."""
    from slmops.models.tokenmap import TokenMap
    from slmops.signals.store import SignalStore
    from slmops.teachers.mapping import MappedSignals

    store = SignalStore.open(options.output_path / "signals", _FINGERPRINTS)
    teacher = template_of(model_of(options, "ours", "teacher"))
    tokens = TokenMap.between(teacher.tokenizer, student.tokenizer)
    return store if tokens.same else MappedSignals(store, teacher, student, tokens)


def held_out_loss(options: argparse.Namespace, side: str) -> float:
    """Nats by answer of the trained student on rows that it has not seen; by answer, since tokens differ with the vocabulary."""
    folder = options.output_path / f"trained-{side}"
    rows = held_out(options.output_path, options.rows)
    return loss_by_answer(load_model(folder, dtype="float32"), template_of(folder), rows)


def padded(items: Sequence[dict[str, Any]], template: Template) -> dict[str, Any]:
    """A batch padded on the right, as TRL's trainer takes it."""
    import torch

    width, pad = max(len(item["input_ids"]) for item in items), int(template.tokenizer.eos_token_id)
    return {
        "input_ids": torch.tensor([[*item["input_ids"], *[pad] * (width - len(item["input_ids"]))] for item in items]),
        "attention_mask": torch.tensor([[int(place < len(item["input_ids"])) for place in range(width)] for item in items]),
        "labels": torch.tensor([[*item["labels"], *[-100] * (width - len(item["labels"]))] for item in items]),
    }


def model_of(options: argparse.Namespace, side: str, role: str) -> Path:
    """A folder that :func:`prepare` made."""
    return Path(read_json(options.output_path / f"{side}.json")[role])


SIDES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {"signals": signals, "ours": ours, "trl": trl, "loss": loss}
