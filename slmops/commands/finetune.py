"""``slmops finetune``: train a model on labelled rows."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from slmops.commands import options as given
from slmops.commands.common import new_app, print_finetuned, run_name
from slmops.config import FinetuneRecipe, build
from slmops.progress import say
from slmops.values import with_overrides

app = new_app()


class Method(StrEnum):
    """What is trained."""

    FULL = "full"
    LORA = "lora"
    DORA = "dora"
    QLORA = "qlora"


class TrainOn(StrEnum):
    """What of a row is trained on."""

    ANSWER = "answer"
    ALL = "all"


@app.command()
def finetune(
    model: Annotated[
        str,
        typer.Option("--model_name_or_path", "--model", "-m", help="Catalogue name, folder, adapter, .gguf file or hub id"),
    ],
    data: given.HubOrData,
    output_path: Annotated[Path, typer.Option("--output_path", "-o", help="Where everything goes")],
    method: Annotated[
        Method, typer.Option(help="full: all weights; lora, dora, qlora: an adapter, the last on weights in few bits")
    ] = Method.LORA,
    task_type: given.TaskType = None,
    text_template: given.TextTemplate = None,
    data_config: given.DataConfig = None,
    train_on: Annotated[
        TrainOn, typer.Option("--train_on", help="What is learned: answer, or all that the template makes of a row")
    ] = TrainOn.ANSWER,
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
    merge: Annotated[bool, typer.Option("--merge", help="Write the merged weights too")] = False,
    seed: given.Seed = 0,
    as_json: given.AsJson = False,
    overrides: given.Overrides = None,
) -> None:
    """Fine-tune a model on rows with answers. It leaves OUTPUT/model and, with an adapter, OUTPUT/adapter."""
    from slmops.data.given import detect_task, named_source
    from slmops.finetuning import finetune as train

    columns = {"text_template": text_template, "input_field": input_field, "answer_field": answer_field, "train_split": train_split}
    held_out = {"validation": str(validation_data.absolute()) if validation_data else None, "validation_split": eval_split}
    source, kind, taken = detect_task(named_source(data, data_config), _said({**columns, **held_out}), task_type)
    lora = {
        "r": lora_r,
        "alpha": lora_alpha,
        "dropout": lora_dropout,
        "target_modules": target_modules.split(",") if target_modules else None,
        "dora": True if method is Method.DORA else None,
        "bits": bits if method is Method.QLORA else None,
    }
    training = {
        "lora": None if method is Method.FULL else _said(lora),
        "max_steps": max_steps,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "gradient_accumulation_steps": accumulation,
    }
    values: dict[str, Any] = {
        "name": run_name(output_path),
        "task_type": kind,
        "output_path": str(output_path),
        "seed": seed,
        "model": model,
        "merge": merge,
        "data": {
            "source": source,
            "max_bad_share": max_bad_share,
            "special_tokens": special_tokens,
            "train_on": train_on.value,
            "test_share": 0,
        },
        "training": _said(training),
    }
    recipe = build(FinetuneRecipe, with_overrides(values, overrides or []), where="finetune")
    say(taken)
    print_finetuned(train(recipe), as_json)


def _said(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
