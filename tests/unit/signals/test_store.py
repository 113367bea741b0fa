"""Signals on disk are found by content and refused where they were made from something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from slmops.data.rows import Row
from slmops.errors import FingerprintError
from slmops.signals.store import INDEX, SignalStore, write_signals
from slmops.signals.topk import TopK

ROWS = [Row.of(f"question {number}", answer) for number, answer in enumerate(["a", "b", "a", "c"])]
LENGTHS = [3, 1, 2, 5]
MADE_FROM = {"teacher": "t1", "template": "c1", "form": "top-4 float16"}


def signals() -> list[TopK]:
    logits = torch.randn(sum(LENGTHS), 20, generator=torch.Generator().manual_seed(0))
    return [TopK.from_logits(part, 4) for part in logits.split(LENGTHS)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_signals(tmp_path / "signals", ROWS, signals(), MADE_FROM)
    return tmp_path / "signals"


def equal(a: TopK, b: TopK) -> bool:
    return all(np.array_equal(x, y) for x, y in ((a.ids, b.ids), (a.logprobs, b.logprobs), (a.tail, b.tail)))


def test_a_rows_signal_is_found_in_any_order(folder: Path) -> None:
    store = SignalStore.open(folder, MADE_FROM)
    for number in (2, 0, 3, 1, 0):
        assert equal(store.get(ROWS[number]), signals()[number])


def test_the_order_of_writing_does_not_matter(folder: Path, tmp_path: Path) -> None:
    write_signals(tmp_path / "turned", ROWS[::-1], signals()[::-1], MADE_FROM)
    turned, straight = SignalStore.open(tmp_path / "turned", MADE_FROM), SignalStore.open(folder, MADE_FROM)
    assert all(equal(turned.get(row), straight.get(row)) for row in ROWS)


def test_the_arrays_are_not_read_into_memory(folder: Path) -> None:
    assert isinstance(SignalStore.open(folder, MADE_FROM).arrays.ids, np.memmap)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"teacher": "t2"}, "another teacher"),
        ({"template": "c2"}, "another template"),
        ({"form": "top-8 float16"}, "another form"),
        ({"teacher": "t2", "form": "top-8 float16"}, "another form and another teacher"),
        ({"tokenizer": "x"}, "another tokenizer"),
    ],
)
def test_signals_made_from_something_else_are_refused(folder: Path, change: dict[str, str], named: str) -> None:
    with pytest.raises(FingerprintError, match=f"made with {named}\n"):
        SignalStore.open(folder, {**MADE_FROM, **change})


def test_another_question_or_answer_has_no_signal(folder: Path) -> None:
    store = SignalStore.open(folder, MADE_FROM)
    for row in (ROWS[0].with_answer("b"), Row.of("question 9", "a", origin="rows.csv:9")):
        with pytest.raises(FingerprintError, match="no cached signal for this row and answer"):
            store.get(row)


def test_the_index_comes_last(tmp_path: Path) -> None:
    broken = [*signals()[:3], signals()[0]]
    broken[3] = TopK(broken[3].ids, broken[3].logprobs[:, :2], broken[3].tail)  # cannot be joined with the others
    with pytest.raises(ValueError, match="dimension"):
        write_signals(tmp_path, ROWS, broken, MADE_FROM)
    assert not (tmp_path / INDEX).exists()
