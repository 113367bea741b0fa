"""What is reported of a training: TensorBoard's files read back, lines, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers.integrations import integration_utils

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ConfigError, MissingExtraError
from slmops.sections import LoraSection, TrainingSection
from slmops.training.loop import Trained, train
from slmops.training.reports import check_names
from tests.interruptions import interrupted_in

ROWS = [Row.of(f"question {number}" + " please" * (number % 4), ("refund", "account")[number % 2]) for number in range(8)]
Train = Callable[..., Trained]
Curve = list[tuple[int, float]]


@pytest.fixture
def run(tiny_model: Path, template: Template, tmp_path: Path) -> Train:
    """Train into ``tmp_path/NAME`` and report to ``tmp_path/NAME-logs``."""

    def call(name: str, **values: Any) -> Trained:
        fixed = {"max_steps": 6, "batch_size": 4, "precision": "float32", "lora": LoraSection(r=2)}
        return train(
            tiny_model,
            tmp_path / name,
            tmp_path / f"{name}-work",
            template=template,
            rows=ROWS,
            validation=ROWS[:2],
            section=TrainingSection(**{**fixed, **values}),
            seed=1,
            what="trial",
            logs=tmp_path / f"{name}-logs",
        )

    return call


def told(folder: Path) -> dict[str, Curve]:
    """What TensorBoard shows of a folder: step and value by name."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_gets_the_figures_and_the_curve_stays_as_it_is(
    run: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = run("silent", eval_steps=3)
    assert not (tmp_path / "silent-logs").exists()
    assert "learning rate" not in capsys.readouterr().err
    trained = run("loud", eval_steps=3, logging_steps=2, report_to="tensorboard")
    assert trained.curve == silent.curve
    assert [point["step"] for point in trained.curve] == [3, 6]
    found = told(tmp_path / "loud-logs")
    steps = {name: [step for step, _ in points] for name, points in found.items()}
    each = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "cpu_percent", "resident_mb")
    assert {name: at for name, at in steps.items() if name != "eval/loss"} == {f"train/{name}": [2, 4, 6] for name in each}
    assert found["eval/loss"] == [(point["step"], pytest.approx(point["validation"])) for point in trained.curve]
    # All updates have four rows and so weigh the same: both curves have one mean.
    means = [
        sum(values) / len(values) for values in ([value for _, value in found["train/loss"]], [p["loss"] for p in silent.curve])
    ]
    assert means[0] == pytest.approx(means[1], rel=1e-5)
    assert found["train/resident_mb"][0][1] > 50
    assert found["train/tokens_per_second"][0][1] > 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "learning rate" in line]
    assert [line.split(":")[0].split() for line in lines] == [["update", "2"], ["update", "4"], ["update", "6"]]
    assert f"loss {found['train/loss'][1][1]:.4f}" in lines[1]


def test_a_resumed_run_reports_nothing_twice(run: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the sixth update and in the middle between two reports; the newest checkpoint is three updates old."""
    options: dict[str, Any] = {"max_steps": 8, "logging_steps": 2, "eval_steps": 8, "save_steps": 3, "report_to": ["tensorboard"]}
    whole = run("whole", **options)
    with interrupted_in(monkeypatch, 6):
        run("model", **options)
    assert [step for step, _ in told(tmp_path / "model-logs")["train/loss"]] == [2, 4]
    assert [folder.name for folder in (tmp_path / "model-work").glob("checkpoint-*")] == ["checkpoint-3"]
    resumed = run("model", **options)
    assert resumed.curve == whole.curve
    found, expected = (told(tmp_path / f"{name}-logs") for name in ("model", "whole"))
    assert [step for step, _ in found["train/tokens_per_second"]] == [2, 4, 6, 8]
    for name in ("train/loss", "train/grad_norm", "train/learning_rate", "eval/loss"):
        assert found[name] == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected[name]]


def test_without_logging_steps_there_is_a_report_at_every_look_and_no_line(
    run: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("model", report_to=["tensorboard"], eval_steps=3)
    assert [step for step, _ in told(tmp_path / "model-logs")["train/loss"]] == [3, 6]
    assert "learning rate" not in capsys.readouterr().err


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(ConfigError) as refused:
        check_names(["tensorbord"])
    assert "did you mean 'tensorboard'?" in str(refused.value)
    assert "wandb" in str(refused.value)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", list)
    with pytest.raises(MissingExtraError, match=r"slmops\[tensorboard\]"):
        check_names(["tensorboard"])
    with pytest.raises(MissingExtraError, match="pip install comet-ml"):
        check_names(["comet_ml"])
    assert check_names(["all"]) == check_names([]) == []


def test_all_is_what_is_installed() -> None:
    assert "tensorboard" in check_names(["all"])
    assert check_names(["all"]) == integration_utils.get_available_reporting_integrations()


@pytest.mark.parametrize("names", ["tensorboard, wandb", ["tensorboard", "wandb"], ["tensorboard,wandb", "none"]])
def test_names_are_written_as_people_do(names: Any) -> None:
    assert TrainingSection(report_to=names).report_to == ("tensorboard", "wandb")
    assert TrainingSection(report_to="none").report_to == TrainingSection().report_to == ()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_its_memory_is_reported(run: Train, tmp_path: Path) -> None:
    run("model", report_to=["tensorboard"], logging_steps=3)
    assert told(tmp_path / "model-logs")["train/gpu_memory_mb"][0][1] > 0
