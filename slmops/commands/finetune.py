"""``slmops finetune``: train a model on labelled rows."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from slmops.commands import options as given
from slmops.commands import training_flags as flags
from slmops.commands.common import new_app, print_finetuned, print_plan, run_name
from slmops.config import FinetuneRecipe, build
from slmops.errors import UsageError
from slmops.progress import say, speaking
from slmops.values import with_overrides

app = new_app()
_NEEDED = {
    "--model_name_or_path": "a name such as smollm2-135m-instruct, a model's folder, an adapter, a .gguf file or a hub id",
    "--data_name": "a file with training rows (JSONL, JSON, CSV, TSV, Parquet) or a folder with train.* and validation.*",
    "--output_path": "the folder that model and adapter are written to",
}


class Method(StrEnum):
    """What is trained."""

    FULL = "full"
    LORA = "lora"
    DORA = "dora"
    QLORA = "qlora"
    HOULSBY = "houlsby"
    PFEIFFER = "pfeiffer"
    ADAPTER = "adapter"


_LORAS = (Method.LORA, Method.DORA, Method.QLORA)
_BOTTLENECKS = (Method.HOULSBY, Method.PFEIFFER, Method.ADAPTER)
_METHODS_WITH = {
    **dict.fromkeys(("--lora_r", "--lora_alpha", "--lora_dropout", "--target_modules"), _LORAS),
    **dict.fromkeys(("--adapter_size", "--adapter_reduction_factor"), _BOTTLENECKS),
    "--bits": (Method.QLORA,),
}


class TrainOn(StrEnum):
    """What of a row is trained on."""

    ANSWER = "answer"
    ALL = "all"


@app.command(cls=flags.WithTruthValues)
def finetune(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Option("--model_name_or_path", "--model", "-m", help="Catalogue name, folder, adapter, .gguf file or hub id"),
    ] = None,
    data: given.HubOrData = None,
    output_path: Annotated[Path | None, typer.Option("--output_path", "-o", help="Where everything goes")] = None,
    method: Annotated[
        Method,
        typer.Option(
            help="full: all weights; lora, dora, qlora: an adapter, the last on weights in few bits; houlsby, pfeiffer: "
            "bottleneck adapters, which stay beside the weights; adapter: pfeiffer"
        ),
    ] = Method.LORA,
    task_type: given.TaskType = None,
    text_template: given.TextTemplate = None,
    data_config: given.DataConfig = None,
    train_on: Annotated[
        TrainOn, typer.Option("--train_on", help="What is learned: answer, or all that the template makes of a row")
    ] = TrainOn.ANSWER,
    special_tokens: Annotated[
        str,
        typer.Option("--special_tokens", help="Another model's tokens in the template: text takes them as such, add, or error"),
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
    bits: Annotated[int | None, typer.Option("--bits", help="Of the frozen weights with qlora: 4 or 8; left out: 4")] = None,
    target_modules: Annotated[
        str | None, typer.Option("--target_modules", help="Layers with an adapter, separated by commas; left out: all linear ones")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss", help="A loss of your own, my_loss.py:MyLoss: on pairs of rows beside cross-entropy, or in its place"
        ),
    ] = None,
    loss_weight: Annotated[
        float | None, typer.Option("--loss_weight", help="Of your loss beside a cross-entropy of weight 1; left out: 1")
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
    trust_remote_code: flags.TrustRemoteCode = False,
    max_length: flags.MaxLength = None,
    scheduler: flags.Scheduler = None,
    warmup_ratio: flags.WarmupRatio = None,
    warmup_steps: flags.WarmupSteps = None,
    weight_decay: flags.WeightDecay = None,
    max_grad_norm: flags.MaxGradNorm = None,
    gradient_checkpointing: flags.GradientCheckpointing = None,
    fp16: flags.Fp16 = None,
    bf16: flags.Bf16 = None,
    group_by_length: flags.GroupByLength = None,
    eval_batch_size: flags.EvalBatchSize = None,
    eval_steps: flags.EvalSteps = None,
    save_steps: flags.SaveSteps = None,
    save_total_limit: flags.SaveTotalLimit = None,
    logging_steps: flags.LoggingSteps = None,
    logging_dir: flags.LoggingDir = None,
    report_to: flags.ReportTo = None,
    log_level: flags.LogLevel = None,
    no_score: Annotated[
        bool, typer.Option("--no_score", help="Do not have the model answer validation rows before and after")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Say the defaults and what would be done, and stop")] = False,
    seed: given.Seed = 0,
    as_json: given.AsJson = False,
    overrides: given.Overrides = None,
) -> None:
    """Fine-tune a model on rows with answers. It leaves OUTPUT/model and, with an adapter, OUTPUT/adapter."""
    context.with_resource(speaking(flags.level_of(log_level)))
    flags.require(dict(zip(_NEEDED, (model, data, output_path), strict=True)), _NEEDED)
    assert model is not None
    assert data is not None
    assert output_path is not None
    from slmops import finetuning
    from slmops.data.given import detect_task, named_source
    from slmops.training.defaults import CHOSEN, table

    columns = {"text_template": text_template, "input_field": input_field, "answer_field": answer_field, "train_split": train_split}
    held_out = {"validation": str(validation_data.absolute()) if validation_data else None, "validation_split": eval_split}
    source, kind, taken = detect_task(named_source(data, data_config), _said({**columns, **held_out}), task_type)
    lora = {
        "r": lora_r,
        "alpha": lora_alpha,
        "dropout": lora_dropout,
        "target_modules": target_modules.split(",") if target_modules else None,
        "dora": True if method is Method.DORA else None,
        "bits": (4 if bits is None else bits) if method is Method.QLORA else None,
    }
    sized = {"--adapter_size": adapter_size, "--adapter_reduction_factor": reduction_factor}
    shaped = {"--lora_r": lora_r, "--lora_alpha": lora_alpha, "--lora_dropout": lora_dropout, "--target_modules": target_modules}
    _refuse_others(method, {**shaped, **sized, "--bits": bits})
    flags.note_mapped(group_by_length=group_by_length, logging_dir=logging_dir, report_to=report_to)
    if continue_adapter and method is Method.FULL:
        raise UsageError("all weights are asked for, and an adapter is continued", where="--method", fix="leave --method out")
    bottleneck = {
        "kind": "houlsby" if method is Method.HOULSBY else "pfeiffer",
        "reduction_factor": reduction_factor,
        "size": adapter_size,
    }
    training: dict[str, Any] = {
        "lora": _said(lora) if method in _LORAS else None,
        "bottleneck": _said(bottleneck) if method in _BOTTLENECKS else None,
        "max_steps": max_steps,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "gradient_accumulation_steps": accumulation,
        "max_length": max_length,
        "lr_scheduler_type": scheduler,
        "warmup_share": warmup_ratio,
        "warmup_steps": warmup_steps,
        "weight_decay": weight_decay,
        "max_grad_norm": max_grad_norm,
        "gradient_checkpointing": gradient_checkpointing,
        "precision": flags.precision_of(fp16, bf16),
        "eval_batch_size": eval_batch_size,
        "eval_steps": eval_steps,
        "save_steps": save_steps,
        "save_total_limit": save_total_limit,
        "logging_steps": logging_steps,
        "logging_dir": str(logging_dir.absolute()) if logging_dir is not None else None,
        "report_to": report_to,
    }
    if loss is not None:
        from slmops.training.objectives.own import objectives_with

        training["objectives"] = objectives_with(loss, loss_weight)
    elif loss_weight is not None:
        raise UsageError("there is no loss of your own to weigh", where="--loss_weight", fix="name it: --loss my_loss.py:MyLoss")
    values: dict[str, Any] = {
        "name": run_name(output_path),
        "task_type": kind,
        "output_path": str(output_path),
        "seed": seed,
        "model": model,
        "head": head,
        "merge": merge,
        "trust_remote_code": trust_remote_code,
        "score": not no_score,
        "continue_adapter": continue_adapter,
        "data": {
            "source": source,
            "max_bad_share": max_bad_share,
            "special_tokens": special_tokens,
            "train_on": train_on.value,
            "test_share": 0,
        },
        "training": _said(training),
    }
    values = with_overrides(values, overrides or [])
    recipe = build(FinetuneRecipe, values, where="finetune")
    given_too = {"warmup_share"} if warmup_steps is not None else set()
    choose = [name for name in CHOSEN if name not in {*values["training"], *given_too}]
    say(taken)
    if plan:
        recipe, settings = finetuning.settled(recipe, choose)
        steps = finetuning.plan(recipe)
        if as_json:
            print(json.dumps({"settings": [one.as_dict() for one in settings], "steps": [asdict(step) for step in steps]}))
        else:
            print(table(settings))
            print_plan(steps)
        return
    print_finetuned(finetuning.finetune(recipe, choose), as_json)


def _said(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _refuse_others(method: Method, values: dict[str, Any]) -> None:
    """Refuse flags that would be without effect, since they are another method's."""
    for flag, value in values.items():
        if value is not None and method not in _METHODS_WITH[flag]:
            takers = " or ".join(_METHODS_WITH[flag])
            raise UsageError(
                f"--method {method} has nothing that it would set", where=flag, fix=f"leave it out, or take --method {takers}"
            )
