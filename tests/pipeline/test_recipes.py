"""Every recipe of the package runs from beginning to end on the tiny model, cut down to seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops.recipes import shipped
from slmops.testing.tiny import save_tiny_model
from tests.pipeline.conftest import slmops

SMALL = (
    "teacher.tune={learning_rate: 0.003, max_steps: 4, batch_size: 8}",
    "answers={min_success: 0, max_new_tokens: 4}",
    "signals.k=4",
    "student.layers=2",
    "training.epochs=1",
    "export={schemes: [int4], teacher_schemes: [int4], max_length: 512, parity: {rows: 8, min_agreement: 0, max_drop: 1}}",
    "evaluation={latency_requests: 5, batch_size: 8}",
    "gates=[]",
)
DATA = {"support-routing": "data.source={name: support-messages, labelled: 36, pool: 20, validation: 18, test: 18}"}


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_shipped_recipe_runs(name: str, tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", context=512)
    overrides = [f"teacher.model={model}", DATA[name], *SMALL]
    done = slmops("run", name, *overrides, "-o", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert len(report["rows"]) == 8
    assert report["test_rows"] == 18
