from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slmops.artifact import StageKey, complete
from slmops.data.rows import Row
from slmops.errors import UsageError
from slmops.evaluation.measures import MEASURES, measure_name
from slmops.evaluation.systems import RESULT, System, judged
from slmops.files import write_json
from slmops.tasks.base import open_task


def test_a_measurement_is_read_under_the_name_of_its_row(tmp_path: Path) -> None:
    measures = {"exact_match": 0.5, "token_f1": 0.7, "bleu": 12.0}
    result = {
        "runtime": "torch",
        "precision": "float32",
        "answers": ["a", "b"],
        "correct": [1, 0],
        "latencies_ms": [2.5],
        "primary_measure": "token_f1",
        "scores": [1.0, 0.4],
    }
    write_json(tmp_path / RESULT, result)
    artifact = complete(
        tmp_path,
        StageKey("measure.x", "measurement", 1, {}),
        started=0,
        measures=(measures := {"exact_match": 0.5, "token_f1": 0.7, "bleu": 12.0}),
    )
    system = System.load("distilled", artifact)
    assert system == System("distilled", "torch", "float32", measures, ("a", "b"), (1, 0), (2.5,), "token_f1", (1.0, 0.4))
    assert system.quality == 0.7
    assert (system.values("token_f1"), system.values("exact_match")) == ((1.0, 0.4), (1, 0))
    assert (system.values("bleu"), system.values("accuracy")) == (None, None)


def test_an_answer_counts_against_the_right_answer_that_it_is_most_like() -> None:
    task = open_task("summarization", {})
    rows = [replace(Row.of("sum up", "cats sleep all day"), others=("dogs bark at night", "")), Row.of("and this", "birds sing")]
    several = judged(task, ["dogs bark at noon", "birds sing"], rows)
    assert several["scores"] == [0.75, 1.0]
    assert several["quality"]["rouge_l"] == pytest.approx(0.875)
    alone = judged(task, ["dogs bark at noon", "birds sing"], list(map(single, rows)))
    assert alone["scores"] == [0.0, 1.0]


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
    assert {name for name, measure in MEASURES.items() if measure.better == "higher"} == {
        "accuracy",
        "macro_f1",
        "valid_share",
        "share_of_teacher",
        "requests_per_s",
        *("exact_match", "numeric_match", "token_f1", "rouge_l", "rouge_1", "rouge_2", "chrf", "bleu", "entity_f1", "win_rate"),
    }
