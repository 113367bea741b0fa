"""``slmops finetune``: train a model on labelled rows."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from slmops.commands import options as given
from slmops.commands.common import new_app, print_finetuned, run_name
from slmops.config import FinetuneRecipe, build
from slmops.errors import UsageError
from slmops.progress import say
from slmops.values import with_overrides

app = new_app()


class Method(StrEnum):
    """What is trained."""

    FULL = "full"
    LORA = "lora"
    DORA = "dora"
    QLORA = "qlora"
    HOULSBY = "houlsby"
    PFEIFFER = "pfeiffer"
    ADAPTER = "adapter"


@app.command()
def finetune(
    model: Annotated[
        str,
        typer.Option("--model_name_or_path", "--model", "-m", help="Catalogue name, folder, adapter, .gguf file or hub id"),
    ],
    data: given.Data,
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="Where everything goes")],
    method: Annotated[
        Method,
        typer.Option(
            help="full: all weights; lora, dora, qlora: an adapter, the last on weights in few bits; houlsby, pfeiffer: "
            "bottleneck adapters, which stay beside the weights; adapter: pfeiffer"
        ),
    ] = Method.LORA,
    task_type: given.TaskType = None,
    text_template: given.TextTemplate = None,
    special_tokens: Annotated[
        str, typer.Option("--special_tokens", help="Another model's tokens in the template: text takes them as such, or error")
    ] = "text",
    input_field: given.InputField = None,
    answer_field: given.AnswerField = None,
    validation_data: given.ValidationData = None,
    train_split: Annotated[str | None, typer.Option("--train_split", help="Part of the data, such as train[:4096]")] = None,
    eval_split: Annotated[str | None, typer.Option("--eval_split", help="Part that validates, such as train[4096:4224]")] = None,
    max_bad_share: given.MaxBadShare = 0.05,
    max_steps: Annotated[int | None, typer.Option("--max_steps", min=1, help="Updates; takes the place of epochs")] = None,
    epochs: Annotated[float | None, typer.Option("--num_train_epochs", "--epochs", help="Passes over the rows")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning_rate", help="Peak")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--per_device_train_batch_size", "--batch_size", min=1, help="Rows a forward pass")
    ] = None,
    accumulation: Annotated[
        int | None, typer.Option("--gradient_accumulation_steps", min=1, help="Forward passes an update")
    ] = None,
    lora_r: Annotated[int | None, typer.Option("--lora_r", min=1, help="Rank")] = None,
    lora_alpha: Annotated[int | None, typer.Option("--lora_alpha", min=1, help="Scale")] = None,
    lora_dropout: Annotated[float | None, typer.Option("--lora_dropout", help="Dropout on the adapter's input")] = None,
    bits: Annotated[int, typer.Option("--bits", help="Of the frozen weights with qlora: 4 or 8")] = 4,
    target_modules: Annotated[
        str | None, typer.Option("--target_modules", help="Layers with an adapter, separated by commas; left out: all linear ones")
    ] = None,
    reduction_factor: Annotated[
        float | None, typer.Option("--adapter_reduction_factor", min=1, help="Of houlsby and pfeiffer: model's width / adapter's")
    ] = None,
    adapter_size: Annotated[
        int | None, typer.Option("--adapter_size", min=1, help="The adapter's width; takes the place of that factor")
    ] = None,
    continue_adapter: Annotated[
        bool, typer.Option("--continue_adapter", help="Train the adapter --model_name_or_path further, with its own settings")
    ] = False,
    head: Annotated[
        bool, typer.Option("--head", help="Classification by a layer over the labels, in place of answers in words")
    ] = False,
    merge: Annotated[bool, typer.Option("--merge", help="Write the merged weights too")] = False,
    seed: given.Seed = 0,
    as_json: given.AsJson = False,
    overrides: given.Overrides = None,
) -> None:
    """Fine-tune a model on rows with answers. It leaves OUTPUT/model and, with an adapter, OUTPUT/adapter."""
    from slmops.data.sources import FilesSource, look_at
    from slmops.finetuning import finetune as train

    columns = {"text_template": text_template, "input_field": input_field, "answer_field": answer_field, "train_split": train_split}
    columns = _said(columns)
    source = _said({"name": "files", "train": data, "validation": validation_data, "validation_split": eval_split, **columns})
    detected = look_at(FilesSource(train=data, **columns))
    lora = {
        "r": lora_r,
        "alpha": lora_alpha,
        "dropout": lora_dropout,
        "target_modules": target_modules.split(",") if target_modules else None,
        "dora": True if method is Method.DORA else None,
        "bits": bits if method is Method.QLORA else None,
    }
    if continue_adapter and method is Method.FULL:
        raise UsageError("all weights are asked for, and an adapter is continued", where="--method", fix="leave --method out")
    bottleneck = {
        "kind": "houlsby" if method is Method.HOULSBY else "pfeiffer",
        "reduction_factor": reduction_factor,
        "size": adapter_size,
    }
    training = {
        "lora": _said(lora) if method in (Method.LORA, Method.DORA, Method.QLORA) else None,
        "bottleneck": _said(bottleneck) if method in (Method.HOULSBY, Method.PFEIFFER, Method.ADAPTER) else None,
        "max_steps": max_steps,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "gradient_accumulation_steps": accumulation,
    }
    values: dict[str, Any] = {
        "name": run_name(output_path),
        "task_type": task_type or detected.task_type,
        "output_path": str(output_path),
        "seed": seed,
        "model": model,
        "head": head,
        "merge": merge,
        "continue_adapter": continue_adapter,
        "data": {
            "source": {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in source.items()},
            "max_bad_share": max_bad_share,
            "special_tokens": special_tokens,
            "test_share": 0,
        },
        "training": _said(training),
    }
    recipe = build(FinetuneRecipe, with_overrides(values, overrides or []), where="finetune")
    say(detected.describe())
    print_finetuned(train(recipe), as_json)


def _said(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
