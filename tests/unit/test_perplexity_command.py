"""``slmops perplexity``: models beside each other on plain text."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from slmops.testing.tiny import save_tiny_model
from tests.commands import Call

TEXT = "Where is my parcel? It was sent a week ago, and nobody has seen it since. " * 12


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    return file


def test_two_models_are_compared_on_the_same_windows(call: Call, tiny_model: Path, text: Path, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "other", seed=9)
    done = call("perplexity", f"a={tiny_model}", f"b={other}", "--test_data", text, "--context", 64, "--stride", 32, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    a, b = found["models"]
    assert (a["name"], a["bytes"], a["tokens"]) == ("a", len(TEXT), b["tokens"])
    for model in (a, b):
        bits = math.log2(model["perplexity"]["value"]) * model["tokens"] / model["bytes"]
        assert model["bits_per_byte"]["value"] == pytest.approx(bits)
        low, high = model["perplexity"]["interval"]
        assert low < model["perplexity"]["value"] < high
    [difference] = found["differences"]
    assert difference["perplexity"]["value"] == pytest.approx(a["perplexity"]["value"] - b["perplexity"]["value"])
    shown = call("perplexity", f"a={tiny_model}", f"b={other}", "--data", text, "--context", 64, "--stride", 32).out
    assert "a less b:" in shown
    assert f"{a['perplexity']['value']:.3f} [" in shown


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--context", "64", "--stride", "64"], "64 is no stride for a context of 64 tokens"),
        (["--most_tokens", "20"], "too short for an interval"),
    ],
)
def test_what_cannot_be_measured_is_named(call: Call, tiny_model: Path, text: Path, words: list[str], problem: str) -> None:
    done = call("perplexity", tiny_model, "--data", text, *words)
    assert (done.code, problem in done.err) == (2, True), done.err


def test_files_that_are_no_text_are_named(call: Call, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for name, problem in (("empty.txt", "no text in it"), ("latin.txt", "not UTF-8"), ("none.txt", "cannot be read")):
        done = call("perplexity", tiny_model, "--data", tmp_path / name)
        assert (done.code, problem in done.err) == (2, True), done.err
