"""Shares of rows: rows that belong together are taken all or none."""

from __future__ import annotations

import random
from collections import Counter

from slmops.data.rows import Row
from slmops.data.splits import take_share


def taken(rows: list[Row], count: int, *, seed: int = 0, together: bool = True) -> list[str]:
    chosen, rest = take_share(
        rows,
        count=count,
        key=lambda row: row.question,
        group=lambda row: str(row.answer),
        together=(lambda row: row.question.split()[0]) if together else None,
        seed=seed,
    )
    assert sorted(row.question for row in chosen + rest) == sorted(row.question for row in rows)
    return [row.question for row in chosen]


ROWS = [Row.of(f"group{n // 3} row{n}", "ab"[n // 3 % 2]) for n in range(300)]


def test_groups_are_taken_whole_and_strata_give_their_share() -> None:
    chosen = taken(ROWS, 60)
    sizes = Counter(question.split()[0] for question in chosen)
    assert set(sizes.values()) == {3}
    assert len(chosen) == 60
    labels = Counter(row.answer for row in ROWS if row.question in chosen)
    assert labels == {"a": 30, "b": 30}


def test_the_order_of_the_rows_has_no_influence_and_the_seed_has() -> None:
    shuffled = random.Random(3).sample(ROWS, len(ROWS))
    assert set(taken(ROWS, 60)) == set(taken(shuffled, 60))
    assert set(taken(ROWS, 60)) != set(taken(ROWS, 60, seed=1))


def test_a_group_larger_than_the_share_stays_whole() -> None:
    rows = [Row.of(f"big row{n}", "a") for n in range(50)] + [Row.of(f"small{n} row", "a") for n in range(50)]
    chosen = taken(rows, 20)
    assert len(chosen) == 20
    assert not any(question.startswith("big") for question in chosen)


def test_a_group_with_several_answers_counts_for_the_commonest() -> None:
    rows = [Row.of(f"g{n} {part}", "ab"[part == 2]) for n in range(20) for part in range(3)]
    chosen = taken(rows, 12)
    assert Counter(question.split()[0] for question in chosen).most_common(1)[0][1] == 3
    assert len(chosen) == 12


def test_rows_by_themselves_are_taken_as_before() -> None:
    alone, _ = take_share(ROWS, count=30, key=lambda row: row.question, group=lambda row: "", seed=0)
    each, _ = take_share(ROWS, count=30, key=lambda row: row.question, group=lambda row: "", together=lambda row: row.id, seed=0)
    assert alone == each
    assert len(alone) == 30


def test_rows_that_are_taken_together_leave_every_answer_a_row() -> None:
    # The only row with the answer "rare" is alike to one with "a": taken with it, nobody could learn it.
    rows = [Row.of(f"group{n} row{n}", "a") for n in range(8)] + [Row.of("group0 other", "rare")]
    for seed in range(20):
        assert "group0 other" not in taken(rows, 4, seed=seed)


def test_of_few_rows_every_answer_stays_in_training() -> None:
    for answers in ("abcdabcdabcd", "aabbccdd", "aaaaaaab"):
        rows = [Row.of(f"group{n} row{n}", answer) for n, answer in enumerate(answers)]
        for share in (0.1, 0.15, 0.2):
            chosen = taken(rows, max(1, round(len(rows) * share)), together=False)
            assert len(chosen) >= 1
            assert {row.answer for row in rows if row.question not in chosen} == set(answers)
