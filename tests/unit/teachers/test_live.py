"""A live teacher says of a student's samples what would be cached for the same tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slmops.data.rows import Row
from slmops.data.templates import Template, choose_template
from slmops.errors import ConfigError
from slmops.models.load import load_tokenizer
from slmops.models.tokenmap import TokenMap
from slmops.models.vocabulary import Vocabulary, trim_vocabulary
from slmops.signals.forms import TopKForm
from slmops.signals.store import row_key, write_signals
from slmops.signals.topk import TopK
from slmops.teachers.live import LiveTeacher
from slmops.teachers.local import LocalTeacher
from slmops.teachers.mapping import MappedSignals
from slmops.testing.tiny import tiny_tokenizer

ROWS = [Row.of("where is my parcel", "delivery"), Row.of("the discount code", "discount"), Row.of("hello", "account")]
K = 12


@pytest.fixture(scope="module")
def local(tiny_model: Path, template: Template) -> LocalTeacher:
    return LocalTeacher.load(tiny_model, template, "float32")


@pytest.fixture(scope="module")
def trimmed(tiny_model: Path, template: Template, tmp_path_factory: pytest.TempPathFactory) -> Template:
    """Of a student that has the tokens of two of the rows, and lacks some of the third."""
    folder = tmp_path_factory.mktemp("trimmed")
    vocabulary = Vocabulary.of(tiny_model, (token for row in template.token_ids(ROWS[:2]) for token in row))
    trim_vocabulary(tiny_model, folder, vocabulary.first(vocabulary.smallest))
    return choose_template(load_tokenizer(folder), "compact")


def as_it_is(row: Row) -> Row:
    return row


def equal(one: TopK, other: TopK) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in one.names())


def test_a_sample_is_scored_as_the_same_answer_is_cached(local: LocalTeacher, template: Template) -> None:
    cached = local.signals([template.encode(row) for row in ROWS], TopKForm(K))
    live = LiveTeacher.of(local, K, template, as_it_is).score(ROWS, [template.encode(row).answer_ids for row in ROWS])
    for before, now in zip(cached, live, strict=True):
        assert isinstance(before, TopK)
        assert equal(before, now)


def test_a_sample_that_was_cut_off_has_the_beginning_of_that(local: LocalTeacher, template: Template) -> None:
    answer = template.encode(ROWS[0]).answer_ids
    live = LiveTeacher.of(local, K, template, as_it_is)
    (whole,), (part,) = live.score(ROWS[:1], [answer]), live.score(ROWS[:1], [answer[:2]])
    assert len(part) == 2
    assert np.array_equal(part.ids, whole.ids[:2])
    np.testing.assert_allclose(part.logprobs.astype(float), whole.logprobs[:2].astype(float), atol=2e-3)


def test_the_teacher_is_asked_in_its_own_words(local: LocalTeacher, template: Template) -> None:
    asked = Row.of("please sort this: where is my parcel", "delivery")
    answer = template.encode(ROWS[0]).answer_ids
    (live,) = LiveTeacher.of(local, K, template, lambda row: asked).score(ROWS[:1], [answer])
    (cached,) = local.signals([template.encode(asked)], TopKForm(K))
    assert isinstance(cached, TopK)
    assert equal(live, cached)


def test_a_student_with_fewer_tokens_has_the_scores_under_its_own_ids(
    local: LocalTeacher, template: Template, trimmed: Template, tmp_path: Path
) -> None:
    signals = local.signals([template.encode(row) for row in ROWS[:2]], TopKForm(K))
    store = write_signals(tmp_path, [(row_key(row), signal) for row, signal in zip(ROWS, signals, strict=False)], {})
    cached = MappedSignals(store, template, trimmed, TokenMap.between(template.tokenizer, trimmed.tokenizer))
    assert all(cached.fits(row) for row in ROWS[:2])
    live = LiveTeacher.of(local, K, trimmed, as_it_is)
    scored = live.score(ROWS[:2], [trimmed.encode(row).answer_ids for row in ROWS[:2]])
    assert all(equal(now, cached.get(row)) for now, row in zip(scored, ROWS, strict=False))


def test_the_tokens_of_both_lead_back_and_forth(template: Template, trimmed: Template) -> None:
    tokens = TokenMap.between(template.tokenizer, trimmed.tokenizer)
    kept = np.flatnonzero(tokens.new_ids >= 0)
    assert len(kept) < len(template.tokenizer)
    assert np.array_equal(tokens.old_ids[tokens.new_ids[kept]], kept)
    for token, number in trimmed.tokenizer.get_vocab().items():
        assert tokens.old_ids[number] == template.tokenizer.get_vocab()[token]


def test_scores_end_at_a_token_that_is_none(local: LocalTeacher, template: Template) -> None:
    """Such as a row that pads the student's vocabulary; what comes there is still asked, and needs no token."""
    live = LiveTeacher.of(local, K, template, as_it_is)
    first, second, *_ = template.encode(ROWS[0]).answer_ids
    whole, cut, at_once = live.score(ROWS[:1] * 3, [(first, second, first), (first, 999, first), (1000,)])
    assert [len(one) for one in (whole, cut, at_once)] == [3, 2, 1]
    assert np.array_equal(cut.ids, whole.ids[:2])
    assert np.array_equal(at_once.ids, whole.ids[:1])


def test_a_student_with_tokens_of_its_own_is_refused(local: LocalTeacher) -> None:
    other = choose_template(tiny_tokenizer(420), "compact")
    with pytest.raises(ConfigError, match=r"training\.on_policy: .*other tokens than its own\n.*the teacher's tokenizer"):
        LiveTeacher.of(local, K, other, as_it_is)
