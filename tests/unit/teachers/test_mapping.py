"""A student with fewer tokens than its teacher learns from the teacher's signals under its own ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from slmops.data.rows import Row
from slmops.data.templates import Template, choose_template
from slmops.errors import FingerprintError
from slmops.models.load import load_model, load_tokenizer
from slmops.models.tokenmap import TokenMap
from slmops.models.vocabulary import Vocabulary, trim_vocabulary
from slmops.signals.sampled import Sampled
from slmops.signals.store import row_key, write_signals
from slmops.signals.tensors import from_batch
from slmops.signals.topk import TopK
from slmops.teachers.mapping import MappedSignals
from slmops.training.batches import collate
from slmops.training.forward import answers_of
from slmops.training.objectives import Answers, ForwardKL

KNOWN = Row.of("where is my parcel", "delivery")
NEW = Row.of("where is my parcel", "the discount code")
K = 12


@pytest.fixture(scope="module")
def trimmed(tiny_model: Path, template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trimmed")
    vocabulary = Vocabulary.of(tiny_model, (token for row in template.token_ids([KNOWN]) for token in row))
    trim_vocabulary(tiny_model, folder, vocabulary.first(vocabulary.smallest))
    return folder


@pytest.fixture(scope="module")
def student(trimmed: Path) -> Template:
    return choose_template(load_tokenizer(trimmed), "compact")


@pytest.fixture(scope="module")
def mapped(tiny_model: Path, template: Template, student: Template, tmp_path_factory: pytest.TempPathFactory) -> MappedSignals:
    model, signals = load_model(tiny_model), {}
    for row in (KNOWN, NEW):
        encoded = template.encode(row)
        with torch.no_grad():
            logits = model(torch.tensor([encoded.input_ids])).logits[0, encoded.prompt_length - 1 : -1]
        signals[row_key(row)] = TopK.from_logits(3 * logits, K)
    store = write_signals(tmp_path_factory.mktemp("signals"), signals.items(), {})
    return MappedSignals(store, template, student, TokenMap.between(template.tokenizer, student.tokenizer))


def test_a_row_that_both_split_alike_has_the_teachers_distribution(mapped: MappedSignals, template: Template) -> None:
    theirs, ours = mapped.store.get(KNOWN), mapped.get(KNOWN)
    assert mapped.fits(KNOWN)
    assert len(ours) == len(theirs) == len(template.encode(KNOWN).answer_ids)
    for place in range(len(ours)):
        before = dict(zip(theirs.ids[place].tolist(), theirs.logprobs[place].tolist(), strict=True))
        after = dict(zip(ours.ids[place].tolist(), ours.logprobs[place].tolist(), strict=True))
        kept = {int(mapped.tokens.new_ids[token]): value for token, value in before.items() if mapped.tokens.new_ids[token] >= 0}
        assert {token: after[token] for token in kept} == pytest.approx(kept)
        assert np.exp(ours.tail[place]) == pytest.approx(1 - sum(np.exp(list(kept.values()))), abs=2e-3)


def test_a_row_that_needs_more_tokens_learns_from_its_answer_alone(mapped: MappedSignals, student: Template) -> None:
    assert not mapped.fits(NEW)
    signal, answer = mapped.get(NEW), student.encode(NEW).answer_ids
    assert signal.ids[:, 0].tolist() == list(answer)
    assert (signal.logprobs[:, 0] == 0).all()
    assert mapped.describe([KNOWN, NEW, NEW]).startswith("  signals of 1 of 3 rows fit")


def test_the_student_that_is_the_trimmed_teacher_is_taught_nothing_but_that_tokens_are_gone(
    mapped: MappedSignals, student: Template, trimmed: Path
) -> None:
    """Its logits are the teacher's, so only the teacher's mass on tokens that are gone makes a loss."""
    encoded = student.encode(KNOWN)
    batch = collate([encoded], student.tokenizer.pad_token_id, [mapped.get(KNOWN)])
    answers = answers_of(load_model(trimmed), batch)
    own = TopK.from_logits(3 * answers.logits.detach(), len(student.tokenizer))
    loss = ForwardKL()(type(answers)(3 * answers.logits.detach(), answers.labels, answers.signal))
    theirs = mapped.store.get(KNOWN)
    gone = np.where(mapped.tokens.new_ids[theirs.ids] < 0, np.exp(theirs.logprobs.astype(float)), 0).sum(-1)
    assert len(own) == len(gone)
    assert (loss.numpy() < 3 * gone + 0.05).all()
    assert (gone > 0).any()


def test_a_row_without_a_signal_is_refused(mapped: MappedSignals) -> None:
    with pytest.raises(FingerprintError):
        mapped.get(Row.of("hello", "refund"))


def test_another_tokenizer_is_no_part_of_the_teachers(template: Template, student: Template) -> None:
    assert TokenMap.between(template.tokenizer, student.tokenizer).part
    assert not TokenMap.between(student.tokenizer, template.tokenizer).part


def test_of_drawn_tokens_those_that_are_gone_do_not_count() -> None:
    """By hand: tokens 1 and 3 are gone; the second position loses a third of its draws, the third all of them."""
    entropy = np.array([0.5, 1.0, 2.0], np.float16)
    drawn = Sampled(
        np.array([2, 3, 1], np.uint8), entropy, np.array([0, 2, 0, 1, 4, 3], np.uint16), np.array([4, 2, 1, 2, 3, 6], np.uint8)
    )
    found = drawn.remapped(np.array([0, -1, 1, -1, 2]), 3, [1, 0, 2])
    assert found.sizes.tolist() == [2, 2, 1]
    assert found.ids.tolist() == [0, 1, 0, 2, 2]
    assert found.counts.tolist() == [4, 2, 1, 3, 1]
    assert found.entropy.tolist() == pytest.approx([0.5, -0.25 * np.log(0.25) - 0.75 * np.log(0.75), 0], abs=1e-3)


def test_draws_give_the_gradient_of_the_teacher_given_the_tokens_that_are_left(
    mapped: MappedSignals, tiny_model: Path, template: Template, student: Template, tmp_path: Path
) -> None:
    encoded, size = template.encode(KNOWN), len(student.tokenizer)
    with torch.no_grad():
        logits = 3 * load_model(tiny_model)(torch.tensor([encoded.input_ids])).logits[0, encoded.prompt_length - 1 : -1]
    drawn = Sampled.from_logits(logits, 255, np.full(len(logits), 0.5))
    assert (mapped.tokens.new_ids[drawn.ids] < 0).any()
    store = write_signals(tmp_path, [(row_key(row), drawn) for row in (KNOWN, NEW)], {})
    sampled = MappedSignals(store, template, student, mapped.tokens)
    batch = collate([student.encode(KNOWN)], student.tokenizer.pad_token_id, [sampled.get(KNOWN)])
    given = torch.zeros(len(logits), size).requires_grad_()
    ForwardKL()(Answers(given, batch["shift_labels"], from_batch(batch))).sum().backward()
    kept = torch.from_numpy(mapped.tokens.old_ids.copy())
    known = torch.where(kept >= 0, logits[:, kept.clamp(min=0)], float("-inf")).softmax(-1)
    assert given.grad is not None
    assert given.grad[:, : len(kept)].numpy() == pytest.approx((1 / size - known).numpy(), abs=0.01)

    alone = sampled.get(NEW)
    assert alone.ids.tolist() == list(student.encode(NEW).answer_ids)
    assert (alone.sizes == 1).all()
    assert not alone.entropy.any()
