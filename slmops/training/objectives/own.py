"""A loss of the user's own: a class or a function in one Python file, which is run only where a recipe or a flag names it."""

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
from slmops.progress import say
from slmops.sections import PluginSpec
from slmops.tasks.base import names_file
from slmops.tasks.own import line_in, load_module
from slmops.training.objectives.base import WHERE, Answers, Objective
from slmops.training.objectives.modules import FORMS, OwnPairLoss, OwnTokenLoss, file_of, form_of
from slmops.training.registry import OWN, own_file

_FIX = (
    "write a class with needs_signal and __call__(self, answers) -> tensor of one loss a position, such a function, or a "
    f"torch.nn.Module: {FORMS.removeprefix('write ')}"
)


def open_own(spec: Mapping[str, Any]) -> Objective | OwnPairLoss:
    """The loss that a recipe names, in the form that its parameters say, checked.

    Raises:
        ConfigError: There is no such file, class or function, it refuses the options, or it breaks the contract.
    """
    place, found = _named(spec)
    left_out = {"name", "weight", *(["file"] if spec["name"] == OWN else [])}
    form = form_of(found, place)
    loss = _made(found, {key: value for key, value in spec.items() if key not in left_out}, place)
    try:
        if form is None:
            return OwnLoss.tried(place, loss)
        return (OwnTokenLoss if form == "tokens" else OwnPairLoss).tried(place, loss)
    except AssertionError as broken:
        raise ConfigError(
            f"the loss breaks a promise of objectives: {broken}",
            where=place,
            fix="slmops.testing.objectives.check_objective says what a loss has to keep",
        ) from broken


def objectives_with(file: str, weight: float | None) -> list[PluginSpec]:
    """The ``objectives`` of a recipe that trains with a loss of the user's own: cross-entropy goes beside one on pairs.

    A loss on tokens takes the place of cross-entropy, but where it is given a weight.

    Args:
        file: ``my_loss.py:MyLoss``.
        weight: Of the loss, beside a cross-entropy of weight 1; ``None``: 1.

    Raises:
        ConfigError: There is no such file, class or function, or it takes other parameters than a loss.
    """
    if not names_file(file):
        fix = "write --loss my_loss.py:MyLoss; losses that have a name stand in a recipe, as training.objectives"
        raise ConfigError(f"{file!r} names no Python file", where="--loss", fix=fix)
    path = file_of(file).absolute()
    place, found = _named({"name": str(path) + file[len(str(file_of(file))) :]})
    own = {"name": place, **({"weight": weight} if weight is not None else {})}
    form = form_of(found, place)
    alone = form != "pairs" and weight is None
    said = "on pairs of rows" if form == "pairs" else "on answer tokens"
    beside = "in place of cross-entropy" if alone else "beside cross-entropy with weight 1"
    say(f"loss: {found.__name__} of {path.name} {said} with weight {1 if weight is None else weight:g}, {beside}")
    return [own] if alone else [{"name": "cross_entropy"}, own]


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
    def tried(cls, place: str, loss: Callable[[Answers], torch.Tensor]) -> OwnLoss:
        """The loss, after it was held to what objectives promise.

        Raises:
            AssertionError: It breaks a promise.
        """
        from slmops.testing.objectives import check_objective

        check_objective(own := cls(place, loss))
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
            where = line_in(error, file_of(self.place)) or self.place
            raise ConfigError(f"the loss failed: {type(error).__name__}: {error}", where=where) from error
        if not isinstance(losses, torch.Tensor):
            raise ConfigError(f"the loss is {losses!r}, which is no tensor", where=self.place, fix=_FIX)
        return losses


def _named(spec: Mapping[str, Any]) -> tuple[str, Any]:
    """Where a loss is, with its name, and the class or function itself."""
    place = str(own_file(spec))
    path, _, name = place.rpartition(":") if ".py:" in place else (place, "", "")
    found = _find(load_module(Path(path)), path, name)
    return f"{path}:{found.__name__}", found


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
    losses = [value for value in known.values() if hasattr(value, "needs_signal") or _is_module(value)]
    if len(losses) != 1:
        what = "it has several losses" if losses else "it has no loss"
        raise ConfigError(what, where=path, fix=f"name one: {path}:{losses[0].__name__}" if losses else _FIX)
    return losses[0]


def _is_module(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, torch.nn.Module)


def _made(found: Any, options: Mapping[str, Any], place: str) -> Callable[..., Any]:
    if not inspect.isclass(found):
        if options:
            raise ConfigError(f"a function has no options, and {', '.join(options)} is given", where=place, fix="make it a class")
        function: Callable[..., Any] = found
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
    trained = [name for name, one in loss.named_parameters() if one.requires_grad] if _is_module(found) else []
    if trained:
        raise ConfigError(
            f"it has weights of its own ({', '.join(trained[:3])}), and only the model's are trained, saved and resumed",
            where=place,
            fix="keep what is fixed with register_buffer, and leave out what has to be learned",
        )
    made: Callable[..., Any] = loss
    return made
