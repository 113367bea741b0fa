"""How fast distillation trains, beside TRL's GKD trainer: the same teacher, student, rows, batches and objective in one run.

    python benchmarks/distill.py [--vocabulary 8000] [--train_embeddings] [--json]

Both sides train the same student, cut from the teacher's first layers, with the generalized Jensen-Shannon divergence alone, in
bfloat16 autocast where the processor has it, with AdamW, the same rows, batch size and number of updates, each in a process of
its own, with glibc told to keep freed memory. They take turns, since a machine's speed drifts. TRL's trainer runs the teacher in
every step (off-policy: nothing is generated); ours takes the teacher's distributions once and trains from them. Embeddings are
frozen on both sides, as in the package's recipes, unless they are to be trained.

- ``speedup_training``: real tokens (no padding) a second of the updates, ours over TRL's; the first updates do not count.
- ``speedup``: the same with the time of the signal pass spread over three epochs.
- ``memory``: the highest resident set of a process, ours over TRL's; the signal pass counts as ours.
- ``loss``: in float32 with k = vocabulary, the same batch and weights on both sides: how far apart the two values are.

With ``--vocabulary`` our student's vocabulary is trimmed to so many tokens; TRL's side stays as it is. After the same number of
updates the mean negative log-likelihood of the answers of rows that neither has seen is printed for both students.
Needs the extra ``benchmarks``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from slmops.data.rows import Row
from slmops.data.support_messages import SupportMessages, generate
from slmops.data.templates import Encoded, Template, choose_template
from slmops.files import read_json, read_jsonl, write_json, write_jsonl
from slmops.models.load import load_model, load_tokenizer, parameter_count
from slmops.models.resolve import resolve
from slmops.models.shrink import Wish, cut_model, plan_cut
from slmops.progress import say
from slmops.sections import TrainingSection

TARGETS = {"speedup_training": 7.0, "speedup": 5.0, "memory": 0.4, "loss": 1e-3}
_TRIMMED_TARGET = 12.0
_BETA, _SEED, _EPOCHS, _WARM = 0.5, 1, 3, 3
_HELD_OUT = 64
_FINGERPRINTS = {"teacher": "of the benchmark"}


def main() -> None:
    """Make the models and rows, run both sides, and print their figures and the ratios."""
    options = parsed()
    if options.side is not None:
        print(json.dumps(SIDES[options.side](options)))
        return
    prepare(options)
    rounds = [{side: in_a_process(side) for side in ("signals", "ours", "trl")} for _ in range(options.rounds)]
    found = {side: middle([one[side] for one in rounds]) for side in rounds[0]} | {"loss": in_a_process("loss")}
    share = matmul_share(options, found["ours"])
    result = {
        "setting": setting(options),
        **found,
        "matmul_share": share,
        "results": compared(found, options.vocabulary is not None),
    }
    write_json(options.output_path / "result.json", result)
    print(json.dumps(result) if options.json else render(result))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="the teacher")
    parser.add_argument("--data", type=Path, help="JSON lines with 'prompt' and 'response'; else support messages")
    parser.add_argument("--layers", type=int, default=8, help="of the student")
    parser.add_argument("--vocabulary", type=int, help="trim ours to about so many tokens")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20, help="timed updates")
    parser.add_argument("--rounds", type=int, default=3, help="of both sides in turn; of their figures the middle ones count")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--train_embeddings", action="store_true", help="on both sides; the package's recipes do not")
    parser.add_argument("--output_path", type=Path, default=Path("runs/distill-benchmark"))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(options: argparse.Namespace) -> None:
    """Students and rows in the output folder: ``whole`` for TRL, ``ours`` for us."""
    root = options.output_path
    teacher = resolve(options.model).path
    template, rows = template_of(teacher), read_rows(options)
    write_jsonl(root / "rows.jsonl", [row.as_dict() for row in rows])
    for side, vocabulary in (("whole", None), ("ours", options.vocabulary)):
        student = root / f"student-{side}"
        remove(student)
        plan = plan_cut(teacher, Wish(options.layers, "first", vocabulary), rows=template.token_ids(rows[: options.rows]))
        cut_model(teacher, student, plan, root / "work")
        template_of(student).save(student)
        write_json(root / f"{side}.json", {"teacher": str(teacher), "student": str(student)})


def read_rows(options: argparse.Namespace) -> list[Row]:
    """Rows to train on, and behind them those that are held out."""
    count = options.rows + _HELD_OUT
    if options.data is not None:
        return [Row.of(line["prompt"], line["response"]) for line in read_jsonl(options.data)][:count]
    made = generate(SupportMessages(labelled=18, pool=count, validation=18, test=18, seed=7))
    return [Row.of(text, label) for text, label in made["pool"]]


def in_a_process(side: str) -> dict[str, Any]:
    """A side with the same command line in a process of its own."""
    say(f"  {side}")
    done = subprocess.run([sys.executable, *sys.argv, "--side", side], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{side} failed (exit status {done.returncode})")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def middle(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure of the rounds."""
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def signals(options: argparse.Namespace) -> dict[str, Any]:
    """The teacher's distributions at all answers, once."""
    from slmops.sections import SignalsSection
    from slmops.signals.forms import form_of
    from slmops.signals.store import write_signals
    from slmops.teachers.local import LocalTeacher
    from slmops.teachers.signals import signal_rows

    teacher = model_of(options, "ours", "teacher")
    template, rows = template_of(teacher), rows_of(options)
    loaded = LocalTeacher.load(teacher, template, "auto")
    work, folder = options.output_path / "work", options.output_path / "signals"
    remove(work)
    started = time.monotonic()
    found = signal_rows(loaded, rows, template, form_of(SignalsSection(k=options.k)), chunk_rows=64, work=work)
    write_signals(folder, found, _FINGERPRINTS)
    return {"seconds": time.monotonic() - started, "tokens": sum(lengths(template, rows)), "peak_mb": peak_mb()}


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """Training from the signals."""
    from slmops.training import loop
    from slmops.training.batches import plan_batches

    student, rows = model_of(options, "ours", "student"), rows_of(options)
    template, steps = template_of(student), options.steps + _WARM
    section = TrainingSection(
        objectives=({"name": "jsd", "beta": _BETA},),
        learning_rate=5e-4,
        max_steps=steps,
        batch_size=options.batch_size,
        freeze_embeddings=not options.train_embeddings,
        checkpoint_seconds=1e9,
    )
    times = Times()
    work, target = options.output_path / "training", options.output_path / "trained-ours"
    remove(work)
    loop.progress = times.as_progress  # the only door through which an update is seen from outside
    loop.train(
        student,
        target,
        work,
        template=template,
        rows=rows,
        validation=[],
        section=section,
        seed=_SEED,
        what="ours",
        signals=fitting(options, template),
    )
    known = lengths(template, rows)
    plan = plan_batches(known, options.batch_size, _SEED, count=steps)
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
    encoded = [template.encode(row) for row in rows_of(options)]
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
        max_steps=options.steps + _WARM,
        per_device_train_batch_size=options.batch_size,
        learning_rate=5e-4,
        warmup_steps=int(0.1 * (options.steps + _WARM)),
        lr_scheduler_type="cosine",
        bf16=bfloat16,
        use_cpu=True,
        lmbda=0.0,
        beta=_BETA,
        temperature=1.0,
        seed=_SEED,
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
    return times.rates(seen[: options.steps + _WARM]) | {"peak_mb": peak_mb(), "held_out": held_out_loss(options, "whole")}


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
    rows = [template.encode(row) for row in held_out(options)[: options.batch_size]]
    batch = padded([{"input_ids": one.input_ids, "labels": one.labels} for one in rows], template)
    with torch.no_grad():
        known, own_logits = (
            model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1] for model in (teacher, student)
        )
        labels = batch["labels"][:, 1:]
        theirs = GKDTrainer.generalized_jsd_loss(own_logits, known, labels=labels, beta=_BETA, temperature=1.0)
        shifted = labels != -100
        signal = TopKTensors.join([TopK.from_logits(known[shifted], known.shape[-1])])
        own = collate(rows, int(template.tokenizer.eos_token_id)) | into_batch(signal)
        total = total_loss(student, own, WeightedSum.of([{"name": "jsd", "beta": _BETA}]), Projection.of(student))
    mean = float(total) / int(shifted.sum())
    return {"ours": mean, "trl": float(theirs), "apart": abs(mean - float(theirs))}


SIDES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {"signals": signals, "ours": ours, "trl": trl, "loss": loss}


class Times:
    """When updates ended."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def note(self) -> None:
        """An update has ended; the first time, none has yet."""
        self._ends.append(time.monotonic())

    @contextmanager
    def as_progress(self, *_: Any, **__: Any) -> Iterator[Callable[[int], None]]:
        """In place of the package's progress."""
        self.note()
        yield lambda _: self.note()

    def rates(self, tokens: Sequence[int]) -> dict[str, Any]:
        """Tokens a second without the first updates, and the time of a middle one."""
        each = [end - start for start, end in pairwise(self._ends)][_WARM:]
        return {"tokens_per_s": sum(tokens[_WARM:]) / sum(each), "step_s": statistics.median(each), "steps": len(each)}


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
    from slmops.evaluation.perplexity import reference_losses

    folder = options.output_path / f"trained-{side}"
    losses = reference_losses(load_model(folder, dtype="float32").eval(), template_of(folder), held_out(options), context=1024)
    return statistics.fmean(loss for loss, _, _ in losses)


def held_out(options: argparse.Namespace) -> list[Row]:
    """The rows that both sides are compared on."""
    return [Row.from_dict(line) for line in read_jsonl(options.output_path / "rows.jsonl")][options.rows :]


def padded(items: Sequence[dict[str, Any]], template: Template) -> dict[str, Any]:
    """A batch padded on the right, as TRL's trainer takes it."""
    import torch

    width, pad = max(len(item["input_ids"]) for item in items), int(template.tokenizer.eos_token_id)
    return {
        "input_ids": torch.tensor([[*item["input_ids"], *[pad] * (width - len(item["input_ids"]))] for item in items]),
        "attention_mask": torch.tensor([[int(place < len(item["input_ids"])) for place in range(width)] for item in items]),
        "labels": torch.tensor([[*item["labels"], *[-100] * (width - len(item["labels"]))] for item in items]),
    }


def rows_of(options: argparse.Namespace) -> list[Row]:
    """The rows that are trained on."""
    return [Row.from_dict(line) for line in read_jsonl(options.output_path / "rows.jsonl")][: options.rows]


def lengths(template: Template, rows: Sequence[Row]) -> list[int]:
    """Tokens of each row."""
    return [len(template.encode(row).input_ids) for row in rows]


def model_of(options: argparse.Namespace, side: str, role: str) -> Path:
    """A folder that :func:`prepare` made."""
    return Path(read_json(options.output_path / f"{side}.json")[role])


def template_of(folder: Path) -> Template:
    """The compact chat template with a model's tokenizer."""
    return choose_template(load_tokenizer(folder), "compact")


def remove(folder: Path) -> None:
    """What an earlier run left."""
    from slmops.workspace import remove_tree

    remove_tree(folder)


def peak_mb() -> float:
    """The highest resident set of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def matmul_share(options: argparse.Namespace, rates: dict[str, Any]) -> float:
    """Share of this machine's rate of large products that the updates take: 6 operations a weight and token that meets it."""
    import torch

    from slmops.training.machine import autocast_type

    config = read_json(model_of(options, "ours", "student") / "config.json")
    table = config["vocab_size"] * config["hidden_size"]
    rows = rows_of(options)
    template = template_of(model_of(options, "ours", "student"))
    answered = sum(len(template.encode(row).answer_ids) for row in rows) / sum(lengths(template, rows))
    a_token = 6 * (parameter_count(model_of(options, "ours", "student")) - table) + 6 * table * answered
    square = torch.ones(2048, 2048, dtype=autocast_type("auto") or torch.float32)
    square @ square
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 1:
        square @ square
        count += 1
    limit = 2 * 2048**3 * count / (time.perf_counter() - started)
    return float(a_token * rates["tokens_per_s"] / limit)


def setting(options: argparse.Namespace) -> dict[str, Any]:
    """What was run, and where."""
    named = ("model", "layers", "vocabulary", "batch_size", "steps", "rounds", "rows", "k", "train_embeddings")
    student = {side: parameter_count(model_of(options, side, "student")) for side in ("whole", "ours")}
    machine = {"cores": os.cpu_count(), "machine": platform.processor() or platform.machine()}
    return {**{name: getattr(options, name) for name in named}, "student_parameters": student, **machine}


def compared(found: dict[str, dict[str, Any]], is_trimmed: bool) -> list[dict[str, Any]]:
    """The ratios with their targets."""
    mine, theirs, taken = found["ours"], found["trl"], found["signals"]
    a_token = 1 / mine["tokens_per_s"] + taken["seconds"] / taken["tokens"] / _EPOCHS
    values = {
        "speedup_training": mine["tokens_per_s"] / theirs["tokens_per_s"],
        "speedup": 1 / a_token / theirs["tokens_per_s"],
        "memory": max(mine["peak_mb"], taken["peak_mb"]) / theirs["peak_mb"],
        "loss": found["loss"]["apart"],
    }
    targets = TARGETS | ({"speedup_training": _TRIMMED_TARGET} if is_trimmed else {})
    most = ("memory", "loss")
    return [
        {
            "what": name,
            "value": value,
            "target": targets[name],
            "reached": value <= targets[name] if name in most else value >= targets[name],
        }
        for name, value in values.items()
    ]


def render(result: dict[str, Any]) -> str:
    """The figures as plain text."""
    lines = [f"{'':<10}{'tokens/s':>10}{'s a step':>10}{'peak MiB':>10}  nats an answer, held out"]
    for side in ("ours", "trl"):
        one = result[side]
        lines.append(
            f"{side:<10}{one['tokens_per_s']:>10,.0f}{one['step_s']:>10.2f}{one['peak_mb']:>10,.0f}  {one['held_out']:.3f}"
        )
    taken = result["signals"]
    lines.append(
        f"{'signals':<10}{taken['tokens'] / taken['seconds']:>10,.0f}{'':>10}{taken['peak_mb']:>10,.0f}  once for all epochs"
    )
    lines.append(f"ours takes {result['matmul_share']:.0%} of the rate of large matrix products")
    mine = result["ours"]
    lines.append(
        f"of 100 real tokens {100 * mine['computed']:.0f} are computed; of padded rows {100 * mine['computed_padded']:.0f}"
    )
    lines += [
        f"{one['what']:<18}{one['value']:>10.4g}  target {one['target']:g}: {'reached' if one['reached'] else 'not reached'}"
        for one in result["results"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
