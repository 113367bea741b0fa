"""From the name of a benchmark to its definition in the harness and to the local files with its data."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.errors import ConfigError, DataError, MissingExtraError, UsageError, nearest
from slmops.files import digest, write_text
from slmops.models.cache import cached_digest

BUILDERS = {"jsonl": "json", "json": "json", "csv": "csv", "parquet": "parquet"}
"""Endings of data files, the first found is taken, and what reads them."""

_SPLITS = ("training_split", "validation_split", "test_split")
_OUTPUTS = ("generate_until", "multiple_choice", "loglikelihood", "loglikelihood_rolling")
_DEFINED = re.compile(rb"^(task|group|tag):[ \t]*['\"]?([\w.-]+)['\"]?[ \t]*(?:#.*)?$", re.MULTILINE)


@dataclass(frozen=True)
class BenchmarkTask:
    """A task of the harness with local data.

    Args:
        name: Its name in the harness.
        file: YAML file that defines it.
        output: What it asks of a model, one of the harness's output types.
        shots: Examples before each question.
        version: The version that its definition states, ``""`` where it states none.
        origin: The data set that it was made for.
        files: Split to file, those that are needed only.
        definition: Digest of the definition and of the Python files beside it.
        changes: What differs from the definition, so that it reads local files.
    """

    name: str
    file: Path
    output: str
    shots: int
    version: str
    origin: str
    files: Mapping[str, Path]
    definition: str
    changes: Mapping[str, Any]

    @property
    def compares(self) -> bool:
        """Whether it needs the probabilities that a model gives to texts, as multiple choice does."""
        return self.output != "generate_until"

    @property
    def data(self) -> str:
        """Digest of its data."""
        return digest({split: cached_digest(file) for split, file in self.files.items()})

    def write(self, file: Path, cache: Path) -> None:
        """Write the task as the harness reads it: the definition with what differs; ``cache`` is for the data as tables."""
        import yaml

        changes = {**self.changes, "dataset_kwargs": {**self.changes["dataset_kwargs"], "cache_dir": str(cache)}}
        write_text(file, yaml.safe_dump({"include": str(self.file), "task": self.name, **changes}, sort_keys=False))


def find_task(reference: str, data: Path | None, shots: int | None, *, alone: bool) -> BenchmarkTask:
    """A task by its name in the harness or by its YAML file, with local files for its data.

    Args:
        reference: Name, such as ``gsm8k``, or a path that ends with ``.yaml``.
        data: Folder with ``TASK/SPLIT.jsonl`` (or ``.json``, ``.csv``, ``.parquet``); ``None``: the folder of the YAML file.
        shots: Examples before each question; ``None``: as the task says. A task that says 0 keeps it, as in the harness.
        alone: The only task, whose files may also lie in ``data`` itself.

    Raises:
        UsageError: No such task, or it is a group of tasks.
        ConfigError: The definition is wrong, or asks for what is not done here.
        DataError: A file is missing.
        MissingExtraError: The harness is not installed.
    """
    root = _root()
    own = reference.endswith((".yaml", ".yml"))
    file = Path(reference).expanduser().resolve() if own else _definition(reference, root)
    config = _read(file, reference)
    name = str(config["task"])
    _refuse(name, config)
    own_shots = config.get("num_fewshot")
    count = (own_shots or 0) if shots is None or own_shots == 0 else shots
    folder = data if data is not None else file.parent if own else None
    if folder is None:
        fix = f"--data_path FOLDER with FOLDER/{name}/{_questions(name, config)}.jsonl; nothing is downloaded"
        raise UsageError(f"where is the data of {name}?", where="--tasks", fix=fix)
    origin = "/".join(str(config[key]) for key in ("dataset_path", "dataset_name") if config.get(key))
    place = next((one for one in (folder / name, folder) if one.is_dir() and (alone or one != folder)), folder / name)
    files = {split: _file(place, split, name, origin, why) for split, why in _needed(name, config, count).items()}
    code = {one.name: cached_digest(one) for one in sorted(file.parent.glob("*.py"))}
    return BenchmarkTask(
        name,
        file,
        str(config.get("output_type", "generate_until")),
        count,
        str(_mapping(config.get("metadata")).get("version", "")),
        origin,
        files,
        digest([str(config).replace(str(file.parent), ""), code]),
        _changes(name, config, files, count),
    )


def _root() -> Path:
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise MissingExtraError("lm_eval", "benchmarks")
    return Path(spec.origin).parent / "tasks"


def _definition(name: str, root: Path) -> Path:
    """Looks at the text of the files: reading all as YAML takes the harness half a minute."""
    kinds: dict[str, str] = {}
    for file in sorted(root.rglob("*.yaml")):
        for kind, found in _DEFINED.findall(file.read_bytes()):
            known = found.decode()
            if known == name and kind == b"task":
                return file
            kinds.setdefault(known, kind.decode())
    if name in kinds:
        raise UsageError(f"{name} is a {kinds[name]} of tasks", where="--tasks", fix="name the tasks in it, separated by commas")
    raise UsageError(
        f"the harness has no task {name!r}", where="--tasks", fix=_near(name, kinds) + ", or the path of a task's YAML file"
    )


def _near(name: str, kinds: Mapping[str, str]) -> str:
    tasks = [known for known, kind in kinds.items() if kind == "task"]
    said = nearest(name, tasks)
    return said if said.startswith("did") else f"such as {', '.join(('gsm8k', 'hellaswag', 'piqa', 'arc_easy'))}"


def _read(file: Path, reference: str) -> dict[str, Any]:
    """The definition with what it includes; functions are names."""
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    if not file.is_file():
        raise UsageError("there is no such file", where=reference, fix="give the YAML file of a task")
    try:
        config = load_yaml(file, resolve_func=False)
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise ConfigError(f"not the definition of a task: {error}", where=str(file)) from error
    if not isinstance(config.get("task"), str):
        raise ConfigError("it defines no single task", where=str(file), fix="a task has a key 'task' with its name")
    if not isinstance(config.get("num_fewshot") or 0, int):
        raise ConfigError("num_fewshot is no number", where=str(file))
    return dict(config)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _refuse(name: str, config: Mapping[str, Any]) -> None:
    """What would reach the network, run a model's code, or need more than text."""
    metrics = [one for one in config.get("metric_list") or () if isinstance(one, Mapping)]
    hub_metrics = [str(one.get("metric")) for one in metrics if one.get("hf_evaluate")]
    output = config.get("output_type", "generate_until")
    reasons = {
        "it is Python code of its own that fetches its data": "class" in config,
        "it runs code that the model writes": bool(config.get("unsafe_code")),
        "it needs pictures or sound": bool(config.get("doc_to_image") or config.get("doc_to_audio")),
        f"it fetches code for its metric ({', '.join(hub_metrics)})": bool(hub_metrics),
        f"its output type {output!r} is none of {', '.join(_OUTPUTS)}": output not in _OUTPUTS,
    }
    for reason, holds in reasons.items():
        if holds:
            raise ConfigError(f"{name} cannot be run here: {reason}", where="--tasks", fix="choose another task")


def _questions(name: str, config: Mapping[str, Any]) -> str:
    """The split that is asked: the test split, else the validation split, as in the harness."""
    split = config.get("test_split") or config.get("validation_split")
    if not split:
        raise ConfigError(f"{name} names neither a test_split nor a validation_split", where="--tasks")
    return str(split)


def _needed(name: str, config: Mapping[str, Any], shots: int) -> dict[str, str]:
    """Split to what it is for."""
    needed = {_questions(name, config): "the questions"}
    split = _shown(config)
    if shots and split is not None:
        needed.setdefault(split, f"the {shots} examples before each (or --num_fewshot 0)")
    return needed


def _shown(config: Mapping[str, Any]) -> str | None:
    """The split that examples come from, by the harness's rule; ``None``: they stand in the definition."""
    more = _mapping(config.get("fewshot_config"))
    split = more.get("split") or config.get("fewshot_split")
    if split is None and more.get("samples"):
        return None
    return str(split or next(config[key] for key in _SPLITS if config.get(key)))


def _file(place: Path, split: str, name: str, origin: str, why: str) -> Path:
    for ending in BUILDERS:
        if (place / f"{split}.{ending}").is_file():
            return (place / f"{split}.{ending}").resolve()
    raise DataError(
        f"the file {split}.jsonl is missing: {name} takes {why} from it",
        where=str(place),
        fix=f"put the split {split!r} of {origin or 'its data set'} there as {', '.join(f'.{ending}' for ending in BUILDERS)}, "
        "with the columns it has there",
    )


def _changes(name: str, config: Mapping[str, Any], files: Mapping[str, Path], shots: int) -> dict[str, Any]:
    builders = {BUILDERS[file.suffix.removeprefix(".")] for file in files.values()}
    if len(builders) > 1:
        listed = ", ".join(map(str, files.values()))
        raise DataError(f"the files of {name} are of several formats: {listed}", fix="convert them to one, such as .jsonl")
    questions = next(iter(files))
    changes: dict[str, Any] = {
        "dataset_path": builders.pop(),
        "dataset_name": None,
        "custom_dataset": None,
        "dataset_kwargs": {"data_files": {split: str(file) for split, file in files.items()}},
        "num_fewshot": shots,
        **{key: None for key in _SPLITS if config.get(key) not in files},
    }
    if shots == 0:  # the harness opens the split of the examples also where none are shown
        changes |= {"fewshot_split": questions, "fewshot_config": {"split": questions}}
    return changes
