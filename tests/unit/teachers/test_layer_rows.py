"""What is kept of a teacher's layers: taken in the same pass, found by row, and used where both read the same tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template, choose_template
from slmops.errors import ConfigError, FingerprintError
from slmops.models.layers import Shape
from slmops.models.load import load_model, load_tokenizer
from slmops.models.tokenmap import TokenMap
from slmops.models.vocabulary import Vocabulary, trim_vocabulary
from slmops.signals.forms import TopKForm
from slmops.signals.internals import Internals, Layers
from slmops.signals.store import SignalStore, row_key, write_signals
from slmops.teachers import signals as signals_module
from slmops.teachers.local import LocalTeacher
from slmops.teachers.matching import MatchedLayers
from slmops.teachers.signals import internal_rows, signal_rows
from slmops.training.batches import collate
from slmops.training.internals import from_batch

ROWS = [Row.of(f"where is my parcel {number}" + " please" * (number % 3), "delivery", f"row {number}") for number in range(7)]
KNOWN = ROWS[0]
NEW_PROMPT = Row.of("change the discount", "delivery")
NEW_ANSWER = Row.of("where is my parcel 0", "the discount code")
EVERY = [*ROWS, NEW_PROMPT, NEW_ANSWER]
KEPT = Layers((0, 3), (1, 3))


@pytest.fixture(scope="module")
def teacher(tiny_model: Path, template: Template) -> LocalTeacher:
    return LocalTeacher.load(tiny_model, template, "float32")


@pytest.fixture(scope="module")
def store(teacher: LocalTeacher, template: Template, tmp_path_factory: pytest.TempPathFactory) -> SignalStore:
    folder = tmp_path_factory.mktemp("signals")
    dict(signal_rows(teacher, EVERY, template, TopKForm(4), chunk_rows=4, work=folder / "work", layers=KEPT))
    return write_signals(folder, internal_rows(EVERY, template, chunk_rows=4, work=folder / "work"), {})


def kept_of(store: SignalStore, row: Row) -> Internals:
    found = store.get(row)
    assert isinstance(found, Internals)
    return found


def test_a_row_has_its_hidden_states_and_what_was_attended_to(store: SignalStore, tiny_model: Path, template: Template) -> None:
    model = load_model(tiny_model)
    for row in EVERY:
        encoded, kept = template.encode(row), kept_of(store, row)
        with torch.no_grad():
            states = model(torch.tensor([encoded.input_ids]), output_hidden_states=True).hidden_states
        predicting = slice(encoded.prompt_length - 1, -1)
        expected = torch.stack([states[1][0], states[4][0]], dim=1)[predicting]
        found = torch.from_numpy(kept.hidden.astype(np.float32) * kept.scales[..., None])
        torch.testing.assert_close(found[:, 0], expected[:, 0], rtol=2e-3, atol=2e-5)
        torch.testing.assert_close(model.model.norm(found[:, 1]), expected[:, 1].detach(), rtol=5e-3, atol=5e-3)
        assert kept.ids.tolist() == list(encoded.input_ids[:-1])
        assert kept.query.shape == (len(kept.ids), 2, 4, 16)
        assert kept.key.shape == kept.value.shape == (len(kept.ids), 2, 2, 16)
        assert {kept.hidden.dtype, kept.query.dtype, kept.key.dtype, kept.value.dtype} == {np.dtype(np.float16)}


def test_it_is_memory_mapped_and_its_size_is_known(store: SignalStore, tiny_model: Path) -> None:
    assert all(isinstance(getattr(store.arrays, name), np.memmap) for name in store.arrays.names())
    answers = len(store.arrays)
    read = store.arrays.tokens
    exact = answers * (4 + 2 * (2 * 64 + 4)) + read * (4 + 2 * 2 * (4 + 2 + 2) * 16)
    assert Shape.of(tiny_model).bytes_kept(KEPT) == (4 + 2 * (2 * 64 + 4), 4 + 2 * 2 * (4 + 2 + 2) * 16)
    assert store.bytes_per_token == pytest.approx(exact / answers, rel=0.2)


def test_the_distribution_is_the_same_with_layers_and_without(teacher: LocalTeacher, template: Template) -> None:
    encoded = [template.encode(row) for row in ROWS]
    plain = teacher.signals(encoded, TopKForm(4))
    watched, kept = teacher.observe(encoded, TopKForm(4), KEPT)
    assert len(kept) == len(plain) == len(ROWS)
    for one, other in zip(plain, watched, strict=True):
        assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in one.names())


@pytest.mark.parametrize("call", [3, 4], ids=["between a chunk's two files", "in the second of both"])
def test_interrupted_between_two_files_a_chunk_is_made_again(
    teacher: LocalTeacher, template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    def take(name: str) -> dict[str, bytes]:
        work = tmp_path / f"{name}-work"
        taken = signal_rows(teacher, ROWS, template, TopKForm(4), chunk_rows=3, work=work, layers=KEPT)
        write_signals(tmp_path / name, taken, {})
        write_signals(tmp_path / name / "layers", internal_rows(ROWS, template, chunk_rows=3, work=work), {})
        return {str(file.relative_to(tmp_path / name)): file.read_bytes() for file in (tmp_path / name).rglob("*.*")}

    whole, original, calls = take("whole"), signals_module._write, []

    def interrupted(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(signals_module, "_write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            take("killed")
    assert not (tmp_path / "killed" / "index.json").exists()
    assert take("killed") == whole


def test_layers_of_one_kind_take_no_room_for_the_other(teacher: LocalTeacher, template: Template, tmp_path: Path) -> None:
    for number, layers in enumerate((Layers((2,)), Layers((), (2,)))):
        work = tmp_path / f"work-{number}"
        dict(signal_rows(teacher, ROWS, template, TopKForm(4), chunk_rows=4, work=work, layers=layers))
        store = write_signals(tmp_path / str(number), internal_rows(ROWS, template, chunk_rows=4, work=work), {})
        kept = kept_of(store, KNOWN)
        assert kept.hidden.size == (len(kept) * 64 if layers.hidden else 0)
        assert kept.query.size == (0 if layers.hidden else len(kept.ids) * 64)


def test_hidden_states_too_large_for_half_precision_are_kept(teacher: LocalTeacher, template: Template, tiny_model: Path) -> None:
    model = load_model(tiny_model)
    with torch.no_grad():
        model.model.embed_tokens.weight *= 1e7
    loud = LocalTeacher(type(teacher.runtime)(model, template.tokenizer, 256), template)
    (kept,) = loud.observe([template.encode(KNOWN)], TopKForm(4), KEPT)[1]
    assert kept.scales.min() > 1e5
    assert np.isfinite(kept.hidden).all()
    assert np.abs(kept.hidden).max() > 0.5


def matched(store: SignalStore, student: Template, new_ids: np.ndarray | None = None) -> MatchedLayers:
    return MatchedLayers(store, KEPT, [((0, 3),)], student, new_ids)


@pytest.fixture(scope="module")
def trimmed(tiny_model: Path, template: Template, tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A student that has the tokens of :data:`ROWS` alone."""
    folder = tmp_path_factory.mktemp("trimmed")
    vocabulary = Vocabulary.of(tiny_model, (token for row in template.token_ids(ROWS) for token in row))
    trim_vocabulary(tiny_model, folder, vocabulary.first(vocabulary.smallest))
    return choose_template(load_tokenizer(folder), "compact")


def test_with_the_same_tokens_every_row_is_compared(store: SignalStore, template: Template) -> None:
    own = matched(store, template)
    assert all((own.get(row).answer, own.get(row).whole) == (True, True) for row in EVERY)
    assert own.check(EVERY) == "  compared with the teacher's: hidden states in 9 of 9 rows, attention in 9 of 9 rows"


def test_a_student_with_fewer_tokens_is_compared_where_it_reads_the_same(
    store: SignalStore, template: Template, trimmed: Template
) -> None:
    own = matched(store, trimmed, TokenMap.between(template.tokenizer, trimmed.tokenizer).new_ids)
    found = {row_key(row): (own.get(row).answer, own.get(row).whole) for row in EVERY}
    assert all(found[row_key(row)] == (True, True) for row in ROWS)
    assert found[row_key(NEW_PROMPT)] == (True, False)
    assert found[row_key(NEW_ANSWER)] == (False, False)
    assert own.check(EVERY) == "  compared with the teacher's: hidden states in 8 of 9 rows, attention in 7 of 9 rows"
    batch = collate([trimmed.encode(row) for row in EVERY], 0, internals=[own.get(row) for row in EVERY])
    inside = from_batch(batch)
    counts = [len(trimmed.encode(row).answer_ids) for row in EVERY]
    assert inside.answer.tolist() == [row is not NEW_ANSWER for row, count in zip(EVERY, counts, strict=True) for _ in range(count)]
    assert not inside.hidden[~inside.answer].any()
    assert inside.hidden[inside.answer].any(-1).all()
    assert not inside.attended[0].queries[-2:].any()


def test_a_teacher_that_is_asked_otherwise_is_compared_at_answers_alone(
    teacher: LocalTeacher, template: Template, tmp_path: Path
) -> None:
    asked = [Row(row.id, ({"role": "system", "content": "Answer."}, *row.messages), row.answer) for row in ROWS]
    work = tmp_path / "work"
    dict(signal_rows(teacher, asked, template, TopKForm(4), chunk_rows=4, work=work, layers=KEPT))
    store = write_signals(tmp_path / "store", internal_rows(asked, template, chunk_rows=4, work=work), {})
    own = matched(store, template)
    assert (own.get(KNOWN).answer, own.get(KNOWN).whole) == (True, False)
    with pytest.raises(ConfigError, match=r"the teacher's attention can be compared in no row.*\n.*tokens alone, or hidden_states"):
        own.check(ROWS)
    hidden = MatchedLayers(store, Layers((0, 3)), [((0, 3),)], template)
    assert hidden.check(ROWS) == "  compared with the teacher's: hidden states in 7 of 7 rows"


def test_a_row_that_the_teacher_never_saw_is_refused(store: SignalStore, template: Template) -> None:
    with pytest.raises(FingerprintError, match="no cached signal for this row and answer"):
        matched(store, template).get(Row.of("hello", "refund"))


def test_padding_stands_on_the_left_of_what_was_attended_to(store: SignalStore, template: Template) -> None:
    own = matched(store, template)
    encoded: list[Encoded] = [template.encode(row) for row in ROWS[:3]]
    inside = from_batch(collate(encoded, 0, internals=[own.get(row) for row in ROWS[:3]]))
    width = max(len(one.input_ids) for one in encoded)
    for place, (row, one) in enumerate(zip(ROWS[:3], encoded, strict=True)):
        kept, start = kept_of(store, row), width - len(one.input_ids)
        assert not inside.attended[1].keys[place, :start].any()
        assert not inside.attended[1].keys[place, -1].any()
        assert np.array_equal(inside.attended[1].keys[place, start:-1].numpy(), kept.key[:, 1].astype(np.float32))


def test_keys_are_those_of_the_distribution(store: SignalStore) -> None:
    assert {key.decode() for key in store.keys} == {row_key(row) for row in EVERY}
