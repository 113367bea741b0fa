"""What is said before a training starts, and that one that goes on is not tried again."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ResourceError
from slmops.files import read_json
from slmops.sections import LoraSection, TrainingSection
from slmops.stages.foreseeing import Start, foreseen
from slmops.training.checkpoints import checkpoint_at, mark_complete

ROWS = [Row.of(f"number {n}", "delivery", f"rows.csv:{n}") for n in range(20)]
SECTION = TrainingSection(lora=LoraSection(r=4), batch_size=4, max_steps=5, precision="float32")


@pytest.fixture
def start(tiny_model: Path, template: Template, tmp_path: Path) -> Start:
    return Start(tiny_model, SECTION, template, ROWS, ROWS[:4], 0, tmp_path / "work")


def test_settings_and_estimate_are_said_and_kept(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    with foreseen(start, "a table\n  of settings") as facts:
        said = capsys.readouterr().err
        assert "  a table\n    of settings\n  ETA " in said
        assert "for 5 updates" in said
        assert facts["estimate"] == read_json(start.work / "estimate.json")
        assert "peak_mb" not in facts
    assert facts["peak_mb"] > 100
    assert facts["estimate"]["available_mb"] > facts["estimate"]["peak_mb"] > 100
    assert "resumed" not in facts


def test_a_training_that_goes_on_keeps_its_first_estimate(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    with foreseen(start, "settings") as first:
        pass
    checkpoint = checkpoint_at(start.work, 2)
    checkpoint.mkdir(parents=True)
    mark_complete(checkpoint)
    capsys.readouterr()
    with foreseen(start, "settings") as facts:
        pass
    assert "ETA" not in capsys.readouterr().err
    assert (facts["estimate"], facts["resumed"]) == (first["estimate"], True)
    (start.work / "estimate.json").unlink()
    with foreseen(start, "settings") as facts:
        pass
    assert "estimate" not in facts


def test_one_that_does_not_fit_does_not_start(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slmops.training.dryrun.memory_available_mb", lambda: -1e9)
    with pytest.raises(ResourceError, match="the training needs about"), foreseen(start, "settings"):
        pytest.fail("it started")
    assert not (start.work / "estimate.json").exists()
