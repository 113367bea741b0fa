"""``slmops shrink``: the plan, the model and what a second call does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops.cli import main
from slmops.files import write_jsonl
from slmops.models.load import parameter_count, read_config
from slmops.models.resolve import resolve
from slmops.testing.tiny import save_tiny_model


@pytest.fixture(autouse=True)
def small_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slmops.models.vocabulary.MARGIN", 20)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), layers=4, hidden=16)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"text": f"where is my parcel {n}", "label": "delivery" if n % 2 else "refund"} for n in range(20)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    return tmp_path / "train.jsonl"


def shrink(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["shrink", *map(str, words)])
    return int(ended.value.code or 0)


def test_a_plan_is_printed_and_nothing_is_cut(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert shrink("--model", model, "--target", "12K", "--data", data, "-o", out, "--plan") == 0
    assert "vocabulary" in capsys.readouterr().out
    assert shrink("--model", model, "--target", "12K", "--data", data, "-o", out, "--plan", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["cut"]["parameters"] <= 12_000 < plan["parent"]["parameters"]
    assert not out.exists()


def test_the_model_is_cut_once(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ("--model", model, "--target", "12K", "--data", data, "--keep", "importance", "-o", out, "--json")
    assert shrink(*words) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["cut"]["parameters"] == parameter_count(out) == resolve(out).parameters
    assert len(facts["influence"]) == 4
    before = (out / "manifest.json").stat().st_mtime_ns
    assert shrink(*words) == 0
    assert (out / "manifest.json").stat().st_mtime_ns == before
    assert shrink("--model", model, "--layers", 2, "-o", out) == 2
    assert "something else is here" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*partial"))


def test_a_time_is_estimated_and_then_measured(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shrink("--model", model, "--target", "10s", "-o", tmp_path / "out") == 0
    said = capsys.readouterr()
    assert "ms (estimate)" in said.err
    assert "ms measured" in said.out


def test_a_number_of_layers_or_tokens_needs_no_target(model: Path, data: Path, tmp_path: Path) -> None:
    assert shrink("--model", model, "--layers", 2, "--vocabulary", 360, "--data", data, "-o", tmp_path / "out") == 0
    config = read_config(tmp_path / "out")
    assert (config["num_hidden_layers"], config["vocab_size"]) == (2, 360)


def test_layers_are_named_by_their_numbers(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shrink("--model", model, "--keep", "0,2,3", "-o", tmp_path / "out", "--json") == 0
    assert json.loads(capsys.readouterr().out)["kept_layers"] == [0, 2, 3]
    assert read_config(tmp_path / "out")["num_hidden_layers"] == 3


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "nothing says how small"),
        (("--keep", "0,9"), "there is no layer 9"),
        (("--keep", "2,0"), "each once, in their order"),
        (("--keep", "0,1", "--layers", 3), "leave layers out"),
        (("--keep", "best", "--layers", 3), "keep"),
        (("--target", "20 pounds"), "is no target"),
        (("--target", "1K"), "cannot be reached"),
        (("--vocabulary", "few"), "is no size of a vocabulary"),
    ],
)
def test_what_cannot_be_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], problem: str
) -> None:
    assert shrink("--model", model, "-o", tmp_path / "out", *words) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
