"""Gates are read, judged by the bound of an interval where there is one, and joined to one verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from slmops.config import Recipe, build
from slmops.errors import ConfigError, UsageError
from slmops.evaluation.gates import Gate, GateResult, judge, overall, said_before, what_settles
from slmops.evaluation.systems import System
from slmops.evaluation.tally import Tally


def system(right: int, rows: int = 400, **measures: float) -> System:
    """A model that is right on the first rows."""
    correct = (1,) * right + (0,) * (rows - right)
    told = {"accuracy": right / rows, **measures}
    tallies = {"accuracy": Tally.mean(correct)}
    return System("distilled", "torch", "float32", told, ("",) * rows, correct, (), "accuracy", tallies)


TEACHER = system(360, requests_per_s=5.0)


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
        ("p95_latency_ms <= 300", ("latency_p95_ms", "<=", 300.0, None)),
        ("inference_time <= 0.3", ("latency_p50_ms", "<=", 300.0, None)),  # seconds
        ("inference_time_ms <= 300", ("latency_p50_ms", "<=", 300.0, None)),
        ("inference_time <= 0.3 * teacher", ("latency_p50_ms", "<=", 0.3, "teacher")),
        ("accuracy >= 0.99 * distilled.int4", ("accuracy", ">=", 0.99, "distilled.int4")),
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
        ("accuracy >= nan", "is no gate"),
        ("accuracy >= 1e999", "'1e999' is not a number"),
        ("non_inferior(to=float32)", "margin is missing"),
        ("non_inferior(margin=0.03)", "to is missing"),
        ("non_inferior(to=float32, margin=0)", "the margin 0 is not above 0"),
        ("non_inferior(to=float32, margin=3%)", "'3%' is not a number"),
        ("non_inferior(to=float32, margn=0.03)", r"unknown key 'margn'\n.*did you mean 'margin'"),
        ("non_inferior(float32, 0.03)", "'float32' is not key=value"),
        ("non_inferior(to=teacher, margin=0.03, measure=kept)", "kept is relative already"),
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
    tallies = {"rouge_l": Tally.mean([value + (0.1 if row % 2 else -0.1) for row in range(rows)])}
    told = {"rouge_l": value, "chrf": value}
    return System("distilled", "torch", "float32", told, ("",) * rows, (0,) * rows, (), "rouge_l", tallies)


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
        ("non_inferior(to=teacher, margin=0.3)", "passed"),
        ("non_inferior(to=teacher, margin=0.1)", "failed"),
        ("non_inferior(to=teacher, margin=0.25, measure=chrf)", "passed"),
        ("non_inferior(to=teacher, margin=0.15, measure=chrf)", "failed"),
    ],
)
def test_measures_with_rows_are_judged_by_their_interval_and_others_by_their_value(gate: str, expected: str) -> None:
    assert judge(Gate.parse(gate), scored(0.4), {"teacher": scored(0.6)}, 0.95).verdict == expected


def in_whole(values: np.ndarray) -> Tally:
    """A measure that is no mean: the root of the mean square."""
    return Tally(np.column_stack([values**2, np.ones_like(values)]), lambda sums: np.sqrt(sums[..., 0] / sums[..., 1]))


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ("bleu >= 30", "passed"),
        ("bleu >= 39", "INCONCLUSIVE"),
        ("bleu >= 55", "failed"),
        ("bleu >= 0.9 * teacher", "passed"),
        ("bleu >= 1 * teacher", "INCONCLUSIVE"),
        ("non_inferior(to=teacher, margin=1)", "passed"),
        ("non_inferior(to=teacher, margin=0.01)", "INCONCLUSIVE"),
    ],
)
def test_measures_of_the_whole_set_have_an_interval_too(gate: str, expected: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(10, 60, 300)
    ours, teachers = in_whole(values), in_whole(values + rng.normal(0, 2, 300))
    assert 36 < ours.value < 42
    one, other = (
        System(name, "torch", "float32", {"bleu": tally.value}, (), (), (), "bleu", {"bleu": tally})
        for name, tally in (("packaged", ours), ("teacher", teachers))
    )
    assert judge(Gate.parse(gate), one, {"teacher": other}, 0.95).verdict == expected


def test_few_rows_that_all_agree_settle_nothing() -> None:
    """Ten rows that both models have right: the difference is 0, and the interval says how little that tells."""
    always, teacher = system(10, 10), system(10, 10)

    def result(gate: str) -> GateResult:
        return judge(Gate.parse(gate), always, {"teacher": teacher}, 0.95)

    assert result("accuracy >= 0.92 * teacher").verdict == "INCONCLUSIVE"
    assert result("accuracy >= 0.92 * teacher").needed == 35  # Wilson's lower end of 45 of 45 is 0.921
    assert result("accuracy >= 0.7 * teacher").verdict == "passed"
    assert result("accuracy >= 1 * teacher") == GateResult(
        "accuracy >= 1 * teacher", "INCONCLUSIVE", "1.000 against 1.000, difference -0.278 to +0.278"
    )
    assert result("accuracy >= 1").verdict == "INCONCLUSIVE"
    assert judge(Gate.parse("accuracy <= 0"), system(0), {}, 0.95).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("right", "rows", "margin", "expected"),
    [
        (356, 400, 0.03, "passed"),
        (356, 400, 0.012, "INCONCLUSIVE"),
        (330, 400, 0.03, "failed"),
        (36, 40, 0.03, "INCONCLUSIVE"),
    ],
)
def test_a_model_is_not_worse_by_more_than_a_margin(right: int, rows: int, margin: float, expected: str) -> None:
    """Against a model that is right on 90 %, and on all rows that this one has right."""
    unquantized = system(round(0.9 * rows), rows)
    rows_of = {"float32": unquantized, "teacher": TEACHER}
    found = judge(Gate.parse(f"non_inferior(to=float32, margin={margin})"), system(right, rows), rows_of, 0.95)
    assert found.verdict == expected
    assert found.detail.endswith(f"margin {margin}")
    assert (found.needed is not None) == (expected == "INCONCLUSIVE")


def test_the_margin_is_the_same_gate_in_a_recipe_and_on_the_command_line() -> None:
    recipe = build(
        Recipe,
        {
            "name": "x",
            "task_type": "classification",
            "output_path": "out",
            "data": {"source": {"name": "files"}},
            "teacher": {"model": "gpt-4o"},
            "gates": ["size_mb <= 100", {"non_inferior": {"to": "float32", "margin": 0.03, "measure": "macro_f1"}}],
        },
        where="test",
    )
    written = Gate.parse("non_inferior(to=float32, margin=0.03, measure=macro_f1)")
    assert [Gate.parse(text) for text in recipe.gates] == [Gate.parse("size_mb <= 100"), written]
    assert (written.measure, written.relative_to, written.margin) == ("macro_f1", "float32", 0.03)
    assert Gate.parse("non_inferior(margin=0.03,to=float32)").measure == ""
    with pytest.raises(ConfigError, match=r"gates: .*is no gate; write \{non_inferior"):
        build(Recipe, {**recipe.model_dump(), "gates": [{"non_inferior": "float32"}]}, where="test")


def test_float32_is_the_only_row_of_that_precision_where_none_has_the_name() -> None:
    int4, full = replace(system(350), precision="int4"), system(360)
    gate = Gate.parse("non_inferior(to=float32, margin=0.2)")
    assert judge(gate, int4, {"small": full, "int4": int4}, 0.95).verdict == "passed"
    with pytest.raises(ConfigError, match=r"no row 'float32'\n.*rows: small, teacher"):
        judge(gate, int4, {"small": full, "teacher": TEACHER}, 0.95)
    with pytest.raises(ConfigError, match=r"no row 'int4'"):
        judge(Gate.parse("accuracy >= 1 * int4"), full, {"small": int4}, 0.95)


@pytest.mark.parametrize(
    ("gate", "value", "expected"),
    [
        ("requests_per_s >= 6 * teacher", 30.0, "passed"),
        ("requests_per_s >= 6 * teacher", 29.9, "failed"),
        ("size_mb <= 100", 100.0, "passed"),
        ("size_mb <= 100", 100.1, "failed"),
        ("size_mb >= 101", 100.1, "failed"),
    ],
)
def test_figures_without_rows_are_judged_by_their_value(gate: str, value: float, expected: str) -> None:
    candidate = system(350, **{Gate.parse(gate).measure: value})
    assert verdict(gate, candidate) == expected


def timed(middle: float, requests: int = 60) -> System:
    """Times from 10 % below to 10 % above their median."""
    times = tuple(middle * (0.9 + 0.2 * number / (requests - 1)) for number in range(requests))
    return replace(system(350, latency_p50_ms=middle), latencies_ms=times)


@pytest.mark.parametrize(
    ("gate", "middle", "expected"),
    [
        ("latency_p50_ms <= 60", 50.0, "passed"),
        ("latency_p50_ms <= 50", 50.0, "INCONCLUSIVE"),
        ("latency_p50_ms <= 45", 50.0, "failed"),
        ("latency_p50_ms >= 60", 50.0, "failed"),
        ("latency_p50_ms <= 0.25 * teacher", 45.0, "passed"),
        ("latency_p50_ms <= 0.25 * teacher", 50.0, "INCONCLUSIVE"),
        ("latency_p50_ms <= 0.25 * teacher", 60.0, "failed"),
        ("p95_latency_ms <= 56", 50.0, "passed"),
        ("p95_latency_ms <= 54.6", 50.0, "INCONCLUSIVE"),
        ("p95_latency_ms <= 50", 50.0, "failed"),
        ("non_inferior(to=teacher, margin=5, measure=latency_p50_ms)", 190.0, "passed"),
        ("non_inferior(to=teacher, margin=5, measure=latency_p50_ms)", 230.0, "failed"),
    ],
)
def test_latencies_are_judged_by_the_times_of_the_requests(gate: str, middle: float, expected: str) -> None:
    assert judge(Gate.parse(gate), timed(middle), {"teacher": timed(200.0)}, 0.95).verdict == expected


def test_a_few_requests_do_not_say_what_the_slowest_ones_take() -> None:
    found = judge(Gate.parse("p95_latency_ms <= 300"), timed(50.0, requests=20), {}, 0.95)
    assert found.verdict == "INCONCLUSIVE"
    assert found.detail.endswith("unknown] against 300.0")
    assert found.needed == 39  # of 59 the longest is above p95 with 95 %


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


def test_what_is_open_says_how_many_rows_would_settle_it() -> None:
    found = judge(Gate.parse("accuracy >= 0.85"), system(350), {}, 0.95)
    assert found.verdict == "INCONCLUSIVE"
    grown = 400 + found.needed
    settled = judge(Gate.parse("accuracy >= 0.85"), system(round(0.875 * grown), grown), {}, 0.95)
    assert settled.verdict == "passed"
    assert judge(Gate.parse("accuracy >= 0.875"), system(350), {}, 0.95).needed is None  # exactly on the bound
    assert judge(Gate.parse("accuracy >= 0.8"), system(350), {}, 0.95).needed is None


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([("accuracy >= 0.85", 40)], "about 40 more test rows would tell"),
        ([("accuracy >= 0.85", None)], "give more test rows"),
        (
            [("latency_p50_ms <= 0.11 * teacher", 1200)],
            "about 1,200 more timed requests would tell; "
            "raise evaluation.latency_requests, and let nothing else run on the machine",
        ),
        ([("latency_p95_ms <= 20", None)], "raise evaluation.latency_requests, and let nothing else run on the machine"),
    ],
)
def test_what_is_open_says_what_to_do(results: list[tuple[str, int | None]], said: str) -> None:
    shut = GateResult("accuracy >= 0.5", "passed", "")
    assert what_settles([shut, *(GateResult(gate, "INCONCLUSIVE", "", needed) for gate, needed in results)]) == said


def test_a_margin_says_before_the_run_how_many_rows_it_needs() -> None:
    gates = [Gate.parse(text) for text in ("accuracy >= 0.9", "non_inferior(to=teacher, margin=0.05)", "size_mb <= 100")]
    (said,) = said_before(gates, "accuracy", 200, 0.95)
    assert said.startswith("non_inferior(to=teacher, margin=0.05): about 314 test rows show it in 4 of 5 runs")
    assert said.endswith("there are 200")
    assert said_before(gates, "rouge_l", 200, 0.95) == []


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
