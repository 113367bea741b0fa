"""Hyperparameters chosen by method, width and rows; what the user gave stays."""

from __future__ import annotations

import pytest

from slmops.config import FinetuneTraining
from slmops.sections import LoraSection, TrainingSection
from slmops.training.defaults import CHOSEN, Job, Setting, choose, learning_rate, settings_of, table

TONES = Job("lora", 576, 1200, 40.0)


def values(job: Job, names: tuple[str, ...] = CHOSEN, **given: object) -> dict[str, object]:
    found = choose(job, TrainingSection.model_validate(given), names)
    assert all(one.origin == "default" and one.reason for one in found.values())
    return {name: one.value for name, one in found.items()}


@pytest.mark.parametrize(
    ("method", "width", "rate"),
    [
        ("full", 2000, 5e-5),
        ("lora", 2000, 5e-4),
        ("qlora", 2000, 5e-4),
        ("lora", 576, 1.3e-3),  # SmolLM2-135M: 5e-4 · (2000 / 576)^0.78
        ("full", 4096, 2.9e-5),
        ("full", 32, 5e-4),  # the bound
    ],
)
def test_adapters_take_ten_times_the_rate_and_narrow_models_more(method: str, width: int, rate: float) -> None:
    assert learning_rate(method, width) == pytest.approx(rate)


def test_few_rows_are_seen_more_often_and_in_small_batches() -> None:
    assert values(TONES) == {
        "learning_rate": 1.3e-3,
        "batch_size": 16,
        "gradient_accumulation_steps": 1,
        "epochs": 4.0,  # 75 updates a pass, 300 wanted
        "warmup_share": 0.1,
    }
    few = values(Job("lora", 576, 60, 40.0))
    assert (few["batch_size"], few["epochs"]) == (8, 10.0)
    many = values(Job("lora", 576, 100_000, 40.0))
    assert (many["batch_size"], many["epochs"]) == (32, 1.0)
    assert many["warmup_share"] == 0.032  # 100 of 3,125 updates


def test_long_rows_go_a_few_at_a_time_and_as_many_make_an_update() -> None:
    long = values(Job("full", 576, 1200, 1000.0))
    assert (long["batch_size"], long["gradient_accumulation_steps"]) == (4, 4)
    assert values(Job("full", 576, 1200, 9000.0))["batch_size"] == 1


def test_what_the_user_gave_is_gone_by() -> None:
    assert "epochs" not in values(TONES, max_steps=40)
    mine = values(TONES, tuple(name for name in CHOSEN if name != "batch_size"), batch_size=4)
    assert "batch_size" not in mine
    assert (mine["gradient_accumulation_steps"], mine["epochs"]) == (1, 2.0)
    accumulated = tuple(name for name in CHOSEN if name != "gradient_accumulation_steps")
    assert values(TONES, accumulated, gradient_accumulation_steps=8)["batch_size"] == 2
    assert values(TONES, ()) == {}


def test_a_model_that_is_not_here_has_no_rate_yet() -> None:
    found = choose(Job("lora", None, 1200, 40.0), TrainingSection(), CHOSEN)["learning_rate"]
    assert found.value is None
    assert "when it is on this machine" in found.reason


def test_the_table_has_values_origins_and_reasons() -> None:
    section = FinetuneTraining(lora=LoraSection(), learning_rate=2e-4)
    chosen = choose(TONES, section, tuple(name for name in CHOSEN if name != "learning_rate"))
    lines = settings_of(section, chosen, Setting("validation", "180 rows", "default", "none given: 15% held out, by label"))
    text = table(lines).splitlines()
    assert text[0].split() == ["value", "from", "reason"]
    assert text[1].split() == ["learning_rate", "0.0002", "yours"]
    assert text[-1].endswith("none given: 15% held out, by label")
    (start,) = {line.index(word) for line, word in ((text[0], "from"), (text[1], "yours"), (text[2], "default"))}
    assert start > 0
    plain = settings_of(FinetuneTraining(), {}, lines[-1])
    assert [(one.origin, one.reason) for one in plain[:-1]] == [("default", "as in every recipe")] * 5
