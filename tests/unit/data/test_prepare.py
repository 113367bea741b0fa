"""From raw rows to splits: checks, the limit for bad rows, duplicates, missing splits, and the folder on disk."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from slmops.data.prepare import Examined, Prepared, load, prepare, question_key, write
from slmops.data.rows import Row
from slmops.data.sources import FilesSource, RawSplits, Rejected
from slmops.errors import DataError
from slmops.files import read_json


@dataclass
class Given:
    """A source of rows that a test lists: ``question``, or ``(question, answer)``."""

    train: list[Any] = field(default_factory=list)
    pool: list[Any] = field(default_factory=list)
    validation: list[Any] = field(default_factory=list)
    test: list[Any] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    def fingerprint(self) -> str:
        return "given"

    def read(self) -> RawSplits:
        def rows(name: str) -> list[Row]:
            pairs = [item if isinstance(item, tuple) else (item, None) for item in getattr(self, name)]
            return [Row.of(question, answer, f"{name}:{line}") for line, (question, answer) in enumerate(pairs, 1)]

        return RawSplits(rows("train"), rows("pool"), rows("validation"), rows("test"), self.rejected)


def prepared(source: Given | FilesSource | RawSplits, **options: Any) -> Prepared:
    defaults: dict[str, Any] = {
        "labels": None,
        "check_answer": lambda row: None,
        "seed": 0,
        "max_bad_share": 0.1,
        "validation_share": 0.0,
        "test_share": 0.0,
    }
    return prepare(source, **{**defaults, **options})


def questions(rows: list[Row]) -> list[str]:
    return [row.question for row in rows]


def labelled(count: int, labels: str = "abcd") -> list[tuple[str, str]]:
    return [(f"question {number}", labels[number % len(labels)]) for number in range(count)]


# ---- checks and the limit


def test_answers_that_the_task_refuses_are_set_aside() -> None:
    source = Given(train=[("a", "x"), ("b", "wrong")], test=[("c", "wrong"), ("d", "x")], pool=["e"])
    result = prepared(source, check_answer=lambda row: "no label: wrong" if row.answer == "wrong" else None, max_bad_share=0.5)
    assert (questions(result.train), questions(result.test), questions(result.pool)) == (["a"], ["d"], ["e"])
    assert [(bad.origin, bad.reason) for bad in result.rejected] == [("test:1", "no label: wrong"), ("train:2", "no label: wrong")]
    assert json.loads(result.rejected[0].raw) == {"messages": [{"role": "user", "content": "c"}], "answer": "wrong"}


def test_too_many_bad_rows_stop_with_reasons_places_and_the_flag() -> None:
    bad = [Rejected(f"train.jsonl:{line}", f"broken JSON: at column {line}", "{") for line in range(1, 8)]
    source = Given(train=[("a", "x"), ("b", "wrong")], pool=["c"], rejected=bad)
    with pytest.raises(DataError) as raised:
        prepared(source, check_answer=lambda row: None if row.answer in ("x", None) else "no label: wrong", max_bad_share=0.5)
    assert str(raised.value) == (
        "data: 8 of 10 rows are bad (80.0%), more than the 50.0% allowed\n"
        "  7 × broken JSON, 1 × no label\n"
        "  the first are\n"
        "    train.jsonl:1: broken JSON: at column 1\n"
        "    train.jsonl:2: broken JSON: at column 2\n"
        "    train.jsonl:3: broken JSON: at column 3\n"
        "    train.jsonl:4: broken JSON: at column 4\n"
        "    train.jsonl:5: broken JSON: at column 5\n"
        "  → mend them, or go on without them with --max_bad_share 0.81; they are then listed in rejected.jsonl"
    )


@pytest.mark.parametrize(("limit", "passes"), [(0.2, True), (0.19, False), (0.0, False)])
def test_the_limit_itself_is_still_allowed(limit: float, passes: bool) -> None:
    source = Given(train=labelled(4), rejected=[Rejected("train:5", "empty field 'text'", "")])
    if passes:
        assert len(prepared(source, max_bad_share=limit).train) == 4
    else:
        with pytest.raises(DataError, match="1 of 5 rows are bad"):
            prepared(source, max_bad_share=limit)


def test_duplicates_do_not_count_as_bad() -> None:
    result = prepared(Given(train=[("same", "x")] * 50), max_bad_share=0.0)
    assert (len(result.train), len(result.rejected)) == (1, 49)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Given(), "there are no rows"),
        (Given(train=[("a", "x")], test=[("a", "x")]), "no training row is left"),
        (Given(train=[("a", "x")], test=[("b", "wrong")]), "no test row is left"),
        (Given(train=[("a", "x")], validation=[("b", "x")], test=[("b", "x")]), "no validation row is left"),
    ],
)
def test_a_split_that_loses_all_its_rows_is_an_error(source: Given, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepared(source, check_answer=lambda row: "no label" if row.answer == "wrong" else None, max_bad_share=1.0)


# ---- duplicates


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Where is it?", "where  is it", True),
        ("Where is it?", " WHERE IS\nIT!", True),
        ("“Really”, he said.", "'Really' he said", True),
        ("Straße", "STRASSE", True),
        ("ｗｉｄｅ", "wide", True),
        ("where is it", "where was it", False),
        ("3 + 4", "3 - 4", False),
        ("-5", "5", False),
        ("1.5 apples", "15 apples", False),
        ("fine :)", "fine :(", False),
        ("?", "!", False),
    ],
)
def test_questions_are_the_same_but_for_case_space_and_punctuation(one: str, other: str, same: bool) -> None:
    assert (question_key(Row.of(one)) == question_key(Row.of(other))) is same


def test_all_turns_belong_to_the_question() -> None:
    def asked(before: str) -> Row:
        return Row.of([{"role": "user", "content": before}, {"role": "user", "content": "yes"}])

    assert question_key(asked("tea?")) != question_key(asked("coffee?"))
    assert question_key(Row.of([{"role": "system", "content": "yes"}])) != question_key(Row.of("yes"))


def test_a_question_stays_in_test_then_validation_then_train_then_pool() -> None:
    source = Given(
        train=[("a", "x"), ("b!", "x"), ("C", "x"), ("c.", "x")],
        pool=["A", "b", "c", "d", "d"],
        validation=[("B", "x"), ("a", "x")],
        test=[("a?", "x")],
    )
    result = prepared(source)
    kept = {name: questions(result.split(name)) for name in ("test", "validation", "train", "pool")}
    assert kept == {"test": ["a?"], "validation": ["B"], "train": ["C"], "pool": ["d"]}
    assert [(bad.origin, bad.reason) for bad in result.rejected] == [
        ("validation:2", "duplicate of test:1"),
        ("train:1", "duplicate of test:1"),
        ("train:2", "duplicate of validation:1"),
        ("train:4", "duplicate of train:3"),
        ("pool:1", "duplicate of test:1"),
        ("pool:2", "duplicate of validation:1"),
        ("pool:3", "duplicate of train:3"),
        ("pool:5", "duplicate of pool:4"),
    ]


def test_of_conflicting_answers_the_first_stays() -> None:
    result = prepared(Given(train=[("a", "x"), ("A", "y"), ("a", "x"), ("b", "x")]))
    assert [(row.question, row.answer) for row in result.train] == [("a", "x"), ("b", "x")]
    assert [bad.reason for bad in result.rejected] == [
        "conflicting answer: 'y', but train:1 has 'x'",
        "duplicate of train:1",
    ]


# ---- splits


def test_missing_splits_are_drawn_from_the_labelled_rows_each_label_in_its_share() -> None:
    result = prepared(Given(train=labelled(100)), test_share=0.2, validation_share=0.1)
    assert (len(result.train), len(result.validation), len(result.test)) == (70, 10, 20)
    assert set(Counter(row.answer for row in result.test).values()) == {5}
    assert set(Counter(row.answer for row in result.validation).values()) <= {2, 3}
    everything = questions(result.train + result.validation + result.test)
    assert sorted(everything) == sorted(question for question, _ in labelled(100))


def test_the_order_of_the_rows_does_not_change_who_is_in_which_split() -> None:
    rows = labelled(60)
    shuffled = random.Random(1).sample(rows, len(rows))
    one, other = (prepared(Given(train=train), test_share=0.2, validation_share=0.2) for train in (rows, shuffled))
    for name in ("train", "validation", "test"):
        assert set(questions(one.split(name))) == set(questions(other.split(name)))


def test_another_seed_draws_other_rows() -> None:
    one, same, other = (prepared(Given(train=labelled(60)), test_share=0.2, seed=seed) for seed in (0, 0, 1))
    assert questions(one.test) == questions(same.test) != questions(other.test)


def test_a_rare_label_keeps_a_row_for_training() -> None:
    rows = [*labelled(20, "ab"), ("rare one", "rare"), ("single", "single")]
    result = prepared(Given(train=rows), labels=["a", "b", "rare", "single"], test_share=0.5, validation_share=0.3)
    assert {row.answer for row in result.train} == {"a", "b", "rare", "single"}


def test_free_text_answers_are_split_without_strata() -> None:
    rows = [(f"question {number}", f"answer {number}") for number in range(20)]
    result = prepared(Given(train=rows), test_share=0.25)
    assert (len(result.test), len(result.train), result.labels) == (5, 15, None)


def test_given_splits_are_kept_and_no_share_makes_no_split() -> None:
    source = Given(train=labelled(10), validation=[("v", "a")], test=[("t", "a")])
    result = prepared(source, test_share=0.5, validation_share=0.5)
    assert (len(result.train), questions(result.validation), questions(result.test)) == (10, ["v"], ["t"])
    assert prepared(Given(train=labelled(10))).test == []


def made_from(row: Row, text: str) -> Row:
    mark = {"method": "paraphrase", "sources": [row.id], "teacher": "t"}
    return replace(Row.of(text, row.answer, f"{row.origin} (paraphrase 1)"), made=mark)


def test_rows_that_a_teacher_made_are_trained_on_unless_they_come_from_a_held_out_row() -> None:
    real = [Row.of(question, answer, f"train:{line}") for line, (question, answer) in enumerate(labelled(40), 1)]
    made = [made_from(row, f"in other words {row.question}") for row in real]
    result = prepared(RawSplits([*real, *made], [], [], []), validation_share=0.2, test_share=0.1)
    held_out = [*result.validation, *result.test]
    assert (len(result.validation), len(result.test)) == (8, 4)
    assert all(row.made is None for row in held_out)
    assert [row.question for row in result.train if row.made] == [
        row.question for row, source in zip(made, real, strict=True) if source not in held_out
    ]
    assert {bad.kind for bad in result.rejected} == {"leak"}
    assert len(result.rejected) == 12
    assert f"leak: made from {held_out[0].origin}, which is held out" in {bad.reason for bad in result.rejected}


def test_nothing_is_measured_with_rows_that_a_teacher_made() -> None:
    real = [Row.of(question, answer, "x") for question, answer in labelled(10)]
    test = [Row.of("a test question", "a", "test:1"), made_from(real[0], "another one")]
    result = prepared(RawSplits(real, [], [], test), max_bad_share=1)
    assert questions(result.test) == ["a test question"]
    assert [bad.reason for bad in result.rejected] == ["made by a teacher: paraphrase; such rows are for training alone"]


def test_validation_comes_from_the_pool_where_nothing_is_labelled() -> None:
    result = prepared(Given(pool=[f"q{n}" for n in range(10)], test=[("t", "a")]), validation_share=0.2)
    assert (len(result.pool), len(result.validation)) == (8, 2)
    assert all(row.answer is None for row in result.validation)


def test_both_come_from_the_pool_where_nothing_is_labelled_at_all() -> None:
    result = prepared(Given(pool=[f"q{n}" for n in range(20)]), validation_share=0.15, test_share=0.2)
    assert [len(result.split(name)) for name in ("train", "pool", "validation", "test")] == [0, 13, 3, 4]
    assert all(row.answer is None for row in result.test)


@pytest.mark.parametrize(("source", "what"), [(Given(pool=["a"]), "rows"), (Given(train=[("a", "x")]), "labelled rows")])
def test_a_test_split_needs_rows(source: Given, what: str) -> None:
    with pytest.raises(DataError, match=f"too few {what} ") as raised:
        prepared(source, test_share=0.2)
    assert "--test_data" in str(raised.value)


# ---- the folder


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    source = Given(train=[*labelled(40), ("é ☃", "a"), ("question 1", "b")], pool=["p"])
    result = prepared(source, test_share=0.2, validation_share=0.1)
    write(result, tmp_path)
    assert load(tmp_path) == result
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "data.json",
        "pool.jsonl",
        "rejected.jsonl",
        "test.jsonl",
        "train.jsonl",
        "validation.jsonl",
    ]


def test_the_facts_count_rows_reasons_and_labels(tmp_path: Path) -> None:
    source = Given(train=[("a", "x"), ("b", "y"), ("a", "y")], pool=["c", "C"], test=[("d", "x")])
    write(prepared(source, labels=["x", "y", "z"]), tmp_path)
    assert read_json(tmp_path / "data.json") == {
        "rows": {"train": 2, "pool": 1, "validation": 0, "test": 1, "rejected": 2},
        "rejected": {"conflicting answer": 1, "duplicate": 1},
        "labels": {
            "x": {"train": 1, "validation": 0, "test": 1},
            "y": {"train": 1, "validation": 0, "test": 0},
            "z": {"train": 0, "validation": 0, "test": 0},
        },
    }


@pytest.mark.parametrize("damage", ["test.jsonl", "data.json"])
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, damage: str) -> None:
    write(prepared(Given(train=labelled(4))), tmp_path)
    (tmp_path / damage).unlink()
    with pytest.raises(DataError, match="damaged"):
        load(tmp_path)


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write(prepared(Given(train=labelled(40)), test_share=0.2, validation_share=0.1), tmp_path / folder)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


# ---- real data


def test_real_phrases_lose_their_duplicates(shared_data: Path) -> None:
    source = FilesSource(train=shared_data / "tone_phrases" / "dataset-classification.json")
    result = prepared(source, test_share=0.2, validation_share=0.1)
    assert len(result.rejected) == 321
    assert all(bad.kind == "duplicate" for bad in result.rejected)
    assert result.labels == ("fear", "joy", "sadness", "surprise")
    assert len(result.train) + len(result.validation) + len(result.test) == 1464 - 321


def test_real_intents_do_not_leak_from_test_into_train(shared_data: Path) -> None:
    folder = shared_data / "intent_banking77"
    result = prepared(FilesSource(train=folder / "train.csv", test=folder / "test.csv"), validation_share=0.1)
    test = {question_key(row) for row in result.test}
    assert not test & {question_key(row) for row in result.train + result.validation}
    assert result.labels is not None
    assert len(result.labels) == 77


def test_rows_of_one_pattern_are_split_all_the_same() -> None:
    rows = [Row.of(question, answer) for question, answer in labelled(40)]

    def examine(splits: Mapping[str, Sequence[Row]]) -> Examined:
        kept = {name: list(found) for name, found in splits.items()}
        return Examined(kept, [], {row.id: f"the group of {row.answer}" for row in rows})

    result = prepared(RawSplits(rows, [], [], []), examine=examine, validation_share=0.2)
    assert Counter(row.answer for row in result.validation) == {"a": 2, "b": 2, "c": 2, "d": 2}
