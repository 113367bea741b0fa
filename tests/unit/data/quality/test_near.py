"""Near duplicates: short texts too, checked by their true similarity, and never by what all rows share."""

from __future__ import annotations

import random
import sys

import pytest

from slmops.data.quality.leakage import Overlap
from slmops.data.quality.near import EqualIndex, Groups, NearIndex, compared_text, jaccard, same_numbers
from slmops.data.rows import Row
from slmops.errors import MissingExtraError

pytest.importorskip("datasketch", reason="near duplicates need the extra quality")


def alike(texts: list[str], threshold: float = 0.8) -> list[tuple[int, int]]:
    index = NearIndex([Row.of(text) for text in texts], threshold)
    pairs = []
    for at in range(len(texts)):
        pairs += [(other, at) for other, _ in index.similar(at)]
        index.add(at)
    return pairs


def test_one_letter_or_one_word_makes_no_other_question() -> None:
    texts = [
        "What can I do if my card still hasn't arrived after 2 weeks?",
        "What can I do if my card still hasn't arived after 2 weeks",
        "What can I do if my new card still hasn't arrived after 2 weeks?",
        "How do I change the PIN of my card?",
    ]
    assert alike(texts) == [(0, 1), (0, 2)]


def test_the_similarity_is_the_jaccard_index_of_the_shingles() -> None:
    index = NearIndex([Row.of("abcdefgh"), Row.of("abcdefgx")], 0.5)
    index.add(0)
    # abcde bcdef cdefg are shared; defgh and defgx are not.
    assert index.similar(1) == [(0, 3 / 5)]
    assert jaccard(frozenset({1, 2, 3}), frozenset({2, 3, 4})) == 0.5


def test_pairs_below_the_threshold_are_candidates_at_most() -> None:
    texts = ["the red car is parked behind the house", "the red car is parked before the church"]
    assert alike(texts, 0.9) == []
    assert alike(texts, 0.4) == [(0, 1)]


def test_an_instruction_that_all_rows_share_does_not_make_them_alike() -> None:
    words = ["apple", "bridge", "candle", "dragon", "engine", "forest", "garden", "hammer", "island", "jacket"]
    instruction = "You are given a premise and a hypothesis. Say whether the hypothesis follows. Answer with one word. "
    texts = [f"{instruction}{one} over the {other}" for one in words for other in words if one != other]
    found = alike(texts, 0.8)
    assert len(found) < 0.02 * len(texts) * (len(texts) - 1) / 2
    again = [*texts, texts[3] + "s"]
    assert (3, len(texts)) in alike(again, 0.8)


def test_nearly_all_pairs_of_a_large_set_are_found_and_no_others() -> None:
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 8))) for _ in range(2000)]
    texts = [" ".join(draw.sample(words, 12)) for _ in range(150)]
    pairs = alike([*texts, *(f"{text} {draw.choice(words)}" for text in texts)])
    assert set(pairs) <= {(n, n + 150) for n in range(150)}
    assert len(pairs) >= 148


def test_the_system_turn_is_not_compared() -> None:
    row = Row.of([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is it?"}])
    assert compared_text(row) == "where is it"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("3 apples", "three 3 pears", True),
        ("What is 3 + 4?", "What is 3 + 5?", False),
        ("1,000 euros", "1000 euros", False),
        ("none", "nothing", True),
    ],
)
def test_other_numbers_make_another_question(one: str, other: str, same: bool) -> None:
    assert same_numbers(Row.of(one), Row.of(other)) is same


def test_groups_grow_together() -> None:
    groups = Groups()
    for one, other in [("c", "d"), ("a", "b"), ("d", "a"), ("x", "y")]:
        groups.join(one, other)
    assert groups.as_dict() == {"a": "a", "b": "a", "c": "a", "d": "a", "x": "x", "y": "x"}
    assert groups.of("alone") == "alone"


# ---- leakage

SOURCE = "the committee met on a cold morning in march to hear what the harbour master had to say about the missing boats"


def test_a_held_out_text_inside_a_longer_one_is_found() -> None:
    held_out, other = Row.of(SOURCE), Row.of("why do cats sleep so much during the day and wake at night instead of us")
    leaking = Row.of(f"Read this. {SOURCE.upper()}! What happened next, and who was to blame?")
    half = Row.of(" ".join(SOURCE.split()[:12]) + " drink tea and talk about the weather until noon came")
    overlap = Overlap([other, held_out], [leaking, half])
    assert overlap.most(leaking) == (held_out, 1.0)
    found = overlap.most(half)
    assert found is not None
    assert found[1] < 0.5
    assert overlap.most(Row.of("nothing in common with any of them at all, not even a few words")) is None


def test_a_short_text_inside_a_longer_one_says_nothing() -> None:
    assert Overlap([Row.of("where is my card")], []).most(Row.of("where is my card, I ordered it two weeks ago")) is None


def test_what_many_rows_share_is_no_leak() -> None:
    training = [Row.of(f"{SOURCE} question {n}: who spoke") for n in range(10)]
    assert Overlap([Row.of(f"{SOURCE} what was said")], training).most(training[0]) is None


def test_without_the_extra_equal_words_are_found_or_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Row.of("My card - it's lost!"), Row.of("my card it s lost"), Row.of("my card is lost")]
    index = EqualIndex(rows)
    index.add(0)
    assert (index.similar(1), index.similar(2)) == ([(0, 1.0)], [])
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(MissingExtraError, match=r"slmops\[quality\].*near_duplicates: null"):
        NearIndex(rows, 0.8)
