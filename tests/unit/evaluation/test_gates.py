"""Gates are read, judged by the bound of an interval where there is one, and joined to one verdict."""

from __future__ import annotations

import pytest

from slmops.errors import ConfigError, UsageError
from slmops.evaluation.gates import Gate, GateResult, judge, overall
from slmops.evaluation.systems import System


def system(right: int, rows: int = 400, **measures: float) -> System:
    """A model that is right on the first rows."""
    correct = (1,) * right + (0,) * (rows - right)
    return System(
        "distilled", "torch", "float32", {"accuracy": right / rows, **measures}, ("",) * rows, correct, (1.0,), "accuracy", correct
    )


TEACHER = system(360, latency_p50_ms=200.0, requests_per_s=5.0)


def verdict(gate: str, candidate: System) -> str:
    return judge(Gate.parse(gate), candidate, {"teacher": TEACHER}, 0.95).verdict


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy >= 0.92 * teacher", ("accuracy", ">=", 0.92, "teacher")),
        ("size_mb<=100", ("size_mb", "<=", 100.0, None)),
        ("  latency_p50_ms <= 2.5e-1*teacher-quantized ", ("latency_p50_ms", "<=", 0.25, "teacher-quantized")),
        ("disk_mb <= 100", ("size_mb", "<=", 100.0, None)),
        ("share_of_teacher >= 0.92", ("share_of_teacher", ">=", 0.92, "teacher")),
        ("kept >= 0.92", ("share_of_teacher", ">=", 0.92, "teacher")),
    ],
)
def test_a_gate_is_read(text: str, expected: tuple[object, ...]) -> None:
    gate = Gate.parse(text)
    assert (gate.measure, gate.operator, gate.factor, gate.relative_to) == expected
    assert gate.text == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("accuracy", "'accuracy' is no gate"),
        ("accuracy > 0.9", "is no gate"),
        ("accuracy >= teacher", "is no gate"),
        ("0.9 <= accuracy", "is no gate"),
        ("accuracy >= 0.9 teacher", "is no gate"),
        ("accuracy >= 0.9 * teacher * 2", "is no gate"),
        ("accuracy >= 1e", "'1e' is not a number"),
        ("accuracy >= 0.9.1", r"'0\.9\.1' is not a number"),
        ("kept >= 0.9 * teacher", "kept is relative already"),
    ],
)
def test_what_is_no_gate_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Gate.parse(text)


def test_an_unknown_measure_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown measure 'acuracy'\n.*did you mean 'accuracy'"):
        Gate.parse("acuracy >= 0.9")


@pytest.mark.parametrize(
    ("gate", "right", "expected"),
    [
        # 0.875 of 400: Wilson from 0.839 to 0.904.
        ("accuracy >= 0.83", 350, "passed"),
        ("accuracy >= 0.85", 350, "INCONCLUSIVE"),
        ("accuracy >= 0.90", 350, "INCONCLUSIVE"),
        ("accuracy >= 0.91", 350, "failed"),
        ("accuracy <= 0.91", 350, "passed"),
        ("accuracy <= 0.90", 350, "INCONCLUSIVE"),
        ("accuracy <= 0.83", 350, "failed"),
        # The teacher is right on 360 rows; these are right on a part of the same rows.
        ("accuracy >= 0.92 * teacher", 355, "passed"),
        ("accuracy >= 0.92 * teacher", 332, "INCONCLUSIVE"),
        ("accuracy >= 0.92 * teacher", 300, "failed"),
        ("accuracy <= 1 * teacher", 300, "passed"),
        ("accuracy <= 0.92 * teacher", 355, "failed"),
        ("share_of_teacher >= 0.92", 355, "passed"),
        ("kept >= 0.92", 332, "INCONCLUSIVE"),
    ],
)
def test_accuracy_is_judged_by_its_interval(gate: str, right: int, expected: str) -> None:
    assert verdict(gate, system(right)) == expected


def scored(value: float, rows: int = 200) -> System:
    """A summarizer whose rows score a little more or less than a value in turn."""
    scores = tuple(value + (0.1 if row % 2 else -0.1) for row in range(rows))
    return System(
        "distilled", "torch", "float32", {"rouge_l": value, "chrf": value}, ("",) * rows, (0,) * rows, (1.0,), "rouge_l", scores
    )


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ("rouge_l >= 0.37", "passed"),
        ("rouge_l >= 0.4", "INCONCLUSIVE"),
        ("rouge_l >= 0.43", "failed"),
        ("rouge_l >= 0.8 * teacher", "failed"),
        ("kept >= 0.5", "passed"),
        ("chrf >= 0.5 * teacher", "passed"),
        ("chrf >= 0.41", "failed"),
        ("accuracy >= 0.1", "INCONCLUSIVE"),
    ],
)
def test_scores_of_rows_are_judged_by_their_interval_and_those_of_the_whole_set_by_their_value(gate: str, expected: str) -> None:
    assert judge(Gate.parse(gate), scored(0.4), {"teacher": scored(0.6)}, 0.95).verdict == expected


def test_a_model_that_is_always_right_does_not_fail_by_rounding() -> None:
    assert verdict("accuracy >= 1", system(400)) == "INCONCLUSIVE"
    assert verdict("accuracy >= 1 * teacher", TEACHER) == "passed"
    assert verdict("accuracy <= 0", system(0)) == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("gate", "value", "expected"),
    [
        ("latency_p50_ms <= 0.25 * teacher", 50.0, "passed"),
        ("latency_p50_ms <= 0.25 * teacher", 50.1, "failed"),
        ("latency_p50_ms <= 60", 50.0, "passed"),
        ("latency_p50_ms >= 60", 50.0, "failed"),
        ("requests_per_s >= 6 * teacher", 30.0, "passed"),
        ("requests_per_s >= 6 * teacher", 29.9, "failed"),
    ],
)
def test_other_measures_are_judged_by_their_value(gate: str, value: float, expected: str) -> None:
    candidate = system(350, **{Gate.parse(gate).measure: value})
    assert verdict(gate, candidate) == expected


def test_what_was_not_measured_is_inconclusive() -> None:
    assert judge(Gate.parse("size_mb <= 100"), system(350), {}, 0.95) == GateResult(
        "size_mb <= 100", "INCONCLUSIVE", "not measured"
    )
    assert verdict("size_mb <= 0.5 * teacher", system(350, size_mb=10.0)) == "INCONCLUSIVE"


def test_the_numbers_stand_beside_the_verdict() -> None:
    def detail(gate: str) -> str:
        return judge(Gate.parse(gate), system(350, size_mb=86.123), {"teacher": TEACHER}, 0.95).detail

    assert detail("size_mb <= 100") == "86.12 against 100"
    assert detail("accuracy >= 0.85") == "0.875 [0.839, 0.904] against 0.850"
    assert detail("accuracy >= 0.92 * teacher").startswith("0.875 against 0.828, difference +0.0")


def test_a_row_that_is_not_compared_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"no row 'techer'\n.*rows: teacher"):
        verdict("accuracy >= 0.92 * techer", system(350))


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((), "passed"),
        (("passed", "passed"), "passed"),
        (("passed", "INCONCLUSIVE"), "INCONCLUSIVE"),
        (("INCONCLUSIVE", "failed", "passed"), "failed"),
    ],
)
def test_one_failed_gate_decides(verdicts: tuple[str, ...], expected: str) -> None:
    assert overall([GateResult("gate", verdict, "") for verdict in verdicts]) == expected
