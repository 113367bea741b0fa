"""A measure of the user's own: a function in a Python file, or what a task of the user's own scores by itself."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, Literal

from slmops.errors import ConfigError
from slmops.evaluation.measures import Measure
from slmops.evaluation.outputs import Outputs
from slmops.evaluation.tally import Tally
from slmops.tasks.own import load_function

_FIX = "write metric(answer, reference, row) -> float, or metric(answers, references) -> float for a measure of the whole set"


def own_tally(reference: str, outputs: Outputs) -> Tally:
    """What a function of the user's makes of the answers; its file's code runs.

    ``metric(answer, reference, row)`` is asked for each row, with the row as a mapping (``id``, ``messages``, ``answer``, ...),
    and the measure is the mean. ``metric(answers, references)`` is asked once for all, and has no interval. Answers are in their
    normal form where they are valid, else as generated; references are in theirs.

    Args:
        reference: ``path/to/file.py``, whose function is named ``metric``, or ``path/to/file.py:function``.
        outputs: What a model made of the test rows.

    Raises:
        ConfigError: No such function, it takes other arguments, fails, or returns no number.
    """
    function, each = _load(reference)
    answers = [raw if read is None else read for raw, read in zip(outputs.answers, outputs.read, strict=True)]
    if not each:
        return Tally.fixed(_call(function, reference, "", answers, list(outputs.expected)), len(answers))
    rows = zip(answers, outputs.expected, outputs.rows, strict=True)
    return Tally.mean([_call(function, reference, row.origin or row.id, text, right, row.as_dict()) for text, right, row in rows])


def own_measure(reference: str) -> Measure:
    """How a report names it: the function's name and the first line of its docstring.

    Higher is better, unless the function has an attribute ``better = "lower"``.

    Raises:
        ConfigError: As :func:`own_tally`.
    """
    function, each = _load(reference)
    better: Literal["higher", "lower"] = "lower" if getattr(function, "better", "higher") == "lower" else "higher"
    about = (inspect.getdoc(function) or "").partition("\n")[0] or f"The user's own measure, {reference}."
    return Measure(getattr(function, "__name__", reference), "", better, about, of_rows="score" if each else "")


def task_tally(name: str, outputs: Outputs) -> Tally:
    """A measure as the task itself scores it: the mean of the rows' where it is that, else a number of the whole set."""
    whole = outputs.task.score(outputs.answers, outputs.references)[name]
    mean = Tally.mean([scores[name] for scores in outputs.row_scores])
    return mean if math.isclose(mean.value, whole, rel_tol=1e-9, abs_tol=1e-12) else Tally.fixed(whole, len(outputs.rows))


def scored_by_task(outputs: Outputs) -> set[str]:
    """The measures that a task of the user's own scores by a method of its own; none for those of this package."""
    score: Any = type(outputs.task).score
    return set() if score.__module__.startswith("slmops.tasks.") else set(outputs.scored)


def _load(reference: str) -> tuple[Callable[..., Any], bool]:
    """The function, and whether it is asked for each row."""
    where = reference if ".py:" in reference else f"{reference}:metric"
    function: Callable[..., Any] = load_function(where)
    try:
        taken = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ConfigError("this is no function of Python's", where=where, fix=_FIX) from error
    needed = [one for one in taken if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if len(needed) not in (2, 3):
        raise ConfigError(f"it takes {len(needed)} arguments", where=where, fix=_FIX)
    return function, len(needed) == 3


def _call(function: Callable[..., Any], reference: str, row: str, *given: Any) -> float:
    place = f"{reference}, row {row}" if row else reference
    try:
        value = function(*given)
    except Exception as error:  # whatever the user's code raises
        raise ConfigError(f"the measure failed: {type(error).__name__}: {error}", where=place) from error
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the measure is {value!r}, which is no number", where=place, fix=_FIX) from error
    if not math.isfinite(number):
        raise ConfigError(f"the measure is {number}", where=place, fix="return a finite number")
    return number
