"""Gates: what must hold for a model to be packaged, such as ``accuracy >= 0.92 * teacher`` or ``size_mb <= 100``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from slmops.errors import ConfigError
from slmops.evaluation.measures import measure_name
from slmops.evaluation.stats import mean_interval, paired
from slmops.evaluation.systems import System

Verdict = Literal["passed", "failed", "INCONCLUSIVE"]
_SHARE = "share_of_teacher"
_FORM = re.compile(r"^\s*(\w+)\s*(>=|<=)\s*([0-9.eE+-]+)\s*(?:\*\s*([\w-]+))?\s*$")


@dataclass(frozen=True)
class Gate:
    """``measure >= factor`` or, relative to another row of the comparison, ``measure >= factor * row``."""

    text: str
    measure: str
    operator: Literal[">=", "<="]
    factor: float
    relative_to: str | None

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Read a gate.

        Raises:
            ConfigError: Not of the form ``measure >= number [* row]``, or a row for a measure that is relative already.
            UsageError: Unknown measure.
        """
        match = _FORM.match(text)
        if match is None:
            raise ConfigError(
                f"{text!r} is no gate", where="gates", fix="write for example 'accuracy >= 0.92 * teacher' or 'size_mb <= 100'"
            )
        name, operator, factor, row = match.groups()
        try:
            number = float(factor)
        except ValueError as error:
            raise ConfigError(f"{factor!r} is not a number", where=f"gate {text!r}") from error
        measure = measure_name(name)
        if measure == _SHARE:  # of the primary measure, against the teacher
            if row is not None:
                raise ConfigError(f"{name} is relative already", where=f"gate {text!r}", fix=f"write '{name} {operator} {factor}'")
            row = "teacher"
        return cls(text, measure, ">=" if operator == ">=" else "<=", number, row)


@dataclass(frozen=True)
class GateResult:
    """A gate's verdict and the numbers behind it."""

    gate: str
    verdict: Verdict
    detail: str


def judge(gate: Gate, system: System, others: Mapping[str, System], confidence: float) -> GateResult:
    """The verdict of a gate on one model: by the bound of the interval where the measure has one, else by the point.

    Raises:
        ConfigError: The gate names a row that is not compared.
    """
    reference = None
    if gate.relative_to is not None:
        reference = others.get(gate.relative_to)
        if reference is None:
            raise ConfigError(f"no row {gate.relative_to!r}", where=f"gate {gate.text!r}", fix="rows: " + ", ".join(others))
    measure = system.primary_measure if gate.measure == _SHARE else gate.measure
    if system.values(measure) is not None and (reference is None or reference.values(measure) is not None):
        return _by_interval(gate, measure, system, reference, confidence)
    value = system.measures.get(measure)
    base = None if reference is None else reference.measures.get(measure)
    if value is None or (reference is not None and base is None):
        return GateResult(gate.text, "INCONCLUSIVE", "not measured")
    bound = gate.factor * (1.0 if base is None else base)
    holds = value >= bound if gate.operator == ">=" else value <= bound
    return GateResult(gate.text, "passed" if holds else "failed", f"{value:.4g} against {bound:.4g}")


def _by_interval(gate: Gate, measure: str, system: System, reference: System | None, confidence: float) -> GateResult:
    own, value = system.values(measure) or (), system.measures[measure]
    if reference is not None:
        low, high = paired(own, reference.values(measure) or (), confidence, weight=gate.factor).interval
        bound = gate.factor * reference.measures[measure]
        detail = f"{value:.3f} against {bound:.3f}, difference {low:+.3f} to {high:+.3f}"
    else:
        low, high = (end - gate.factor for end in mean_interval(own, confidence))
        detail = f"{value:.3f} [{low + gate.factor:.3f}, {high + gate.factor:.3f}] against {gate.factor:.3f}"
    if gate.operator == "<=":
        low, high = -high, -low
    verdict: Verdict = "passed" if low >= 0 else "failed" if high < 0 else "INCONCLUSIVE"
    return GateResult(gate.text, verdict, detail)


def overall(results: list[GateResult]) -> Verdict:
    """Failed if any gate failed, else INCONCLUSIVE if any is, else passed."""
    verdicts = {result.verdict for result in results}
    if "failed" in verdicts:
        return "failed"
    return "INCONCLUSIVE" if "INCONCLUSIVE" in verdicts else "passed"
