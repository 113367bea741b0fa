"""Signals on disk are found by content and refused where they were made from something else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from slmops.data.rows import Row
from slmops.data.templates import Encoded
from slmops.errors import DataError, FingerprintError
from slmops.files import size_bytes
from slmops.sections import SignalsSection
from slmops.signals.distribution import Distribution
from slmops.signals.forms import Form, form_of, kind_of
from slmops.signals.store import INDEX, SignalStore, row_key, write_signals

ROWS = [Row.of(f"question {number}", answer) for number, answer in enumerate(["a", "b", "a", "c"])]
ENCODED = [Encoded((number, *range(length)), (-100, *range(length))) for number, length in enumerate([3, 1, 2, 5])]
MADE_FROM = {"teacher": "t1", "tokenizer": "v1", "template": "c1", "data": "d1", "mask": "m1", "form": "f1"}
FORMS = [form_of(SignalsSection(k=4)), form_of(SignalsSection(form="sampled", samples=9))]


def signals(form: Form) -> list[Distribution]:
    logits = torch.randn(11, 20, generator=torch.Generator().manual_seed(0))
    parts = logits.split([len(one.answer_ids) for one in ENCODED])
    return [form.reduce(part, [row]) for part, row in zip(parts, ENCODED, strict=True)]


def pairs(form: Form) -> list[tuple[str, Distribution]]:
    return [(row_key(row), signal) for row, signal in zip(ROWS, signals(form), strict=True)]


@pytest.fixture(params=FORMS, ids=lambda form: form.fingerprint.split()[0])
def form(request: pytest.FixtureRequest) -> Form:
    return request.param


@pytest.fixture
def folder(tmp_path: Path, form: Form) -> Path:
    write_signals(tmp_path / "signals", pairs(form), MADE_FROM)
    return tmp_path / "signals"


def equal(a: Distribution, b: Distribution) -> bool:
    arrays = [(getattr(a, name), getattr(b, name)) for name in a.names()]
    return type(a) is type(b) and all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in arrays)


def test_a_rows_signal_is_found_in_any_order(folder: Path, form: Form) -> None:
    store = SignalStore.open(folder, MADE_FROM)
    for number in (2, 0, 3, 1, 0):
        assert equal(store.get(ROWS[number]), signals(form)[number])


def test_the_order_of_writing_does_not_matter(folder: Path, form: Form, tmp_path: Path) -> None:
    turned = write_signals(tmp_path / "turned", pairs(form)[::-1], MADE_FROM)
    straight = SignalStore.open(folder, MADE_FROM)
    assert all(equal(turned.get(row), straight.get(row)) for row in ROWS)


def test_the_arrays_are_not_read_into_memory(folder: Path) -> None:
    store = SignalStore.open(folder, MADE_FROM)
    arrays = [getattr(store.arrays, name) for name in store.arrays.names()]
    assert all(isinstance(array, np.memmap) for array in (*arrays, store.keys, store.spans))
    assert all(np.shares_memory(getattr(store.get(ROWS[3]), name), getattr(store.arrays, name)) for name in store.arrays.names())


def test_rows_are_written_as_they_come(form: Form, tmp_path: Path) -> None:
    """When a row is asked for, those before it are on their way to the disk, so that none need be kept."""
    sizes: list[int] = []

    def one_after_the_other() -> Iterator[tuple[str, Distribution]]:
        (signal, *_) = signals(form)
        for number in range(3000):
            sizes.append(sum(file.stat().st_size for file in tmp_path.glob(".*.tmp")))
            yield f"{number:020d}", signal

    store = write_signals(tmp_path, one_after_the_other(), MADE_FROM)
    assert len(store) == 3000
    assert sizes[1000] < sizes[2000] < sizes[2999]
    assert sizes[2999] > 0.6 * store.size - 60 * 3000  # but for what the system buffers, and the keys, which come last


def test_the_bytes_of_a_token_are_known(folder: Path) -> None:
    store = SignalStore.open(folder, MADE_FROM)
    assert store.bytes_per_token == sum(size_bytes(file) for file in folder.glob("*.npy")) / 11


@pytest.mark.parametrize("name", ["teacher", "tokenizer", "template", "data", "mask"])
def test_signals_made_from_something_else_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(FingerprintError, match=f"made with another {name}\n"):
        SignalStore.open(folder, {**MADE_FROM, name: "another"})


def test_all_that_differs_is_named(folder: Path) -> None:
    with pytest.raises(FingerprintError, match="made with another form and another mask and another teacher\n"):
        SignalStore.open(folder, {**MADE_FROM, "teacher": "t2", "form": "f2", "mask": "m2"})


def test_another_question_or_answer_has_no_signal(folder: Path) -> None:
    store = SignalStore.open(folder, MADE_FROM)
    for row in (ROWS[0].with_answer("b"), Row.of("question 9", "a", origin="rows.csv:9")):
        with pytest.raises(FingerprintError, match="no cached signal for this row and answer"):
            store.get(row)


def test_of_a_row_that_comes_twice_one_signal_is_kept(form: Form, tmp_path: Path) -> None:
    store = write_signals(tmp_path, pairs(form) * 2, MADE_FROM)
    assert (len(store), len(store.arrays)) == (4, 11)
    assert equal(store.get(ROWS[3]), signals(form)[3])


def test_what_does_not_end_well_leaves_nothing_that_can_be_opened(form: Form, folder: Path) -> None:
    other = form_of(SignalsSection(k=2))
    mixed = [*pairs(form)[:3], (row_key(ROWS[3]), signals(other)[3])]
    with pytest.raises((ValueError, AttributeError)):
        write_signals(folder, mixed, MADE_FROM)
    assert not (folder / INDEX).exists()
    assert not list(folder.glob(".*.tmp"))
    with pytest.raises(DataError, match="no answer to keep"):
        write_signals(folder, [], MADE_FROM)


def test_a_form_is_known_by_its_arrays(form: Form) -> None:
    assert [kind_of(signal) for signal in signals(form)] == [form.fingerprint.split()[0]] * 4
    assert len({one.fingerprint for one in (*FORMS, form_of(SignalsSection(k=5)), form_of(SignalsSection(form="sampled")))}) == 4
