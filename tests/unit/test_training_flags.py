"""Flags of a training as transformers and Olive write them, and what is said of them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from slmops.commands.common import new_app
from slmops.commands.training_flags import WithTruthValues, level_of, note_mapped, precision_of
from slmops.errors import UsageError
from slmops.progress import progress, say, speaking
from slmops.training import machine
from tests.commands import Call


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], (None, False)),
        (["--deep_thought"], (True, False)),
        (["--deep_thought", "true"], (True, False)),
        (["--deep-thought", "True"], (True, False)),
        (["--deep_thought=false"], (False, False)),
        (["--deep_thought", "false", "--plain"], (False, True)),
        (["--no_deep_thought", "--plain", "true"], (False, True)),
        (["--plain", "false"], (None, False)),
        (["--plain", "a=1"], (None, True)),
    ],
)
def test_switches_may_be_followed_by_true_or_false(words: list[str], expected: tuple[bool | None, bool]) -> None:
    app, seen = new_app(), []

    @app.command(cls=WithTruthValues)
    def run(
        deep: Annotated[bool | None, typer.Option("--deep_thought/--no_deep_thought")] = None,
        plain: Annotated[bool, typer.Option("--plain")] = False,
        more: Annotated[list[str] | None, typer.Argument()] = None,
    ) -> None:
        seen.append((deep, plain))
        assert more == (["a=1"] if "a=1" in words else None)

    assert CliRunner().invoke(app, words).exit_code == 0
    assert seen == [expected]


def test_a_switch_with_another_value_is_refused(call: Call) -> None:
    done = call("finetune", "--fp16=half")
    assert done.code == 2
    assert "--fp16: 'half' is neither true nor false" in done.err


@pytest.mark.parametrize(
    ("given", "absent"),
    [
        ("--method qlora --gradient_checkpointing true", ("--model_name_or_path", "--data_name", "--output_path")),
        ("--task_name classification --output_path out", ("--model_name_or_path", "--data_name")),
        ("--model here --data x.csv", ("--output_path",)),
    ],
)
def test_what_is_missing_is_named_with_what_to_give(call: Call, given: str, absent: tuple[str, ...]) -> None:
    done = call("finetune", *given.split())
    assert (done.code, done.out) == (2, "")
    first, *fixes = done.err.splitlines()
    assert first == f"error: {' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing"
    assert len(fixes) == len(absent)
    assert all(flag in fix for flag, fix in zip(absent, fixes, strict=True))


@pytest.mark.parametrize(
    ("text", "level"),
    [("0", "DEBUG"), ("1", "INFO"), ("2", "WARNING"), ("3", "ERROR"), ("4", "CRITICAL"), ("warn", "WARNING"), ("Debug", "DEBUG")],
)
def test_log_levels_are_olives_numbers_or_names(text: str, level: str) -> None:
    assert level_of(text) == getattr(logging, level)


def test_an_unknown_log_level_is_refused() -> None:
    with pytest.raises(UsageError, match="0 debug, 1 info"):
        level_of("5")


def test_the_log_level_says_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def all_of_it() -> list[str]:
        say("debug", logging.DEBUG)
        say("info")
        say("warning", logging.WARNING)
        with progress("work", 1, "units") as advance:
            advance(1)
        return [line.split()[0] for line in capsys.readouterr().err.splitlines()]

    assert all_of_it() == ["info", "warning", "work:"]
    for level, said in (
        (logging.DEBUG, ["debug", "info", "warning", "work:"]),
        (logging.WARNING, ["warning"]),
        (logging.ERROR, []),
    ):
        with speaking(level):
            assert all_of_it() == said
    assert all_of_it() == ["info", "warning", "work:"]


@pytest.mark.parametrize(
    ("switches", "here", "expected", "said"),
    [
        ((None, None), True, None, ""),
        ((True, None), True, "bfloat16", "trained in bfloat16"),
        ((True, None), False, "float32", "trained in float32"),
        ((None, True), True, "bfloat16", ""),
        ((None, True), False, "float32", "trained in float32"),
        ((False, False), True, "float32", ""),
    ],
)
def test_half_precision_is_what_the_processor_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], switches: Any, here: bool, expected: str | None, said: str
) -> None:
    import torch

    monkeypatch.setattr(machine, "autocast_type", lambda precision: torch.bfloat16 if here else None)
    assert precision_of(*switches) == expected
    err = capsys.readouterr().err
    assert said in err
    assert bool(said) == bool(err)


def test_both_half_precisions_are_refused() -> None:
    with pytest.raises(UsageError, match="bf16 true"):
        precision_of(True, True)


def test_what_has_no_effect_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    note_mapped(group_by_length=True, logging_dir=Path("logs"), report_to=["wandb,tensorboard"])
    assert capsys.readouterr().err == ""
    note_mapped(group_by_length=False, logging_dir=Path("logs"), report_to=None)
    said = capsys.readouterr().err
    assert "like length all the same" in said
    assert "without --report_to tensorboard" in said
