"""The sides of ``finetune.py``, each run in a process of its own: our training, TRL's, Olive's, and what the libraries take."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sides import SEED, WARM, Times, held_out, lengths, loss_by_answer, rows_of, template_of

from slmops.data.templates import Template
from slmops.errors import SlmopsError
from slmops.evaluation.memory import peak_mb
from slmops.files import write_jsonl
from slmops.models.load import load_model
from slmops.models.resolve import resolve
from slmops.sections import LoraSection, TrainingSection
from slmops.workspace import remove_tree

METHODS = ("full", "lora", "qlora")
LEARNING_RATES = {"full": 1e-4, "lora": 5e-4, "qlora": 5e-4}
MEMORY_STEPS = 6
_OLIVE_STEPS = (1, 3)


def ours(options: argparse.Namespace, method: str) -> dict[str, Any]:
    """Our training with the package's settings."""
    times, template, steps = Times(), template_of(base_of(options)), options.steps + WARM
    lora = LoraSection(r=options.lora_r, alpha=options.lora_alpha) if method == "lora" else None
    target = trained(options, method, lora, times, steps)
    known = lengths(template, rows_of(options.output_path, options.rows))
    tokens = [sum(known[row] for row in batch) for batch in planned(known, options, steps)]
    return times.rates(tokens) | {"peak_mb": peak_mb(), "held_out": held_out_loss(options, method, target)}


def in_memory(options: argparse.Namespace, bits: int | None) -> dict[str, Any]:
    """A few updates of an adapter on a frozen base of so many bits; ``None``: in bfloat16, as it is usually done."""
    from slmops.training import inputs

    if bits is None:
        inputs.load_model = lambda base, **_: load_model(base, dtype="bfloat16", attention="eager")
    lora = LoraSection(r=options.lora_r, alpha=options.lora_alpha, bits=bits)
    trained(options, "qlora", lora, Times(), MEMORY_STEPS)
    return {"peak_mb": peak_mb()}


def libraries(options: argparse.Namespace) -> dict[str, Any]:
    """The same rows, libraries and modules, without weights and updates."""
    import peft
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from slmops.training import loop

    template = template_of(base_of(options))
    rows = [template.encode(row) for row in rows_of(options.output_path, options.rows)]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base_of(options)))
    assert all((rows, model, peft, loop))
    return {"peak_mb": peak_mb()}


def trained(options: argparse.Namespace, method: str, lora: LoraSection | None, times: Times, steps: int) -> Path:
    """Train with our loop; the folder of what it left."""
    from slmops.training import loop

    work, target = options.output_path / "training", options.output_path / f"ours-{method}"
    remove_tree(work)
    remove_tree(target)
    section = TrainingSection(
        lora=lora,
        learning_rate=options.learning_rate or LEARNING_RATES[method],
        max_steps=steps,
        batch_size=options.batch_size,
        max_length=options.max_length,
        checkpoint_seconds=1e9,
    )
    loop.progress = times.as_progress  # the only door through which an update is seen from outside
    loop.train(
        base_of(options),
        target,
        work,
        template=template_of(base_of(options)),
        rows=rows_of(options.output_path, options.rows),
        validation=[],
        section=section,
        seed=SEED,
        what="ours",
        adapter_alone=lora is not None,
    )
    return target


def planned(known: list[int], options: argparse.Namespace, steps: int) -> list[list[int]]:
    """The batches of our training."""
    from slmops.training.batches import plan_batches

    return plan_batches(known, options.batch_size, SEED, count=steps)


def trl(options: argparse.Namespace, method: str, *, tuned: bool) -> dict[str, Any]:
    """TRL's trainer on the same token ids and labels: at its defaults, or with what makes it fast on this machine."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from slmops.training.machine import autocast_type, keep_freed_memory

    times, seen, steps = Times(), [], options.steps + WARM
    template = template_of(base_of(options))
    encoded = [template.encode(row) for row in rows_of(options.output_path, options.rows)]
    faster: dict[str, Any] = {}
    if tuned:
        keep_freed_memory()
        faster = {
            "bf16": autocast_type("auto") is not None,
            "gradient_checkpointing": False,
            "train_sampling_strategy": "group_by_length",
            "lr_scheduler_type": "cosine",
            "warmup_steps": int(0.1 * steps),
        }

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.note()

    target = options.output_path / f"trl-{method}"
    remove_tree(target)
    config = SFTConfig(
        output_dir=str(target),
        max_steps=steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate or LEARNING_RATES[method],
        max_length=options.max_length,
        seed=SEED,
        save_strategy="no",
        use_cpu=not torch.cuda.is_available(),  # without it TRL's defaults are refused where there is no GPU
        disable_tqdm=True,
        **faster,
    )
    trainer = SFTTrainer(
        model=str(base_of(options)),
        args=config,
        train_dataset=Dataset.from_list([{"input_ids": list(one.input_ids), "labels": list(one.labels)} for one in encoded]),
        processing_class=template.tokenizer,
        peft_config=lora_config(options) if method == "lora" else None,
        callbacks=[Clock()],
    )
    collate = trainer.data_collator
    trainer.data_collator = lambda items: seen.append(sum(len(item["input_ids"]) for item in items)) or collate(items)
    times.note()
    trainer.train()
    trainer.save_model(str(target))
    return times.rates(seen[:steps]) | {"peak_mb": peak_mb(), "held_out": held_out_loss(options, method, target)}


def lora_config(options: argparse.Namespace) -> Any:
    """PEFT's configuration of the adapter that ours has."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM", target_modules="all-linear", r=options.lora_r, lora_alpha=options.lora_alpha, lora_dropout=0.0
    )


def olive(options: argparse.Namespace) -> dict[str, Any]:
    """Olive's command at its defaults: two runs, whose times of training differ by the updates that the second makes more.

    It joins rows to blocks of ``max_length`` tokens, and its loss covers prompts too.
    """
    template = template_of(base_of(options))
    encoded = [template.encode(row) for row in rows_of(options.output_path, options.rows)]
    texts = options.output_path / "olive.jsonl"
    write_jsonl(texts, [{"text": template.tokenizer.decode(one.input_ids)} for one in encoded])
    (first, _), (second, peak) = (_olive_run(options, texts, steps) for steps in _OLIVE_STEPS)
    more = _OLIVE_STEPS[1] - _OLIVE_STEPS[0]
    (adapter,) = {file.parent for file in (options.output_path / "olive" / "out").rglob("adapter_config.json")}
    return {
        "tokens_per_s": more * options.batch_size * options.max_length / (second - first),
        "step_s": (second - first) / more,
        "steps": more,
        "peak_mb": peak,
        "held_out": held_out_loss(options, "lora", adapter),
    }


def _olive_run(options: argparse.Namespace, texts: Path, steps: int) -> tuple[float, float]:
    """Seconds of the training, as its trainer says, and the highest resident set of the command's process, in MiB."""
    work = options.output_path.absolute() / "olive"  # Olive's cache too, which would give the adapter of an earlier run
    remove_tree(work)
    work.mkdir()
    command = [str(olive_at(options)), "finetune", "--method", "lora", "--model_name_or_path", str(base_of(options))]
    command += ["--data_name", "json", "--data_files", str(texts.absolute()), "--train_split", "train", "--text_field", "text"]
    command += ["--max_seq_len", str(options.max_length), "--lora_r", str(options.lora_r), "--lora_alpha", str(options.lora_alpha)]
    command += ["--target_modules", ",".join(linear_layers(base_of(options))), "--output_path", str(work / "out")]
    command += ["--max_steps", str(steps), "--per_device_train_batch_size", str(options.batch_size)]
    command += ["--learning_rate", str(options.learning_rate or LEARNING_RATES["lora"]), "--disable_telemetry"]
    with subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        # The process may begin with our own mark, which is far below what it comes to.
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    runtime = re.search(r"'train_runtime': '?([\d.]+)", said)
    if process.returncode != 0 or runtime is None:
        raise SlmopsError(f"{' '.join(command)} failed:\n" + "\n".join(said.splitlines()[-20:]), where="olive")
    return float(runtime[1]), used.ru_maxrss / 1024


def olive_at(options: argparse.Namespace) -> str | None:
    """Olive's executable, if it is there."""
    found = shutil.which(options.olive or "olive")
    return str(Path(found).absolute()) if found else None


def linear_layers(base: Path) -> list[str]:
    """Ends of the names of a model's linear layers but the output."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    head = model.get_output_embeddings()
    layers = [name for name, one in model.named_modules() if type(one) is torch.nn.Linear and one is not head]
    return sorted({name.rpartition(".")[2] for name in layers})


def held_out_loss(options: argparse.Namespace, method: str, folder: Path) -> float:
    """Nats by answer, in float32, of what a side left in a folder, on rows that it has not seen."""
    model: Any = load_model(folder if method == "full" else base_of(options), dtype="float32")
    if method != "full":
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    return loss_by_answer(model, template_for(options), held_out(options.output_path, options.rows))


def template_for(options: argparse.Namespace) -> Template:
    """The template that all sides train with."""
    return template_of(base_of(options))


def base_of(options: argparse.Namespace) -> Path:
    """The folder of the model that is trained."""
    return resolve(options.model).path


SIDES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    **{f"ours-{method}": partial(ours, method=method) for method in ("full", "lora")},
    **{f"trl-{method}": partial(trl, method=method, tuned=False) for method in ("full", "lora")},
    **{f"trl-tuned-{method}": partial(trl, method=method, tuned=True) for method in ("full", "lora")},
    "olive-lora": olive,
    "libraries": libraries,
    "lora-bfloat16": partial(in_memory, bits=None),
    "qlora-8": partial(in_memory, bits=8),
    "qlora-4": partial(in_memory, bits=4),
}
