"""Losses of a user's file as guides write them: on logits and labels, or on the embeddings of two rows."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from slmops.errors import ConfigError, SlmopsError, at
from slmops.tasks.own import line_in
from slmops.training.objectives.base import Answers

Form = Literal["tokens", "pairs"]
Reduction = Literal["none", "mean", "sum"]
FORMS = "write forward(self, logits, labels), or forward(self, output1, output2, label) for pairs of rows"

_EXAMPLES, _VOCABULARY, _WIDTH = 6, 11, 8


def form_of(loss: Any, place: str) -> Form | None:
    """What a class derived from ``torch.nn.Module``, or a function, is called with, by its parameters without a default.

    Returns:
        ``None`` for a function of one parameter and for any other class, which are called with
        :class:`~slmops.training.objectives.base.Answers`.

    Raises:
        ConfigError: Two parameters, or three, are understood; triplets are not.
    """
    is_module = inspect.isclass(loss) and issubclass(loss, torch.nn.Module)
    if not is_module and not inspect.isfunction(loss):
        return None
    function = loss.forward if is_module else loss
    known = list(inspect.signature(function).parameters.values())[int(is_module) :]
    required = [one.name for one in known if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    if not is_module and len(required) == 1:
        return None
    where = place_of(function, place)
    if len(required) == 3 and required[-1].startswith("neg"):
        raise ConfigError(f"a loss on triplets ({', '.join(required)}) is not understood", where=where, fix=FORMS)
    if len(required) not in (2, 3):
        raise ConfigError(
            f"{function.__name__} takes {', '.join(required) or 'nothing by name'}, neither two nor three things",
            where=where,
            fix=FORMS,
        )
    return "tokens" if len(required) == 2 else "pairs"


def place_of(function: Any, place: str) -> str:
    """``file:line`` of a function of the file that ``place`` (``file.py:name``) names; the place itself of any other."""
    code, file = getattr(inspect.unwrap(function), "__code__", None), file_of(place)
    return at(file, code.co_firstlineno) if code is not None and Path(code.co_filename).resolve() == file.resolve() else place


def file_of(place: str) -> Path:
    """The file of ``file.py:name`` or ``file.py``."""
    return Path(place.rpartition(".py")[0] + ".py")


@dataclass(frozen=True)
class _Called:
    """The user's loss, its result checked.

    Args:
        place: ``file.py:name``.
        loss: What is called.
        reduction: What it makes of the losses of several positions or pairs.
    """

    place: str
    loss: Callable[..., Any]
    reduction: Reduction

    @property
    def needs_signal(self) -> bool:
        """It gets none."""
        return False

    def each(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The losses of ``N`` positions or pairs, ``[N]``; of a mean or a sum equal parts, so that their sum is right."""
        count = len(inputs[0])
        value = self._value(inputs)
        if self.reduction == "none":
            return value
        return (value.reshape(()) / (count if self.reduction == "sum" else 1)).expand(count)

    def alone(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The same with each position or pair by itself."""
        parts = [tuple(one[index : index + 1] for one in inputs) for index in range(len(inputs[0]))]
        return torch.stack([self._value(part).reshape(()) for part in parts])

    def _value(self, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        if isinstance(self.loss, torch.nn.Module):
            self.loss.to(inputs[0].device)
        try:
            value = self.loss(*inputs)
        except SlmopsError:
            raise
        except Exception as error:  # whatever the user's code raises
            shapes = ", ".join(str(list(one.shape)) for one in inputs)
            raise ConfigError(
                f"the loss failed on inputs of the shapes {shapes}: {type(error).__name__}: {error}",
                where=line_in(error, file_of(self.place)) or self.place,
            ) from error
        if not isinstance(value, torch.Tensor):
            raise ConfigError(f"the loss is {value!r}, which is no tensor", where=self._where, fix="return a tensor")
        return value

    @property
    def _where(self) -> str:
        return place_of(self.loss.forward if isinstance(self.loss, torch.nn.Module) else self.loss, self.place)

    def _reduced(self, inputs: tuple[torch.Tensor, ...], what: str) -> Reduction:
        """What the loss makes of several, tried on some.

        Raises:
            ConfigError: It is not the same when asked again, not finite, or not made of the losses of each.
        """
        count = len(inputs[0])
        before = {name: one.clone() for name, one in _buffers(self.loss).items()}
        together = self._value(inputs)
        if not torch.equal(together, self._value(inputs)) and together.isfinite().all():
            raise ConfigError("asked twice about the same, the loss differs", where=self._where, fix="leave randomness out of it")
        if any(not torch.equal(one, before[name]) for name, one in _buffers(self.loss).items()):
            raise ConfigError(
                "the loss keeps something from one call to the next, which a resumed run would not have",
                where=self._where,
                fix="make it depend on what it is called with alone",
            )
        if not together.isfinite().all():
            raise ConfigError(f"the loss of {count} {what} is not finite: {together.tolist()}", where=self._where)
        if not together.requires_grad:
            fix = "compute it from the inputs with torch's functions, without detach(), item() or no_grad()"
            raise ConfigError("the loss has no gradient, so nothing would be learned", where=self._where, fix=fix)
        if together.shape == (count,):
            return "none"
        if together.numel() != 1:
            raise ConfigError(
                f"the loss of {count} {what} has the shape {list(together.shape)}",
                where=self._where,
                fix=f"return one loss for each, [{count}], their mean or their sum; keepdim=True makes a column of it",
            )
        each = self.alone(*inputs)
        for name, whole in (("mean", each.mean()), ("sum", each.sum())):
            if torch.allclose(together.reshape(()), whole, rtol=1e-4, atol=1e-6):
                return "mean" if name == "mean" else "sum"
        raise ConfigError(
            f"the loss of {count} {what} is {together.item():.6g}, neither the mean ({each.mean().item():.6g}) nor the sum of what "
            "each costs alone, so it would depend on how rows are put into batches",
            where=self._where,
            fix="return the mean over what each costs by itself; a distance with keepdim=True meets every label, not its own",
        )


@dataclass(frozen=True)
class OwnTokenLoss(_Called):
    """``forward(logits, labels)`` with the logits at answer positions, float32 ``[N, V]``, and the tokens there, int64 ``[N]``."""

    @classmethod
    def tried(cls, place: str, loss: Callable[..., Any]) -> OwnTokenLoss:
        """The loss, after it was held to what objectives promise.

        Raises:
            ConfigError: It fails, or what it returns cannot be trained on.
            AssertionError: It breaks another promise of :func:`slmops.testing.objectives.check_objective`.
        """
        from slmops.testing.objectives import check_objective

        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(_EXAMPLES, _VOCABULARY, generator=generator).requires_grad_(True)
        labels = torch.randint(_VOCABULARY, (_EXAMPLES,), generator=generator)
        made = cls(place, loss, "none")
        made = replace(made, reduction=made._reduced((logits, labels), "positions"))
        check_objective(made)
        return made

    @property
    def singly(self) -> _Singly:
        """The same, asked about each position by itself."""
        return _Singly(self)

    def __call__(self, answers: Answers) -> torch.Tensor:
        """The loss at each position, float32 ``[N]``; of a loss that is a mean, that mean.

        Raises:
            ConfigError: The user's code fails.
        """
        return self.each(answers.logits, answers.labels)


@dataclass(frozen=True)
class OwnPairLoss(_Called):
    """``forward(output1, output2, label)`` with the embeddings of two rows, float32 ``[P, H]``, and ``label``, float32 ``[P]``.

    The label is 0 where both rows have the same answer, and 1 where they have different ones. An embedding is the mean of the
    last hidden states over a row's question, of length one, so that distances go from 0 to 2.
    """

    @classmethod
    def tried(cls, place: str, loss: Callable[..., Any]) -> OwnPairLoss:
        """The loss, after it was held to what losses on pairs promise.

        Raises:
            ConfigError: It fails, or what it returns cannot be trained on.
            AssertionError: It breaks another promise of :func:`slmops.testing.pairs.check_own_pairs`.
        """
        from slmops.testing.pairs import check_own_pairs

        generator = torch.Generator().manual_seed(0)
        left, right = (torch.randn(_EXAMPLES, _WIDTH, generator=generator) for _ in range(2))
        one, other = (torch.nn.functional.normalize(side, dim=-1) for side in (left, left + 0.5 * right))
        made = cls(place, loss, "none")
        made = replace(made, reduction=made._reduced((one.requires_grad_(True), other, _alternating()), "pairs"))
        check_own_pairs(made)
        return made

    def pooled(self, states: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """Embeddings of ``S`` texts, float32 ``[S, H]``.

        Args:
            states: Of the last layer, ``[S, T, H]``.
            read: bool ``[S, T]``, false at padding.
        """
        weights = read.unsqueeze(-1).float()
        return torch.nn.functional.normalize((states.float() * weights).sum(1), dim=-1)

    def losses(self, left: torch.Tensor, right: torch.Tensor, different: torch.Tensor) -> torch.Tensor:
        """The loss of each of ``P`` pairs, ``[P]``; of a loss that is a mean, that mean.

        Args:
            left: Embeddings of the first rows, ``[P, H]``.
            right: Of the second.
            different: bool ``[P]``.

        Raises:
            ConfigError: The user's code fails.
        """
        return self.each(left, right, different.float())


@dataclass(frozen=True)
class _Singly:
    """A loss that is a mean or a sum, asked about each position by itself."""

    loss: OwnTokenLoss

    @property
    def needs_signal(self) -> bool:
        return False

    def __call__(self, answers: Answers) -> torch.Tensor:
        return self.loss.alone(answers.logits, answers.labels)


def _alternating() -> torch.Tensor:
    return (torch.arange(_EXAMPLES) % 2).float()


def _buffers(loss: Any) -> dict[str, torch.Tensor]:
    return dict(loss.named_buffers()) if isinstance(loss, torch.nn.Module) else {}
