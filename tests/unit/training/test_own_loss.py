"""Losses of the user's own: how a recipe names them, what they are given, and what is said of those that do not work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ConfigError
from slmops.sections import TrainingSection
from slmops.testing.objectives import example_answers
from slmops.training.loop import train
from slmops.training.objectives import CrossEntropy, ForwardKL, WeightedSum
from slmops.training.registry import objective_key

LOSSES = '''
import torch
from slmops.sections import Section
from slmops.training.objectives.divergences import ForwardKL

class Focal(Section):
    """Cross-entropy that cares less for what is learned already (Lin et al. 2017)."""
    power: float = 2.0

    @property
    def needs_signal(self):
        return False

    def __call__(self, answers):
        losses = torch.nn.functional.cross_entropy(answers.logits, answers.labels, reduction="none")
        return (1 - torch.exp(-losses)) ** self.power * losses

class Plain:
    needs_signal = True

    def __init__(self, times=1.0):
        self.times = times

    def __call__(self, answers):
        return self.times * ForwardKL()(answers)

def sharp(answers):
    return 2 * torch.nn.functional.cross_entropy(answers.logits, answers.labels, reduction="none")

def upside_down(answers):
    return -sharp(answers)

def averaged(answers):
    return sharp(answers).mean()

def failing(answers):
    return answers.logit

def worded(answers):
    return "low"

def _hidden(answers):
    return sharp(answers)

class Silent:
    needs_signal = False

number = 3
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_loss.py"
    path.write_text(LOSSES, encoding="utf-8")
    return path


def loss_of(*specs: dict[str, Any]) -> WeightedSum:
    return WeightedSum.of(specs)


def test_a_class_is_made_with_the_recipes_options(file: Path) -> None:
    answers = example_answers()
    likely = torch.exp(-CrossEntropy()(answers))
    for spec in ({"name": "own", "file": f"{file}:Focal", "power": 1.0}, {"name": f"{file}:Focal", "power": 1.0}):
        loss = loss_of(spec)
        assert loss(answers).numpy() == pytest.approx(((1 - likely) * CrossEntropy()(answers)).numpy(), rel=1e-5)
        assert not loss.needs_signal
    plain = loss_of({"name": f"{file}:Plain", "times": 3.0, "weight": 0.5})
    assert plain.needs_signal
    assert plain(answers).numpy() == pytest.approx(1.5 * ForwardKL()(answers).numpy(), rel=1e-6)


def test_a_function_will_do(file: Path) -> None:
    answers = example_answers()
    mixed = loss_of({"name": f"{file}:sharp", "weight": 0.5}, {"name": "forward_kl"})
    assert mixed(answers).numpy() == pytest.approx((CrossEntropy()(answers) + ForwardKL()(answers)).numpy(), rel=1e-6)


def test_the_only_loss_of_a_file_need_not_be_named(tmp_path: Path) -> None:
    only = tmp_path / "one.py"
    only.write_text(LOSSES.partition("class Plain")[0], encoding="utf-8")
    assert loss_of({"name": str(only)})(example_answers()).shape == (6,)


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("Focl", {}, r"my_loss.py: there is no loss 'Focl'\n.*did you mean 'Focal'"),
        ("number", {}, "there is no loss 'number'"),
        ("Focal", {"powr": 1}, r"my_loss.py:Focal: powr: unknown key; did you mean 'power'"),
        ("Plain", {"power": 1}, r"my_loss.py:Plain: it cannot be made: TypeError: .*'power'\n.*check its options"),
        ("sharp", {"power": 1}, r"a function has no options, and power is given\n.*make it a class"),
        ("Silent", {}, r"Silent has no __call__\n.*needs_signal and __call__\(self, answers\)"),
        (
            "upside_down",
            {},
            r"my_loss.py:upside_down: the loss breaks a promise of objectives: a likelier label does not cost less",
        ),
        ("averaged", {}, "breaks a promise of objectives: the losses have the shape"),
        ("failing", {}, "my_loss.py:failing: the loss failed: AttributeError: .*'logit'"),
        ("worded", {}, "the loss is 'low', which is no tensor"),
    ],
)
def test_what_is_wrong_with_a_loss_is_said_before_it_trains(file: Path, name: str, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        loss_of({"name": f"{file}:{name}", **options})


def test_a_file_that_does_not_say_which_loss_is_meant_is_a_mistake(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"it has several losses\n.*my_loss.py:Focal"):
        loss_of({"name": str(file)})
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1", encoding="utf-8")
    with pytest.raises(ConfigError, match="it has no loss"):
        loss_of({"name": "own", "file": str(empty)})
    with pytest.raises(ConfigError, match="no such file"):
        loss_of({"name": "own", "file": str(tmp_path / "none.py")})
    with pytest.raises(ConfigError, match=r"an own loss needs its file\n.*file: my_loss.py:MyLoss"):
        loss_of({"name": "own"})


def test_a_stage_is_bound_to_what_the_file_says(file: Path) -> None:
    spec = {"name": "own", "file": f"{file}:Focal", "power": 1.0}
    before = objective_key(spec)
    assert before.items() >= spec.items()
    file.write_text(LOSSES + "\n# changed", encoding="utf-8")
    assert objective_key(spec) != before
    assert objective_key({"name": "jsd", "beta": 0.1}) == {"name": "jsd", "beta": 0.1}
    with pytest.raises(ConfigError, match=r"none.py: no such file\n.*your loss"):
        objective_key({"name": "none.py:Loss"})


def test_a_run_trains_with_it(file: Path, tiny_model: Path, template: Template, tmp_path: Path) -> None:
    rows = [Row.of(f"question {number}", ("delivery", "refund")[number % 2]) for number in range(4)]
    section = TrainingSection(objectives=({"name": f"{file}:Focal"},), max_steps=12, batch_size=4, learning_rate=1e-2)
    trained = train(
        tiny_model, tmp_path / "model", tmp_path / "work",
        template=template, rows=rows, validation=[], section=section, seed=1, what="trial",
    )  # fmt: skip
    assert trained.curve[-1]["loss"] < 0.5 * trained.curve[0]["loss"]
