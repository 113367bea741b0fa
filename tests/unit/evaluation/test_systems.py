from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slmops.artifact import StageKey, complete
from slmops.data.rows import Row
from slmops.errors import UsageError
from slmops.evaluation.measures import MEASURES, measure_name
from slmops.evaluation.quality import QUALITY, Outputs, tallies
from slmops.evaluation.systems import RESULT, System, judged
from slmops.files import write_json
from slmops.tasks.base import open_task


def test_a_measurement_is_read_under_the_name_of_its_row_and_its_answers_are_scored(tmp_path: Path) -> None:
    task = open_task("qa", {"kind": "open"})
    rows = [Row.of("the colour?", "dark red"), Row.of("and this?", "blue")]
    measures = {"exact_match": 0.5, "token_f1": 0.75}
    result = {
        "runtime": "torch",
        "precision": "float32",
        **judged(task, ["red", "blue"], rows),
        "latencies_ms": [2.5],
    }
    write_json(tmp_path / RESULT, result)
    artifact = complete(tmp_path, StageKey("measure.x", "measurement", 1, {}), started=0, measures=measures)
    found = tallies(Outputs(task, rows, ["red", "blue"]), ["exact_match", "token_f1"])
    system = System.load("distilled", artifact, found)
    assert (system.answers, system.correct, system.latencies_ms) == (("red", "blue"), (0, 1), (2.5,))
    assert system.measures == {"exact_match": 0.5, "token_f1": pytest.approx(5 / 6)}
    assert system.quality == system.measures[task.primary_measure]
    assert system.tallies["exact_match"].scores.tolist() == [0, 1]
    assert system.tallies["token_f1"].scores.tolist() == pytest.approx([2 / 3, 1])


def test_the_measures_by_rows_are_those_over_all() -> None:
    task = open_task("classification", {"labels": ["a", "b"]})
    rows = [Row.of(str(number), "ab"[number % 2]) for number in range(9)]
    answers = ["a", "b", "c", "a", "a", "b", "a", "", "b"]
    found = tallies(Outputs(task, rows, answers))
    for name, value in judged(task, answers, rows)["quality"].items():
        assert found[name].value == pytest.approx(value)


def test_an_answer_counts_against_the_right_answer_that_it_is_most_like() -> None:
    task = open_task("summarization", {})
    rows = [replace(Row.of("sum up", "cats sleep all day"), others=("dogs bark at night", "")), Row.of("and this", "birds sing")]
    answers = ["dogs bark at noon", "birds sing"]
    assert tallies(Outputs(task, rows, answers))["rouge_l"].scores.tolist() == [0.75, 1.0]
    assert judged(task, answers, rows)["quality"]["rouge_l"] == pytest.approx(0.875)
    assert tallies(Outputs(task, list(map(single, rows)), answers))["rouge_l"].scores.tolist() == [0.0, 1.0]


def test_a_row_is_right_where_one_of_its_answers_is() -> None:
    task = open_task("qa", {"kind": "open"})
    rows = [replace(Row.of("the colour?", "red"), others=("scarlet",))] * 3
    assert judged(task, ["Scarlet", "red", "blue"], rows)["correct"] == [1, 1, 0]


def single(row: Row) -> Row:
    return replace(row, others=())


def test_a_measure_goes_by_its_name_and_its_aliases() -> None:
    assert measure_name("accuracy") == "accuracy"
    assert measure_name("inference_time_ms") == "latency_p50_ms"
    with pytest.raises(UsageError, match="did you mean 'latency_p95_ms'"):
        measure_name("latency_p95")


def test_a_name_stands_for_one_measure() -> None:
    names = [*MEASURES, *(alias for measure in MEASURES.values() for alias in measure.aliases)]
    assert len(names) == len(set(names))
    quality = set(QUALITY) - {"perplexity", "byte_perplexity", "bits_per_byte", "ece"}
    assert {name for name, measure in MEASURES.items() if measure.better == "higher"} == {
        *quality,
        "share_of_teacher",
        "requests_per_s",
    }
