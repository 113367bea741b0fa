"""Gates: what must hold for a model to be packaged, such as ``accuracy >= 0.92 * teacher`` or ``size_mb <= 100``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from slmops.errors import ConfigError
from slmops.evaluation.measures import MEASURES, measure_name
from slmops.evaluation.stats import paired, wilson
from slmops.evaluation.systems import System

Verdict = Literal["passed", "failed", "INCONCLUSIVE"]
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
        if measure == "share_of_teacher":  # the same as accuracy against the teacher, which is judged by rows
            if row is not None:
                raise ConfigError(f"{name} is relative already", where=f"gate {text!r}", fix=f"write '{name} {operator} {factor}'")
            measure, row = "accuracy", "teacher"
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
    if MEASURES[gate.measure].of_rows:
        return _by_interval(gate, system, reference, confidence)
    value = system.measures.get(gate.measure)
    base = None if reference is None else reference.measures.get(gate.measure)
    if value is None or (reference is not None and base is None):
        return GateResult(gate.text, "INCONCLUSIVE", "not measured")
    bound = gate.factor * (1.0 if base is None else base)
    holds = value >= bound if gate.operator == ">=" else value <= bound
    return GateResult(gate.text, "passed" if holds else "failed", f"{value:.4g} against {bound:.4g}")


def _by_interval(gate: Gate, system: System, reference: System | None, confidence: float) -> GateResult:
    if reference is not None:
        difference = paired(system.correct, reference.correct, confidence, weight=gate.factor)
        low, high = difference.interval
        detail = f"{system.accuracy:.3f} against {gate.factor * reference.accuracy:.3f}, difference {low:+.3f} to {high:+.3f}"
    else:
        low, high = (bound - gate.factor for bound in wilson(sum(system.correct), len(system.correct), confidence))
        detail = f"{system.accuracy:.3f} [{low + gate.factor:.3f}, {high + gate.factor:.3f}] against {gate.factor:.3f}"
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
