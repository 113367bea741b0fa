"""A task of the user's own: a class in one Python file, which is run only where a recipe or a flag names it by its path."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from slmops.errors import ConfigError, at, nearest
from slmops.files import file_digest

_METHODS = ("complete", "ask", "parse", "rationale", "training_rows", "score", "correct", "primary_measure", "answer_schema")


def load_class(reference: str) -> type[BaseModel]:
    """The task class of ``file.py``, or of ``file.py:Class`` where the file has several.

    Raises:
        ConfigError: No such file or class, the file cannot be run, or the class lacks a method of a task.
    """
    path, _, name = reference.partition(".py:") if ".py:" in reference else (reference.removesuffix(".py"), "", "")
    file = Path(path + ".py")
    module = load_module(file)
    found: dict[str, type[BaseModel]] = {key: value for key, value in vars(module).items() if _is_own_model(value, module)}
    if name and name not in found:
        raise ConfigError(f"there is no task class {name!r}", where=str(file), fix=nearest(name, found) if found else _FIX)
    tasks = [found[name]] if name else [value for value in found.values() if not _missing(value)]
    if len(tasks) != 1:
        what = "it has several task classes" if tasks else "it has no task class"
        raise ConfigError(what, where=str(file), fix=f"name one: {file}:{tasks[0].__name__}" if tasks else _FIX)
    missing = _missing(tasks[0])
    if missing:
        raise ConfigError(f"the class {tasks[0].__name__} lacks {', '.join(missing)}", where=str(file), fix=_FIX)
    return tasks[0]


def load_module(file: Path) -> ModuleType:
    """Run a Python file as a module; the same contents are run once a process.

    Raises:
        ConfigError: No such file, or its code fails.
    """
    if not file.is_file():
        raise ConfigError("no such file", where=str(file), fix="give the path of a Python file")
    name = f"slmops_own_{file.stem}_{file_digest(file)[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError("this is no Python file", where=str(file))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic and pickle look a class up by its module's name
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        del sys.modules[name]
        where = line_in(error, file) or str(file)
        raise ConfigError(f"the file cannot be run: {type(error).__name__}: {error}", where=where) from error
    return module


def line_in(error: BaseException, file: Path) -> str | None:
    """``file:line`` of the last line of a user's file that an error came through; ``None`` where it came through none."""
    if isinstance(error, SyntaxError) and error.filename is not None and Path(error.filename).resolve() == file.resolve():
        return at(file, error.lineno)
    frames = [one for one in traceback.extract_tb(error.__traceback__) if Path(one.filename).resolve() == file.resolve()]
    return at(file, frames[-1].lineno) if frames else None


def load_function(reference: str) -> Any:
    """The function that ``file.py:name`` names.

    Raises:
        ConfigError: No such file or function.
    """
    path, colon, name = reference.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise ConfigError(f"{reference!r} names no function", fix="write path/to/file.py:function")
    function = getattr(load_module(Path(path)), name, None)
    if not callable(function):
        raise ConfigError(f"there is no function {name!r}", where=path)
    return function


_FIX = "write a class derived from slmops.tasks.prompts.Prompted with parse, score, correct and primary_measure"


def _is_own_model(value: Any, module: ModuleType) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == module.__name__


def _missing(model: type[BaseModel]) -> list[str]:
    return [name for name in _METHODS if not hasattr(model, name)]
