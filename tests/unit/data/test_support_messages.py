"""The generated support messages: the same for a seed, balanced, varied, and a test split that shares no template."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import permutations

import pytest
from pydantic import ValidationError

from slmops.data import support_phrases
from slmops.data.support_messages import LABELS, Message, SupportMessages, generate, generate_with_templates
from slmops.files import digest

SPLITS = ("labelled", "pool", "validation", "test")


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Message]]:
    return generate_with_templates(SupportMessages())


def everything(splits: dict[str, list[Message]]) -> list[Message]:
    return [message for split in SPLITS for message in splits[split]]


def test_the_same_options_give_the_same_messages_in_another_process():
    options = SupportMessages(pool=50, test=40)
    code = (
        "from slmops.data.support_messages import *; from slmops.files import digest;"
        "print(digest(generate(SupportMessages(pool=50, test=40))))"
    )
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert generate(options) == generate(options)
    assert elsewhere.stdout.strip() == digest(generate(options))


def test_another_seed_gives_other_messages():
    assert generate(SupportMessages(pool=50, test=40)) != generate(SupportMessages(pool=50, test=40, seed=8))


def test_a_bigger_pool_begins_with_the_smaller_one_and_changes_no_other_split():
    small, large = generate(SupportMessages(pool=50)), generate(SupportMessages(pool=80))

    assert all(small[split] == large[split] for split in ("labelled", "validation", "test"))
    assert small["pool"] == large["pool"][:50]


def test_there_are_as_many_messages_as_asked_for(splits: dict[str, list[Message]]):
    assert {split: len(splits[split]) for split in SPLITS} == {"labelled": 108, "pool": 1200, "validation": 54, "test": 400}


@pytest.mark.parametrize("split", ["labelled", "validation", "test"])
def test_queues_are_as_equal_as_the_count_allows(splits: dict[str, list[Message]], split: str):
    counts = Counter(message.label for message in splits[split])

    assert set(counts) == set(LABELS)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_every_queue_is_in_the_pool(splits: dict[str, list[Message]]):
    counts = Counter(message.label for message in splits["pool"])

    assert set(counts) == set(LABELS)
    assert min(counts.values()) >= 30


def test_labels_are_short_and_none_begins_with_another():
    assert len(LABELS) >= 16
    assert all(label == label.lower() and 1 <= len(label.split()) <= 3 for label in LABELS)
    assert not [(one, other) for one, other in permutations(LABELS, 2) if other.startswith(one)]


def test_no_text_occurs_twice_in_or_between_splits(splits: dict[str, list[Message]]):
    texts = [message.text.casefold() for message in everything(splits)]

    assert len(set(texts)) == len(texts)


def test_the_test_split_shares_no_template_with_the_others(splits: dict[str, list[Message]]):
    held_out = {template for message in splits["test"] for template in message.templates}
    others = {
        template for split in ("labelled", "pool", "validation") for message in splits[split] for template in message.templates
    }

    assert held_out.isdisjoint(others)
    assert len(held_out) > 200


def test_no_sentence_template_is_written_down_twice():
    tables = (support_phrases.REQUESTS, support_phrases.WISHES, support_phrases.SETTLED)
    templates = [text for table in tables for texts in table.values() for text in texts]

    assert [text for text, count in Counter(templates).items() if count > 1] == []


@pytest.mark.parametrize("label", LABELS)
def test_each_queue_has_many_phrasings_on_both_sides(splits: dict[str, list[Message]], label: str):
    requests = {
        split: {message.templates[0] for message in splits[split] if message.label == label}
        for split in ("pool", "labelled", "test")
    }

    assert len(requests["pool"]) >= 14
    assert len(requests["labelled"]) == 6, "each labelled row of a queue has its own phrasing"
    assert len(requests["test"]) >= 10


def test_every_slot_and_alternative_is_filled():
    splits = generate_with_templates(SupportMessages(pool=6000, test=3000, seed=1))

    assert [message.text for message in everything(splits) if set("{}[]|#@") & set(message.text)] == []


def test_about_a_quarter_of_the_messages_are_misspelt(splits: dict[str, list[Message]]):
    messages = everything(splits)
    share = sum(message.misspelt for message in messages) / len(messages)

    assert 0.2 < share < 0.3


def test_about_one_message_in_seven_has_a_second_topic_that_is_not_near_its_own(splits: dict[str, list[Message]]):
    messages = everything(splits)
    two_topics = [message for message in messages if message.second]

    assert 0.1 < len(two_topics) / len(messages) < 0.2
    for message in two_topics:
        assert message.second != message.label
        assert not any({message.label, message.second} <= group for group in support_phrases.CLOSE_TOPICS)
        assert any(template.startswith(f"{message.second}, settled/") for template in message.templates)


def test_messages_have_4_to_60_words_and_about_20_on_average(splits: dict[str, list[Message]]):
    lengths = [len(message.text.split()) for message in everything(splits)]

    assert min(lengths) >= 4
    assert max(lengths) <= 60
    assert 17 < sum(lengths) / len(lengths) < 24


def test_articles_and_full_stops_are_right_where_nobody_mistyped(splits: dict[str, list[Message]]):
    texts = " ".join(f" {message.text} " for message in everything(splits) if not message.misspelt)

    assert [
        wrong
        for wrong in (" a air", " a e-", " a elec", " a um", " a invoice", " a office", " an b", "..", "?.", "  .")
        if wrong in texts
    ] == []


def test_reading_gives_rows_and_the_pool_has_no_answers():
    rows = SupportMessages(pool=30, test=20).read()

    assert (len(rows.labelled), len(rows.pool), len(rows.validation), len(rows.test)) == (108, 30, 54, 20)
    assert {row.answer for row in rows.pool} == {None}
    assert {row.answer for row in rows.labelled} == set(LABELS)
    assert {row.origin for row in rows.labelled} == {"support-messages"}
    assert len(rows.rejected) == 0


def test_the_fingerprint_changes_with_the_options_and_with_the_phrases(monkeypatch: pytest.MonkeyPatch):
    before = SupportMessages().fingerprint()

    assert SupportMessages().fingerprint() == before
    assert SupportMessages(seed=8).fingerprint() != before
    assert SupportMessages(pool=1201).fingerprint() != before
    monkeypatch.setattr(support_phrases, "OPENINGS", (*support_phrases.OPENINGS, "good afternoon,"))
    assert SupportMessages().fingerprint() != before


@pytest.mark.parametrize("wrong", [{"labeled": 108}, {"labelled": 17}, {"test": 0}, {"pool": -1}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, int]):
    with pytest.raises(ValidationError):
        SupportMessages(**wrong)
