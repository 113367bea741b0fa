"""A recipe with losses on layers runs from its rows to its package, and has nothing to do when it is run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmops.config import load_recipe
from slmops.files import read_json
from slmops.models.load import load_model
from slmops.pipeline import plan, run
from tests.pipeline.tiny_line import write_recipe


@pytest.mark.slow
def test_from_rows_to_a_package(tmp_path: Path, tiny_model: Path, quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    objectives = [
        {"name": "cross_entropy", "weight": 0.3},
        {"name": "forward_kl", "weight": 0.7},
        {"name": "hidden_states", "measure": "relative", "weight": {"from": 0.5, "to": 0.0}, "projection": True},
        {"name": "attention_relations", "weight": 0.1},
        {"name": "attention_maps", "weight": 0.1, "layers": "similarity"},
    ]
    recipe = load_recipe(
        write_recipe(tmp_path, tiny_model, student={"layers": 2, "keep": "uniform"}),
        [
            "teacher.tune.max_steps=60",
            "answers.min_success=0",
            f"training.objectives={objectives}",
            "training.max_steps=60",
            "training.lora={r: 8}",
            "export={schemes: [int4], teacher_schemes: [int4], max_length: 128, parity: {rows: 8, min_agreement: 0, max_drop: 1}}",
            "gates=[]",
        ],
    )
    assert {"signals", "untuned", "distilled"} <= {step.stage for step in plan(recipe)}
    outcome = run(recipe)
    said = capsys.readouterr().err
    assert "hidden_states: layers of student ← teacher 0←2 1←3" in said
    assert "attention_relations: layers of student ← teacher 1←3" in said
    assert "attention_maps: layers of student ← teacher 1←" in said
    assert outcome.packaged is not None
    artifacts = tmp_path / "out" / "artifacts"
    (signals,) = artifacts.glob("signals-*")
    assert read_json(signals / "manifest.json")["facts"]["layers"]["hidden"] == [2, 3]
    (distilled,) = artifacts.glob("distilled-*")
    losses = [point["loss"] for point in read_json(distilled / "manifest.json")["facts"]["curve"]]
    assert losses[-1] < losses[0]
    assert not [name for name in load_model(distilled / "model").state_dict() if "projection" in name]
    assert {step.state for step in plan(recipe)} == {"done"}
