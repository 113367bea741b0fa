"""What a search may vary: ranges of numbers and choices, from a recipe, a file or the command line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import yaml
from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from slmops.errors import ConfigError, UsageError
from slmops.files import canonical
from slmops.sections import Section

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_DIGITS = 4
_RANGE = re.compile(r"(?P<low>[^:]+?)\.\.(?P<high>[^:]+)(?P<options>(:[^:]*)*)")
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
_WHOLE = re.compile(r"[+-]?\d+")


class FloatRange(Section):
    """Numbers between two bounds, both included; what is drawn is rounded to four significant digits."""

    type: Literal["float"]
    low: float
    high: float
    log: bool = Field(False, description="Draw the logarithm evenly")
    points: int | None = Field(None, ge=2, description="How many values a grid tries; other strategies draw from all")

    @model_validator(mode="after")
    def _in_order(self) -> FloatRange:
        return _checked(self)

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log)

    def value(self, drawn: Any) -> float:
        """The recipe's value for what Optuna has drawn."""
        return min(max(float(f"{drawn:.{_DIGITS}g}"), self.low), self.high)

    def drawn(self, value: Any) -> Any:
        """What Optuna would have drawn for a value; ``None`` where the range has it not."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if number and self.low <= value <= self.high else None

    def grid(self) -> list[Any]:
        """The values that a grid tries, evenly or by logarithm.

        Raises:
            UsageError: Nobody says how many.
        """
        if self.points is None:
            raise UsageError("a grid cannot try every number of a range", fix="say how many: points: 5, or ...:points=5")
        return [self.value(value) for value in _spread(self.low, self.high, self.points, log=self.log)]

    def describe(self) -> str:
        """The range as people read it."""
        return f"{self.low:g} to {self.high:g}{', by logarithm' if self.log else ''}"


class IntRange(Section):
    """Whole numbers between two bounds, both included."""

    type: Literal["int"]
    low: int
    high: int
    log: bool = Field(False, description="Draw the logarithm evenly")
    step: int = Field(1, ge=1, description="Distance of neighbours, counted from the lower bound")
    points: int | None = Field(None, ge=2, description="How many values a grid tries at most; absent: all")

    @model_validator(mode="after")
    def _in_order(self) -> IntRange:
        if self.log and self.step != 1:
            raise ValueError("log and step do not go together")
        return _checked(self)

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.low + (self.high - self.low) // self.step * self.step, log=self.log, step=self.step)

    def value(self, drawn: Any) -> int:
        """The recipe's value for what Optuna has drawn."""
        return int(drawn)

    def drawn(self, value: Any) -> Any:
        """What Optuna would have drawn for a value; ``None`` where the range has it not."""
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
        return int(value) if whole and self.low <= value <= self.high and (value - self.low) % self.step == 0 else None

    def grid(self) -> list[Any]:
        """The values that a grid tries: all of them, or ``points`` that are spread evenly or by logarithm."""
        every = list(range(self.low, self.high + 1, self.step))
        if self.points is None or self.points >= len(every):
            return every
        wanted = _spread(self.low, every[-1], self.points, log=self.log)
        return sorted({min(every, key=lambda one: (abs(one - value), one)) for value in wanted})

    def describe(self) -> str:
        """The range as people read it."""
        steps = f", steps of {self.step}" if self.step > 1 else ""
        return f"{self.low} to {self.high}{steps}{', by logarithm' if self.log else ''}"


class Choice(Section):
    """One of some values, of any type that a recipe has: lists and mappings too."""

    type: Literal["choice"]
    values: tuple[Any, ...] = Field(min_length=1)

    @field_validator("values")
    @classmethod
    def _numbers(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """``1e-3``, which YAML 1.1 takes for a text, is a number."""
        return tuple(float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value for value in values)

    def distribution(self) -> BaseDistribution:
        """The same for Optuna, which gets the values as JSON."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([canonical(value) for value in self.values])

    def value(self, drawn: Any) -> Any:
        """The recipe's value for what Optuna has drawn."""
        return json.loads(drawn)

    def drawn(self, value: Any) -> Any:
        """What Optuna would have drawn for a value; ``None`` where it is no choice."""
        return canonical(value) if value in self.values else None

    def grid(self) -> list[Any]:
        """The values that a grid tries: all."""
        return list(self.values)

    def describe(self) -> str:
        """The choices as people read them."""
        return "one of " + ", ".join(json.dumps(value, ensure_ascii=False) for value in self.values)


Dimension = Annotated[FloatRange | IntRange | Choice, Field(discriminator="type")]
"""One value of a recipe that a search varies."""

_Range = TypeVar("_Range", FloatRange, IntRange)
_DIMENSION: TypeAdapter[FloatRange | IntRange | Choice] = TypeAdapter(Dimension)


def read_dimension(name: str, spec: Mapping[str, Any]) -> FloatRange | IntRange | Choice:
    """A dimension as people write it in YAML: ``{type: float, low: 1e-6, high: 1e-3, log: true}``.

    Raises:
        ConfigError: Unknown type or key, or bounds that make no range.
    """
    try:
        return _DIMENSION.validate_python(dict(spec))
    except ValidationError as error:
        said = ((".".join(map(str, one["loc"][1:])) or "type", one["msg"]) for one in error.errors())
        problems = "; ".join(f"{key}: {message.removeprefix('Value error, ')}" for key, message in said)
        fix = (
            "write {type: float, low: 1e-6, high: 1e-3, log: true}, {type: int, low: 8, high: 64}, {type: choice, values: [8, 16]}"
        )
        raise ConfigError(problems, where=f"search.space.{name}", fix=fix) from error


def read_flag(text: str) -> tuple[str, dict[str, Any]]:
    """A dimension as it is written on the command line, as its name and the mapping that YAML would have.

    ``NAME=LOW..HIGH`` is a range, of whole numbers where both bounds are written as such (``1..4``, not ``1.0..4.0``), with
    ``:log``, ``:step=N``, ``:points=N``, ``:float`` or ``:int`` behind it. ``NAME=A,B,C`` is a choice.

    Raises:
        UsageError: Neither.
    """
    name, equals, given = text.partition("=")
    if not equals or not name or not given:
        fix = "write learning_rate=1e-5..1e-3:log, lora_r=8..64 or batch_size=8,16"
        raise UsageError(f"{text!r} names no range and no choice", where="--space", fix=fix)
    found = _RANGE.fullmatch(given)
    if found is None:
        try:
            return name, {"type": "choice", "values": yaml.safe_load(f"[{given}]")}
        except yaml.YAMLError as error:
            raise UsageError(f"{given!r} is no list of values", where=f"--space {name}") from error
    low, high = found["low"].strip(), found["high"].strip()
    kind = "int" if _WHOLE.fullmatch(low) and _WHOLE.fullmatch(high) else "float"
    spec: dict[str, Any] = {"type": kind, "low": low, "high": high}
    for option in filter(None, found["options"].split(":")):
        key, has_value, value = option.partition("=")
        spec |= {"type": key} if key in ("float", "int") else {key: value if has_value else True}
    return name, spec


def _checked(given: _Range) -> _Range:
    if not math.isfinite(given.low) or not math.isfinite(given.high) or given.low >= given.high:
        raise ValueError(f"low ({given.low:g}) must be below high ({given.high:g})")
    if given.log and given.low <= 0:
        raise ValueError("log needs low above zero")
    return given


def _spread(low: float, high: float, count: int, *, log: bool) -> list[float]:
    shares = [step / (count - 1) for step in range(count)]
    return [low * (high / low) ** share if log else low + (high - low) * share for share in shares]
