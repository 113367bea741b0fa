"""A recipe whose student learns from its own samples too, from the data to the report."""

from __future__ import annotations

from pathlib import Path

from slmops.artifact import Artifact
from tests.commands import Call
from tests.pipeline.tiny_line import write_recipe


def test_a_run_with_own_samples(tmp_path: Path, tiny_model: Path, quick: None, call: Call) -> None:
    recipe = write_recipe(
        tmp_path,
        tiny_model,
        teacher={"model": str(tiny_model), "tune": {"learning_rate": 0.003, "max_steps": 2, "batch_size": 8}},
        answers={"min_success": 0, "max_new_tokens": 4},
        signals={"k": 4},
        training={
            "learning_rate": 0.003,
            "max_steps": 8,
            "batch_size": 8,
            "objectives": [{"name": "cross_entropy", "weight": 0.3}, {"name": "jsd", "weight": 0.7}],
            "on_policy": {"share": 0.5, "every": 3, "max_new_tokens": 4},
        },
        export={
            "max_length": 128,
            "schemes": ["int4"],
            "teacher_schemes": ["int4"],
            "parity": {"rows": 4, "min_agreement": 0, "max_drop": 1},
        },
        gates=["size_mb <= 50"],
    )
    planned = call("run", recipe, "--plan")
    assert planned.code == 0, planned.err
    done = call("run", recipe)
    assert done.code == 0, done.err[-3000:]
    assert "own samples of" in done.err
    distilled, control = (
        Artifact.load(next((tmp_path / "out" / "artifacts").glob(f"{stage}-[0-9a-f]*"))).manifest
        for stage in ("distilled", "control")
    )
    own = distilled.facts["on_policy"]
    assert own["samples"] == 8 * own["updates"] > 0
    assert len(distilled.facts["curve"]) == 8
    assert "on_policy" not in control.facts
    again = call("run", recipe)
    assert (again.code, "[distilled]" in again.err) == (0, False)
    changed = call("run", recipe, "training.on_policy.share=0.25", "--plan")
    assert "on_policy.share: 0.5 → 0.25" in changed.out + changed.err
