"""A loss of the user's own: a class or a function in one Python file, which is run only where a recipe names it by its path."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pydantic import BaseModel

from slmops.config import build
from slmops.errors import ConfigError, SlmopsError, nearest
from slmops.tasks.own import load_module
from slmops.training.objectives.base import WHERE, Answers
from slmops.training.registry import OWN, own_file

_FIX = "write a class with needs_signal and __call__(self, answers) -> tensor of one loss a position, or such a function"


@dataclass(frozen=True)
class OwnLoss:
    """A loss of the user's own, in a recipe ``{name: own, file: my_loss.py:MyLoss, <options>}`` or ``{name: my_loss.py:MyLoss}``.

    ``MyLoss`` is a class with ``needs_signal`` and ``__call__(self, answers)``, made with the recipe's options as keywords; or
    a function ``my_loss(answers)``, which has no options and needs the teacher's signal if it has an attribute
    ``needs_signal = True``. ``answers`` is an :class:`~slmops.training.objectives.base.Answers`; the result is a float32 tensor
    with one loss a position. The classes of the file may derive from ``slmops.sections.Section`` to have their options checked.

    Before it trains anything it is held to ``slmops.testing.objectives.check_objective``.
    """

    place: str
    loss: Callable[[Answers], torch.Tensor]

    @classmethod
    def open(cls, spec: Mapping[str, Any]) -> OwnLoss:
        """The loss that a recipe names, checked.

        Raises:
            ConfigError: There is no such file, class or function, it refuses the options, or it breaks the contract.
        """
        from slmops.testing.objectives import check_objective

        place = str(own_file(spec))
        path, _, name = place.rpartition(":") if ".py:" in place else (place, "", "")
        found = _find(load_module(Path(path)), path, name)
        left_out = {"name", "weight", *(["file"] if spec["name"] == OWN else [])}
        options = {key: value for key, value in spec.items() if key not in left_out}
        own = cls(place, _made(found, options, place))
        try:
            check_objective(own)
        except AssertionError as broken:
            raise ConfigError(
                f"the loss breaks a promise of objectives: {broken}",
                where=place,
                fix="slmops.testing.objectives.check_objective says what a loss has to keep",
            ) from broken
        return own

    @property
    def needs_signal(self) -> bool:
        """As the user's says."""
        return bool(getattr(self.loss, "needs_signal", False))

    @property
    def takes_samples(self) -> bool:
        """As the user's says."""
        return bool(getattr(self.loss, "takes_samples", False))

    @property
    def across_tokenizers(self) -> bool:
        """As the user's says."""
        return bool(getattr(self.loss, "across_tokenizers", False))

    def __call__(self, answers: Answers) -> torch.Tensor:
        """The user's loss at each position.

        Raises:
            ConfigError: It needs a signal and there is none, or its code fails.
        """
        if self.needs_signal and answers.signal is None:
            raise ConfigError("this loss needs a teacher's signals", where=self.place, fix=f"leave it out of {WHERE}")
        try:
            losses = self.loss(answers)
        except SlmopsError:
            raise
        except Exception as error:  # whatever the user's code raises
            raise ConfigError(f"the loss failed: {type(error).__name__}: {error}", where=self.place) from error
        if not isinstance(losses, torch.Tensor):
            raise ConfigError(f"the loss is {losses!r}, which is no tensor", where=self.place, fix=_FIX)
        return losses


def _find(module: ModuleType, path: str, name: str) -> Any:
    known = {
        key: value
        for key, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and not key.startswith("_") and callable(value)
    }
    if name:
        if name not in known:
            raise ConfigError(f"there is no loss {name!r}", where=path, fix=nearest(name, known) if known else _FIX)
        return known[name]
    losses = [value for value in known.values() if hasattr(value, "needs_signal")]
    if len(losses) != 1:
        what = "it has several losses" if losses else "it has no loss"
        raise ConfigError(what, where=path, fix=f"name one: {path}:{losses[0].__name__}" if losses else _FIX)
    return losses[0]


def _made(found: Any, options: Mapping[str, Any], place: str) -> Callable[[Answers], torch.Tensor]:
    if not inspect.isclass(found):
        if options:
            raise ConfigError(f"a function has no options, and {', '.join(options)} is given", where=place, fix="make it a class")
        function: Callable[[Answers], torch.Tensor] = found
        return function
    if issubclass(found, BaseModel):
        loss: Any = build(found, options, where=place)
    else:
        try:
            loss = found(**options)
        except Exception as error:  # whatever the user's code raises
            raise ConfigError(
                f"it cannot be made: {type(error).__name__}: {error}", where=place, fix="check its options"
            ) from error
    if not callable(loss):
        raise ConfigError(f"{found.__name__} has no __call__", where=place, fix=_FIX)
    made: Callable[[Answers], torch.Tensor] = loss
    return made
