from __future__ import annotations

from pathlib import Path

import pytest

from slmops.artifact import StageKey, complete
from slmops.errors import UsageError
from slmops.evaluation.measures import MEASURES, measure_name
from slmops.evaluation.systems import RESULT, System
from slmops.files import write_json


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
