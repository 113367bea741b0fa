"""Gates: what must hold for a model to be packaged, such as ``accuracy >= 0.92 * teacher`` or ``size_mb <= 100``.

``non_inferior(to=float32, margin=0.03)`` says that a model is not worse than another by more than a margin, in the unit of
the measure: the one that decides, or the one that ``measure=`` names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from slmops.errors import ConfigError, nearest
from slmops.evaluation.margins import Verdict as Verdict
from slmops.evaluation.margins import rows_needed, settle
from slmops.evaluation.measures import MEASURES, measure_name, unit_of
from slmops.evaluation.quantiles import QUANTILES, quantile, quantile_difference
from slmops.evaluation.stats import Estimate, estimate, paired
from slmops.evaluation.systems import System

UNQUANTIZED = "float32"
"""In gates, the model that the judged one was converted from; where no row has that name, the only row of that precision."""

NON_INFERIOR = "non_inferior"

_SHARE = "share_of_teacher"
_DISCORDANT = 0.1
_FORM = re.compile(r"^\s*(\w+)\s*(>=|<=)\s*([0-9.eE+-]+)\s*(?:\*\s*([\w.-]+))?\s*$")
_CALL = re.compile(rf"^\s*{NON_INFERIOR}\s*\((.*)\)\s*$", re.DOTALL)
_OPTIONS = ("to", "margin", "measure")
_EXAMPLES = f"'accuracy >= 0.92 * teacher', 'size_mb <= 100' or '{NON_INFERIOR}(to=float32, margin=0.03)'"


@dataclass(frozen=True)
class Gate:
    """``measure >= factor``; relative to another row, ``measure >= factor * row``; or not worse than a row by more than a margin.

    Args:
        text: As it was written.
        measure: In the table of measures; empty for the one that decides.
        operator: Which way it has to go; for a margin always ``>=``, whichever way the measure is better.
        factor: The bound in the measure's unit, or what the other row is multiplied by.
        relative_to: The other row.
        margin: What the model may be worse by, in the measure's unit.
    """

    text: str
    measure: str
    operator: Literal[">=", "<="]
    factor: float
    relative_to: str | None
    margin: float | None = None

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Read a gate.

        Raises:
            ConfigError: Not of a form that gates have, or a row for a measure that is relative already.
            UsageError: Unknown measure.
        """
        call = _CALL.match(text)
        if call is not None:
            return cls._non_inferior(text, call.group(1))
        match = _FORM.match(text)
        if match is None:
            raise ConfigError(f"{text!r} is no gate", where="gates", fix=f"write for example {_EXAMPLES}")
        name, operator, factor, row = match.groups()
        number = _number(factor, text)
        measure = measure_name(name)
        if measure == _SHARE:  # of the primary measure, against the teacher
            if row is not None:
                raise ConfigError(f"{name} is relative already", where=f"gate {text!r}", fix=f"write '{name} {operator} {factor}'")
            row = "teacher"
        if row is None:
            number *= unit_of(name)
        return cls(text, measure, ">=" if operator == ">=" else "<=", number, row)

    @classmethod
    def _non_inferior(cls, text: str, inside: str) -> Gate:
        where = f"gate {text!r}"
        given: dict[str, str] = {}
        for part in inside.split(","):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or not value:
                raise ConfigError(f"{part.strip()!r} is not key=value", where=where, fix=f"write for example {_EXAMPLES}")
            if key not in _OPTIONS:
                raise ConfigError(f"unknown key {key!r}", where=where, fix=nearest(key, _OPTIONS))
            given[key] = value
        missing = [key for key in ("to", "margin") if key not in given]
        if missing:
            raise ConfigError(f"{missing[0]} is missing", where=where, fix=f"write for example {_EXAMPLES}")
        margin = _number(given["margin"], text)
        if not margin > 0:
            raise ConfigError(f"the margin {given['margin']} is not above 0", where=where, fix="say by how much it may be worse")
        measure = measure_name(given["measure"]) if "measure" in given else ""
        margin *= unit_of(given.get("measure", ""))
        if measure == _SHARE:
            raise ConfigError(
                f"{given['measure']} is relative already", where=where, fix="leave measure= out for the one that decides"
            )
        return cls(text, measure, ">=", 1.0, given["to"], margin)


@dataclass(frozen=True)
class GateResult:
    """A gate's verdict and the numbers behind it.

    Args:
        gate: As it was written.
        verdict: By the bound of the interval.
        detail: The figures.
        needed: Where it is open: how many more test rows, or for latencies requests, would settle it if they come out as
            those so far; ``None`` where no number would, or nothing is open.
    """

    gate: str
    verdict: Verdict
    detail: str
    needed: int | None = None

    @property
    def settled_by(self) -> str:
        """What would settle it where it is open; empty where nothing is, or no number would."""
        if not self.needed:
            return ""
        return f"about {self.needed:,} more {'timed requests' if self.is_timed else 'test rows'}"

    @property
    def is_timed(self) -> bool:
        """Whether the gate goes by the times of requests."""
        return Gate.parse(self.gate).measure in QUANTILES


def judge(gate: Gate, system: System, others: Mapping[str, System], confidence: float) -> GateResult:
    """The verdict of a gate on one model: by the bound of the interval where the measure has one, else by the point.

    Measures of answers have one from the test rows, latencies from the times of the single requests.

    Raises:
        ConfigError: The gate names a row that is not compared.
    """
    reference = None if gate.relative_to is None else _row(gate, gate.relative_to, others)
    measure = system.primary_measure if gate.measure in ("", _SHARE) else gate.measure
    found = _estimate(gate, measure, system, reference, confidence)
    if found is not None:
        return _by_interval(gate, measure, found, system, reference, confidence)
    value = _value(measure, system)
    base = None if reference is None else _value(measure, reference)
    if value is None or (reference is not None and base is None):
        return GateResult(gate.text, "INCONCLUSIVE", "not measured")
    bound = gate.factor * (1.0 if base is None else base)
    at_least = MEASURES[measure].better == "higher" if gate.margin is not None else gate.operator == ">="
    bound += (gate.margin or 0.0) * (-1 if at_least else 1)
    holds = value >= bound if at_least else value <= bound
    return GateResult(gate.text, "passed" if holds else "failed", f"{value:.4g} against {bound:.4g}")


def overall(results: list[GateResult]) -> Verdict:
    """Failed if any gate failed, else INCONCLUSIVE if any is, else passed."""
    verdicts = {result.verdict for result in results}
    if "failed" in verdicts:
        return "failed"
    return "INCONCLUSIVE" if "INCONCLUSIVE" in verdicts else "passed"


def what_settles(results: Sequence[GateResult]) -> str:
    """What to do about gates that are open."""
    opened = [result for result in results if result.verdict == "INCONCLUSIVE"]
    settled = ", ".join(result.settled_by for result in opened if result.settled_by)
    if not any(result.is_timed for result in opened):
        return f"{settled} would tell" if settled else "give more test rows"
    told = f"{settled} would tell; " if settled else ""
    return f"{told}raise evaluation.latency_requests, and let nothing else run on the machine"


def said_before(gates: Sequence[Gate], primary: str, rows: int, confidence: float) -> list[str]:
    """What the margins of gates need, a sentence each, before anything is measured.

    Of measures of rows that are right or wrong; how far other scores vary is not known before.

    Args:
        gates: All of them.
        primary: The measure that decides.
        rows: Test rows that there are.
        confidence: Of the intervals.
    """
    said = []
    for gate in gates:
        if gate.margin is None or MEASURES[gate.measure or primary].of_rows != "right":
            continue
        needed = rows_needed(gate.margin, discordant=_DISCORDANT, confidence=confidence)
        said.append(
            f"{gate.text}: about {needed:,} test rows show it in 4 of 5 runs, if both models are as good and one alone is right "
            f"on {_DISCORDANT:.0%} of the rows; there are {rows:,}"
        )
    return said


def _row(gate: Gate, name: str, others: Mapping[str, System]) -> System:
    if name in others:
        return others[name]
    alike = [system for system in others.values() if system.precision == UNQUANTIZED == name]
    if len(alike) != 1:
        raise ConfigError(f"no row {name!r}", where=f"gate {gate.text!r}", fix="rows: " + ", ".join(others))
    return alike[0]


def _estimate(gate: Gate, measure: str, system: System, reference: System | None, confidence: float) -> Estimate | None:
    """The figure that is held against the bound, less the other row's share of it; ``None`` where it has no interval."""
    if measure in QUANTILES and system.latencies_ms and (reference is None or reference.latencies_ms):
        if reference is None:
            return quantile(system.latencies_ms, QUANTILES[measure], confidence)
        return quantile_difference(system.latencies_ms, reference.latencies_ms, QUANTILES[measure], confidence, weight=gate.factor)
    own = system.tallies.get(measure)
    base = None if reference is None else reference.tallies.get(measure)
    if own is None or (reference is not None and base is None):
        return None
    seeds = [other[measure] for other in system.seeds]
    if base is None or reference is None:
        found: Estimate = estimate(own, confidence, seeds=seeds)
    else:
        others = [other[measure] for other in reference.seeds]
        found = paired(own, base, confidence, weight=gate.factor, seeds_a=seeds, seeds_b=others)
    # A measure of the whole set, without an interval, is judged by its value.
    return None if any(map(math.isnan, found.interval)) else found


def _by_interval(
    gate: Gate, measure: str, found: Estimate, system: System, reference: System | None, confidence: float
) -> GateResult:
    if gate.margin is not None:
        at_least = MEASURES[measure].better == "higher"
        verdict, needed = settle(found, -gate.margin if at_least else gate.margin, at_least=at_least)
    else:
        verdict, needed = settle(found, gate.factor if reference is None else 0.0, at_least=gate.operator == ">=")
    return GateResult(gate.text, verdict, _detail(gate, measure, found, system, reference), needed)


def _detail(gate: Gate, measure: str, found: Estimate, system: System, reference: System | None) -> str:
    low, high = found.interval
    if reference is None:
        return f"{_short(found.value)} [{_short(low)}, {_short(high)}] against {_short(gate.factor)}"
    value, base = _value(measure, system) or 0.0, _value(measure, reference) or 0.0
    said = f"{_short(value)} against {_short(gate.factor * base)}, difference {_short(low, '+')} to {_short(high, '+')}"
    return said if gate.margin is None else f"{said}, margin {gate.margin:g}"


def _value(measure: str, system: System) -> float | None:
    """As measured; by its rows where they are known."""
    tally = system.tallies.get(measure)
    value = system.measures.get(measure) if tally is None else tally.value
    return None if value is None or math.isnan(value) else value


def _short(value: float, sign: str = "") -> str:
    """Three decimals; of large figures fewer."""
    if math.isinf(value):
        return "unknown"
    return f"{value:{sign}.3f}" if abs(value) < 10 else f"{value:{sign}.1f}"


def _number(text: str, gate: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{text!r} is not a number", where=f"gate {gate!r}")
    return number
