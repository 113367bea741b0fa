"""One task on one model, by the harness itself, without a network for data."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.errors import ConfigError, DataError, ModelError, SlmopsError
from slmops.evaluation.benchmarks.tasks import BenchmarkTask
from slmops.progress import say

_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
_SWITCHES = {"huggingface_hub.constants": ("HF_HUB_OFFLINE",), "datasets.config": ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")}
"""Where libraries that are loaded already keep what they read from the environment."""


@dataclass(frozen=True)
class Found:
    """What the harness says of a task.

    Args:
        values: ``metric,filter`` to value and ``metric_stderr,filter`` to its standard error.
        higher_is_better: By metric, where the task says so.
        rows: Questions asked.
        of: Questions there are.
        cut: Whether prompts that did not fit into the context lost their beginning, as the harness does it.
        samples: One row a question and filter: what was asked, answered, wanted, and what each metric makes of it.
    """

    values: Mapping[str, Any]
    higher_is_better: Mapping[str, bool | None]
    rows: int
    of: int
    cut: bool
    samples: Sequence[Mapping[str, Any]]


def run_task(lm: Any, task: BenchmarkTask, work: Path, *, limit: int | None, seed: int, chat: bool) -> Found:
    """Ask a model the questions of a task.

    Args:
        lm: The model, a ``lm_eval.api.model.LM``.
        task: What to ask.
        work: Folder for files that are not kept.
        limit: Most questions, the first ones; ``None`` for all.
        seed: Chooses the examples that are shown, and what is drawn.
        chat: Ask in the model's chat template, each example a turn.

    Raises:
        DataError: The files lack something that the task needs, or a prompt does not fit.
        ModelError: A server refuses or does not answer.
    """
    with _warnings() as warned:
        found = _evaluate(lm, task, work, limit=limit, seed=seed, chat=chat)
    rows = found["n-samples"][task.name]
    cut = any("truncati" in text.lower() for text in warned)
    if cut:
        say(f"  {task.name}: prompts that do not fit into the model's context lost their beginning; lower --num_fewshot")
    samples = [_sample(one) for one in found["samples"][task.name]]
    return Found(
        found["results"][task.name], found["higher_is_better"][task.name], rows["effective"], rows["original"], cut, samples
    )


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Keep the libraries of the harness from the hub."""
    loaded = [(sys.modules[name], key) for name, keys in _SWITCHES.items() if name in sys.modules for key in keys]
    before = {name: os.environ.get(name) for name in _OFFLINE}
    kept = [(module, key, getattr(module, key)) for module, key in loaded]
    os.environ.update(_OFFLINE)
    for module, key in loaded:
        setattr(module, key, True)
    try:
        yield
    finally:
        for module, key, value in kept:
            setattr(module, key, value)
        for name, text in before.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text


def version() -> str:
    """Of the harness."""
    from importlib.metadata import version as installed

    return installed("lm_eval")


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the harness logs as warnings, which then does not reach the screen."""
    logger, texts = logging.getLogger("lm_eval"), list[str]()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield texts
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _evaluate(lm: Any, task: BenchmarkTask, work: Path, *, limit: int | None, seed: int, chat: bool) -> Any:
    import numpy as np
    from lm_eval import evaluator
    from lm_eval.utils import set_torch_seed

    loaded = _load(task, work)
    loaded["tasks"][task.name].set_fewshot_seed(seed=seed)
    random.seed(seed)
    np.random.seed(seed)
    set_torch_seed(seed)
    try:
        return evaluator.evaluate(lm, loaded, limit=limit, apply_chat_template=chat, fewshot_as_multiturn=True)
    except SlmopsError:
        raise
    except Exception as error:
        raise _explained(error, task, chat) from error


def _load(task: BenchmarkTask, work: Path) -> Any:
    import datasets
    from lm_eval.tasks import TaskManager

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    file = work / f"{task.name}.yaml"
    task.write(file, work / "tables")
    listed = ", ".join(str(one) for one in task.files.values())
    try:
        return TaskManager(include_defaults=False).load([str(file)])
    except datasets.exceptions.DatasetGenerationError as error:
        fix = "each file holds one JSON object a line (.jsonl), and all files have the same columns"
        raise DataError(f"the data cannot be read as a table: {error.__cause__ or error}", where=listed, fix=fix) from error
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the functions of the task cannot be loaded: {error}", where=str(task.file)) from error
    except Exception as error:  # whatever a template or a function of the task does with a row that it was not made for
        raise DataError(
            f"the task {task.name} cannot be made from the data: {type(error).__name__}: {error}",
            where=listed,
            fix=f"the rows need the columns of {task.origin}" if task.origin else f"see the columns that {task.file} names",
        ) from error


def _explained(error: Exception, task: BenchmarkTask, chat: bool) -> SlmopsError:
    import requests

    if isinstance(error, requests.RequestException):
        status = getattr(error.response, "status_code", None)
        fix = "the same command continues with the tasks that are not done"
        if status in (404, 405) and not chat:
            fix = "it may have chats only: add --apply_chat_template"
        return ModelError(f"the server failed: {error}", fix=fix)
    return DataError(f"the harness failed on {task.name}: {type(error).__name__}: {error}", where=str(task.file))


def _sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The part that is kept of what the harness logs of a question."""
    kept = {
        "row": sample["doc_id"],
        "row_hash": sample["doc_hash"],
        "filter": sample["filter"],
        "prompt": _text(sample["arguments"][0][0]),
        "target": sample["target"],
        "answers": sample["resps"],
        "filtered": sample["filtered_resps"],
        "metrics": {name: _plain(sample[name]) for name in sample["metrics"]},
    }
    plain: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return plain


def _text(prompt: Any) -> str:
    """The prompt; of a chat that a server is sent, its JSON."""
    return str(prompt[0] if isinstance(prompt, tuple | list) else prompt)


def _plain(value: Any) -> Any:
    """A number as Python's; what a metric of the whole set needs of a row is ``None``, as it has no value of its own."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
