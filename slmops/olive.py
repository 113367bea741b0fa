"""Workflows of Microsoft's Olive that fine-tune with an adapter, as recipes.

What such a file asks for is carried over where the same can be had here; what cannot is said, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from slmops.data.hub import is_hub_data
from slmops.errors import ConfigError
from slmops.sections import TrainingSection

_MODELS = ("hfmodel", "pytorchmodel")
_PASSES: dict[str, dict[str, Any]] = {"lora": {}, "qlora": {"bits": 4}, "dora": {"dora": True}}
_LORA = {"r": "r", "lora_r": "r", "alpha": "alpha", "lora_alpha": "alpha", "lora_dropout": "dropout"}
_TRAINING = {
    "learning_rate": "learning_rate",
    "max_steps": "max_steps",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "warmup_ratio": "warmup_share",
    "warmup_steps": "warmup_steps",
    "per_device_eval_batch_size": "eval_batch_size",
    "logging_steps": "logging_steps",
    "eval_steps": "eval_steps",
    "save_steps": "save_steps",
    "save_total_limit": "save_total_limit",
    "gradient_checkpointing": "gradient_checkpointing",
    "report_to": "report_to",
    "logging_dir": "logging_dir",
}
_SCHEDULES = get_args(TrainingSection.model_fields["lr_scheduler_type"].annotation)
_SHARES = ("logging_steps", "eval_steps", "save_steps")
_SAME = {
    "dataloader_num_workers": "batches are made beforehand, without further processes",
    "remove_unused_columns": "columns are named by the template",
}


@dataclass(frozen=True)
class Imported:
    """A workflow as a recipe.

    Args:
        values: Of a :class:`~slmops.config.FinetuneRecipe`.
        notes: What was understood otherwise, or not carried over, and why.
    """

    values: dict[str, Any]
    notes: tuple[str, ...]


def is_workflow(values: Mapping[str, Any]) -> bool:
    """Whether a file is one of Olive's and no recipe."""
    return "input_model" in values and "passes" in values


def to_recipe(values: Mapping[str, Any], name: str, where: str) -> Imported:
    """The recipe that does what a workflow does.

    Args:
        values: Of the file.
        name: Of the run.
        where: The file, for messages.

    Raises:
        ConfigError: It names no model, no data or no adapter's pass that can be had here.
    """
    notes: list[str] = []
    model = _model(_flat(values["input_model"]), notes, where)
    method, options = _pass(values["passes"], notes, where)
    data = _data(values, options, notes, where)
    training, lora = _training(options, notes)
    lora |= _PASSES[method]
    ignored = [key for key in ("systems", "evaluators", "engine", "host", "target", "azureml_client") if key in values]
    if ignored:
        notes.append(f"{', '.join(ignored)}: not carried over; slmops evaluate measures, and the export is slmops' own")
    output = values.get("output_dir") or _flat(values.get("engine") or {}).get("output_dir") or f"runs/{name}"
    return Imported(
        {
            "name": name,
            "task_type": "generation",
            "output_path": str(output),
            "model": model,
            "data": {"source": data, "special_tokens": "text", "test_share": 0},
            "training": {**training, "lora": lora},
        },
        tuple(notes),
    )


def _flat(section: Any) -> dict[str, Any]:
    """A section whose options may lie under ``config`` or ``params``, as older files have them."""
    found = dict(section) if isinstance(section, Mapping) else {}
    for inner in ("config", "params", "params_config", "hf_config"):
        if isinstance(nested := found.pop(inner, None), Mapping):
            found |= {key: value for key, value in _flat(nested).items() if key not in found}
    return found


def _model(section: dict[str, Any], notes: list[str], where: str) -> str:
    kind = str(section.get("type", "HfModel"))
    path = section.get("model_path") or section.get("model_name")
    if kind.lower() not in _MODELS or not isinstance(path, str):
        raise ConfigError(
            f"the input model (type {kind}) is none that can be trained",
            where=f"{where}: input_model",
            fix="HfModel with a model_path",
        )
    task = section.get("task")
    if task is not None and not str(task).startswith("text-generation"):
        raise ConfigError(
            f"the task {task!r} is none of a language model", where=f"{where}: input_model.task", fix="text-generation"
        )
    notes += [f"input_model.{key}: not carried over" for key in section if key not in ("type", "model_path", "model_name", "task")]
    return path


def _pass(passes: Any, notes: list[str], where: str) -> tuple[str, dict[str, Any]]:
    """The pass with an adapter, and its options."""
    named = passes.items() if isinstance(passes, Mapping) else enumerate(passes)
    listed = [(str(name), one) for name, given in named for one in (given if isinstance(given, list) else [given])]
    found: tuple[str, dict[str, Any]] | None = None
    for name, one in listed:
        kind = str(one.get("type", "")).lower() if isinstance(one, Mapping) else ""
        if kind in _PASSES and found is None:
            found = kind, {key: value for key, value in _flat(one).items() if key != "type"}
        else:
            notes.append(f"passes.{name} ({kind or 'no type'}): not carried over")
    if found is None:
        raise ConfigError("no pass trains an adapter", where=f"{where}: passes", fix=f"one of the type {', '.join(_PASSES)}")
    return found


def _data(values: Mapping[str, Any], options: dict[str, Any], notes: list[str], where: str) -> dict[str, Any]:
    given = values.get("data_configs") or []
    named = given.items() if isinstance(given, Mapping) else ((one.get("name"), one) for one in given)
    configs = {str(name): one for name, one in named}
    wanted = options.pop("train_data_config", None)
    train = wanted if isinstance(wanted, Mapping) else configs.get(str(wanted)) if wanted else next(iter(configs.values()), None)
    held_out = options.pop("eval_data_config", None)
    validation = held_out if isinstance(held_out, Mapping) else configs.get(str(held_out)) if held_out else None
    if train is None:
        raise ConfigError(
            "it names no data to train on", where=f"{where}: data_configs", fix="give a data config, and its name to the pass"
        )
    source = _source(train, where)
    shown = _flat(train.get("pre_process_data_config"))
    if "text_template" not in shown:
        raise ConfigError(
            "there is no text_template",
            where=f"{where}: pre_process_data_config",
            fix='such as "{prompt} => {response}": the last is the answer',
        )
    source["text_template"] = str(shown["text_template"])
    notes.append("text_template: the loss covers its last field and an end token; data.train_on=all: the whole text")
    notes += [f"pre_process_data_config.{key}: not carried over" for key in shown if key not in ("text_template", "type")]
    if split := _flat(train.get("load_dataset_config")).get("split"):
        source["train_split"] = str(split)
    if validation is not None:
        loaded = _flat(validation.get("load_dataset_config"))
        if (file := _files(validation, where)) not in (source.get("train"), source.get("id")):
            source["validation"] = file
        if loaded.get("split"):
            source["validation_split"] = str(loaded["split"])
    return source


def _source(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A hub data set, or files."""
    file = _files(config, where)
    if not is_hub_data(Path(file)):
        return {"name": "files", "train": file}
    subset = _flat(config.get("load_dataset_config")).get("subset")
    return {"name": "hub", "id": file, **({"config": str(subset)} if subset else {})}


def _files(config: Mapping[str, Any], where: str) -> str:
    loaded = _flat(config.get("load_dataset_config"))
    files = loaded.get("data_files") or loaded.get("data_name") or loaded.get("data_dir")
    if isinstance(files, Mapping):
        files = files.get("train")
    if isinstance(files, list) and len(files) == 1:
        files = files[0]
    if not isinstance(files, str):
        raise ConfigError("it names no file of data", where=f"{where}: load_dataset_config", fix="data_files: train.jsonl")
    return files


def _training(options: dict[str, Any], notes: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    arguments = {**_flat(options.pop("training_args", None)), **_flat(options.pop("training_config", None))}
    lora = {_LORA[key]: options.pop(key) for key in list(options) if key in _LORA}
    for key in ("target_modules", "modules_to_save"):
        if options.get(key):
            lora[key] = list(options.pop(key))
    arguments = {**options, **arguments}
    shares = [key for key in _SHARES if isinstance(arguments.get(key), float) and arguments[key] < 1]
    notes += [f"{key} {arguments.pop(key)}: not carried over; a number of updates is" for key in shares]
    training = {_TRAINING[key]: arguments.pop(key) for key in list(arguments) if key in _TRAINING and arguments[key] is not None}
    if arguments.get("lr_scheduler_type") in _SCHEDULES:
        training["lr_scheduler_type"] = arguments.pop("lr_scheduler_type")
    training |= _precision(arguments, notes)
    notes += _otherwise(arguments)
    return training, lora


def _precision(arguments: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    if arguments.pop("fp16", False):
        notes.append("fp16: bfloat16 instead, where the processor has it")
    return {} if not arguments.pop("bf16", False) else {"precision": "bfloat16"}


def _otherwise(arguments: Mapping[str, Any]) -> Iterable[str]:
    for key, value in arguments.items():
        if key == "optim" and str(value).startswith(("adamw", "paged_adamw")):
            yield f"optim {value}: AdamW"
        elif key == "lr_scheduler_type":
            yield f"lr_scheduler_type {value}: cosine"
        elif key in _SAME:
            yield f"{key}: {_SAME[key]}"
        else:
            yield f"{key}: not carried over"


def missing(values: Mapping[str, Any]) -> list[str]:
    """What a recipe's values need and is not here: files and packages, each with what to do."""
    from importlib.util import find_spec

    found = []
    for role in ("train", "validation"):
        path = values["data"]["source"].get(role)
        if path is not None and not Path(path).exists():
            found.append(f"data: there is no {path}; give the file's path in load_dataset_config.data_files")
    if values["data"]["source"].get("name") == "hub" and find_spec("datasets") is None:
        found.append("datasets is not installed: pip install 'slmops[hub]'")
    absent = [package for package in ("torch", "transformers", "accelerate", "peft") if find_spec(package) is None]
    return found + [f"{package} is not installed: pip install 'slmops[train]'" for package in absent]
