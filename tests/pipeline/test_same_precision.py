"""Model, engine and precision are never confounded: the teacher is also measured as what is packaged."""

from __future__ import annotations

import json
from pathlib import Path

from slmops.config import load_recipe
from slmops.evaluation.measures import COSTS
from slmops.evaluation.schema import parse_report
from slmops.files import read_json
from slmops.pipeline import run
from tests.pipeline.tiny_line import write_recipe


def test_a_package_of_another_precision_has_its_teacher_in_that_precision_beside_it(
    tmp_path: Path, tiny_model: Path, quick: None
) -> None:
    two_updates = {"learning_rate": 0.003, "max_steps": 2, "batch_size": 8}
    recipe = write_recipe(
        tmp_path,
        tiny_model,
        teacher={"model": str(tiny_model), "tune": two_updates},
        answers={"min_success": 0, "max_new_tokens": 4},
        signals={"k": 4},
        training={**two_updates, "objectives": [{"name": "cross_entropy"}]},
        export={
            "max_length": 128,
            "schemes": ["int4"],
            "teacher_schemes": ["int8"],
            "parity": {"rows": 4, "min_agreement": 0, "max_drop": 1},
        },
        evaluation={"latency_requests": 5, "batch_size": 4, "concurrency": [1, 2]},
        gates=["parameters <= 0.9 * teacher"],
    )
    outcome = run(load_recipe(recipe))
    report = parse_report(json.loads((outcome.root / "report.json").read_text()))
    quantized, alike, packaged = report.row("teacher-quantized"), report.row("teacher-as-packaged"), report.packaged
    assert (quantized.precision, alike.precision, packaged.precision) == ("int8", "int4", "int4")
    assert quantized.runtime == alike.runtime == packaged.runtime
    assert alike.measures["parameters"] == report.row("teacher").measures["parameters"] > packaged.measures["parameters"]

    known = set(COSTS) - {"joules_per_request"}  # not every machine counts its energy
    assert all(packaged.measures[name] is not None for name in known)
    measured = read_json(next(outcome.root.glob("artifacts/measure.distilled*/result.json")))
    assert [level["concurrency"] for level in measured["throughput"]] == [1, 2]
    assert measured["decoding"]["batch_dependent"] in (True, False)
