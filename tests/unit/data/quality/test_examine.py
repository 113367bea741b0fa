"""The pass over the rows: nothing is lost, each row that goes has a reason, and real data gives the known figures."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from slmops.data.prepare import Prepared, question_key
from slmops.data.quality.check import check_source, check_success
from slmops.data.quality.examine import Findings, examine
from slmops.data.quality.report import DataReport
from slmops.data.rows import Row
from slmops.data.sources import FilesSource, Source
from slmops.errors import DataError
from slmops.sections import QualitySection
from slmops.tasks.base import open_task
from tests.words import WORDS

pytest.importorskip("datasketch", reason="the pass needs the extra quality")
pytest.importorskip("py3langid", reason="the pass needs the extra quality")

LONG = "the committee met on a cold morning in march to hear what the harbour master had to say about the missing boats"


def rows(split: str, *items: str | tuple[str, str]) -> list[Row]:
    pairs = [item if isinstance(item, tuple) else (item, None) for item in items]
    return [Row.of(question, answer, f"{split}:{line}") for line, (question, answer) in enumerate(pairs, 1)]


def looked_at(
    *,
    answers: dict[str, list[str]] | None = None,
    labels: list[str] | None = None,
    options: dict[str, Any] | None = None,
    **splits: Any,
) -> tuple[dict[str, list[str]], list[tuple[str, str]], Findings]:
    given = {name: rows(name, *splits.get(name, ())) for name in ("test", "validation", "train", "pool")}
    examined, findings = examine(given, QualitySection(**(options or {})), labels=labels, answers=answers)
    kept = {name: [row.origin for row in found] for name, found in examined.splits.items() if found}
    return kept, [(bad.origin, bad.reason) for bad in examined.rejected], findings


def test_every_row_is_good_or_set_aside_with_a_reason() -> None:
    train = [
        ("How are you?", "As an AI language model, I do not have feelings."),
        ("Say it.", "I will say it again. " * 9),
        ("Write code.", "```python\nprint(1)"),
        ("Where is it?", "On the table."),
        ("Where is it", "On the table."),
        ("Why?", "x" * 30_000),
    ]
    kept, rejected, _ = looked_at(train=train)
    assert kept == {"train": ["train:4"]}
    assert [(origin, reason.partition(":")[0]) for origin, reason in rejected] == [
        ("train:1", "refusal"),
        ("train:2", "repetition"),
        ("train:3", "cut off"),
        ("train:6", "too long"),
        ("train:5", "duplicate of train"),
    ]


def test_labels_are_not_judged_as_prose() -> None:
    train = [(f"a question about number {n}, is it good", "and" if n % 2 else "I can't help with that") for n in range(20)]
    kept, rejected, _ = looked_at(train=train)
    assert (len(kept["train"]), rejected) == (20, [])


def test_near_duplicates_go_only_with_the_same_answer_and_the_same_numbers() -> None:
    question = "what can I do if my card still has not arrived after 2 weeks of waiting"
    train = [(question, "x"), (question + " now", "x"), (question + " sir", "y"), (question.replace("2", "3"), "x")]
    kept, rejected, findings = looked_at(train=train, labels=["x", "y"])
    assert kept == {"train": ["train:1", "train:3", "train:4"]}
    assert [(origin, reason[:17]) for origin, reason in rejected] == [("train:2", "near duplicate: 0")]
    assert findings.alike == 2


def test_near_duplicates_inside_a_held_out_split_are_measured_with() -> None:
    question = "what can I do if my card still has not arrived after two weeks of waiting"
    test = [(question, "x"), (question + " now", "x"), (question + "!", "x")]
    kept, rejected, _ = looked_at(test=test, train=[(question + " sir", "x"), ("another one", "y")], labels=["x", "y"])
    assert kept == {"test": ["test:1", "test:2"], "train": ["train:2"]}
    assert [origin for origin, _ in rejected] == ["test:3", "train:1"]


def test_equal_words_alone_are_found_without_a_threshold() -> None:
    train = [("is my card - the new one - lost", "x"), ("Is my card the new one lost?", "x"), ("is my card the old one lost", "x")]
    kept, _, _ = looked_at(train=train, labels=["x", "y"], options={"near_duplicates": None})
    assert kept == {"train": ["train:1", "train:3"]}


def test_what_is_held_out_does_not_stay_in_training() -> None:
    question = "what can I do if my card still has not arrived after 2 weeks of waiting"
    kept, rejected, findings = looked_at(
        test=[(question, "x"), (LONG, "x")],
        validation=[(question.upper(), "x"), ("another question entirely", "y")],
        train=[
            (question + "!", "y"),
            (question + " sir", "x"),
            (f"Read this first: {LONG}. Who spoke there?", "x"),
            ("a new one", "y"),
        ],
        pool=["a new one?", "Another question, entirely."],
        labels=["x", "y"],
    )
    assert kept == {"test": ["test:1", "test:2"], "validation": ["validation:2"], "train": ["train:4"]}
    assert [origin for origin, _ in rejected] == ["validation:1", "train:1", "pool:1", "pool:2", "train:2", "train:3"]
    reasons = dict(rejected)
    assert reasons["validation:1"] == reasons["train:1"] == "leak: the question of test:1"
    assert re.fullmatch(r"leak: 0\.\d\d of the question of test:1", reasons["train:2"])
    assert reasons["train:3"] == "leak: it holds 100% of test:2"
    assert reasons["pool:1"] == "duplicate of train:4"
    assert findings.leaks == {("test", "validation"): 1, ("test", "train"): 3, ("validation", "pool"): 1}


def test_of_several_answers_the_commonest_stays() -> None:
    train = [("q", "x"), ("q", "y"), ("Q", "y"), ("other", "x")]
    kept, rejected, findings = looked_at(train=train, labels=["x", "y"])
    assert kept == {"train": ["train:2", "train:4"]}
    assert rejected == [("train:1", "conflicting answer: 'x', but train:2 has 'y'"), ("train:3", "duplicate of train:2")]
    assert findings.agreement is not None
    assert (findings.agreement.questions, findings.agreement.unanimous) == (1, 0)


def test_questions_on_which_the_teachers_disagree_can_be_set_aside() -> None:
    answers = {Row.of("unclear").id: ["y", "z"], Row.of("clear").id: ["x", "x"]}
    train = [("unclear", "x"), ("clear", "x"), ("alone", "x")]
    kept, rejected, findings = looked_at(train=train, labels=["x", "y", "z"], answers=answers, options={"min_agreement": 0.6})
    assert kept == {"train": ["train:2", "train:3"]}
    assert rejected == [("train:1", "disagreement: 3 different ones among 3 answers")]
    assert findings.agreement is not None
    assert findings.agreement.pairwise == 0.5


def test_balancing_is_listed() -> None:
    train = [(f"{one} {other}", "a" if at else "b") for one in WORDS for at, other in enumerate(WORDS[:4])]
    kept, rejected, _ = looked_at(train=train, labels=["a", "b"], options={"max_label_ratio": 1.0})
    assert len(kept["train"]) + len(rejected) == 64
    assert {reason for _, reason in rejected} == {"balanced: of 48 rows of 'a' 32 stay"}


def test_the_pass_counts_languages_and_personal_data() -> None:
    pool = ["Where can I see how long my parcel will still take?", "Write to anna@example.org or bob@example.org", "ok"]
    _, _, findings = looked_at(pool=pool)
    assert findings.languages["en"] >= 1
    assert findings.languages["?"] >= 1
    assert findings.personal == {"EMAIL": 1}


# ---- from a source to splits and a report


def checked(source: Source, **options: Any) -> tuple[Prepared, DataReport]:
    defaults: dict[str, Any] = {
        "name": "data",
        "task": None,
        "seed": 0,
        "max_bad_share": 1.0,
        "validation_share": 0.15,
        "test_share": 0.0,
    }
    return check_source(source, QualitySection(), **{**defaults, **options})


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def given(folder: Path, items: list[dict[str, Any]]) -> FilesSource:
    file = folder / "train.jsonl"
    file.write_text("\n".join(json.dumps(item) for item in items), encoding="utf-8")
    return FilesSource(train=file)


def test_near_duplicates_that_stay_never_straddle_the_splits(tmp_path: Path) -> None:
    twins = [(f"is the {one} of my aunt in the room beside the {other}", one, other) for one in WORDS for other in WORDS[:6]]
    items = [{"text": text, "label": label} for text, *_ in twins for text, label in ((text, "yes"), (text + "s", "no"))]
    prepared, report = checked(given(tmp_path, items), validation_share=0.2)
    side = {row.question.rstrip("s"): set[str]() for row in prepared.train + prepared.validation}
    for split in ("train", "validation"):
        for row in prepared.split(split):
            side[row.question.rstrip("s")].add(split)
    assert report.alike >= len(twins)
    assert all(len(where) == 1 for where in side.values())
    assert len(prepared.validation) > 0


def test_the_report_counts_what_the_file_holds(tmp_path: Path) -> None:
    items = [{"text": f"question number {n} about {chr(97 + n % 26) * 5}", "label": "ab"[n % 2]} for n in range(40)]
    items += [items[0], {"text": "", "label": "a"}, {"text": "my mail is eve@example.org, is it", "label": "b"}]
    items += [{"text": "my mail is eve@example.org is it", "label": "b"}]
    prepared, report = checked(given(tmp_path, items))
    assert (report.read, report.good) == (44, sum(len(prepared.split(name)) for name in ("train", "validation")))
    assert {item.kind: item.rows for item in report.aside} == {"duplicate": 2, "empty field 'text'": 1}
    assert report.personal == {"EMAIL": 2}
    assert report.evenness is not None
    assert report.evenness > 0.95
    assert report.lengths["question"].keys() == {"train", "validation"}
    texts = json.dumps(report.as_dict())
    assert "[EMAIL_1]" in texts
    assert "eve@example.org" not in texts


def test_labels_behind_a_reasoning_are_stratified(tmp_path: Path) -> None:
    letters = "ABC"
    items = [{"text": f"which of these {n}", "answer": f"Since {n} fits.\nAnswer: {letters[n % 3]}"} for n in range(60)]
    task = open_task("qa", {"choices": list(letters)})
    prepared, _ = checked(given(tmp_path, items), task=task, validation_share=0.2)
    assert Counter(task.parse(str(row.answer)) for row in prepared.validation) == {"A": 4, "B": 4, "C": 4}
    assert prepared.labels is None


def test_labels_take_their_normal_form(tmp_path: Path) -> None:
    items = [{"text": f"say {n}", "label": ("Refund.", "refund", "delivery")[n % 3]} for n in range(30)]
    task = open_task("classification", {"labels": ["refund", "delivery"]})
    prepared, report = checked(given(tmp_path, items), task=task, validation_share=0.0)
    assert Counter(row.answer for row in prepared.train) == {"refund": 20, "delivery": 10}
    assert report.labels is not None
    assert report.labels["refund"]["train"] == 20


def test_a_turn_out_of_order_is_set_aside(tmp_path: Path) -> None:
    good = [turn("user", "hello"), turn("assistant", "hi, what can I do"), turn("user", "a tea"), turn("assistant", "sure")]
    bad = [turn("user", "hello"), turn("user", "hello?"), turn("assistant", "sure")]
    waiting = [turn("assistant", "hi"), turn("user", "a coffee please")]
    source = given(tmp_path, [{"messages": good}, {"messages": bad}, {"messages": waiting}])
    prepared, report = checked(source, task=open_task("conversation", {}), validation_share=0.0)
    assert (len(prepared.train), len(prepared.pool)) == (1, 0)
    assert [bad.reason for bad in prepared.rejected] == [
        "turns: turn 2 is the user's where the assistant's is due",
        "turns: turn 1 is the assistant's where the user's is due",
    ]
    assert report.success == pytest.approx(1 / 3)
    with pytest.raises(DataError, match=r"only 33.3% of 3 rows are good, fewer than the 70.0% asked for \(2 × turns\)"):
        check_success(report, 0.7, where="data-report.html")
    check_success(report, 0.3, where="data-report.html")


def test_duplicates_are_no_fault(tmp_path: Path) -> None:
    _, report = checked(given(tmp_path, [{"text": "the same", "label": "a"}] * 20), validation_share=0.0)
    assert (report.good, report.success) == (1, 1.0)


# ---- real data


def test_the_321_duplicates_of_the_real_phrases_are_found(shared_data: Path) -> None:
    prepared, report = checked(FilesSource(train=shared_data / "tone_phrases" / "dataset-classification.json"))
    assert report.count("duplicate") == 321
    assert report.read == 1464 == report.good + len(prepared.rejected)
    assert all(bad.reason for bad in prepared.rejected)


def test_the_25_real_intents_in_train_and_test_are_found(shared_data: Path) -> None:
    folder = shared_data / "intent_banking77"
    source = FilesSource(train=folder / "train.csv", test=folder / "test.csv")
    prepared, _ = checked(source)
    equal = [bad for bad in prepared.rejected if bad.reason.startswith("leak: the question of ")]
    assert len(equal) == 25
    held_out = {question_key(row) for row in prepared.test}
    assert not held_out & {question_key(row) for row in (*prepared.train, *prepared.validation)}


def test_the_39_real_pairs_with_two_labels_are_found(shared_data: Path) -> None:
    folder = shared_data / "nli_cf"
    source = FilesSource(train=folder / "train.tsv", validation=folder / "dev.tsv", test=folder / "test.tsv")
    raw = source.read()
    letters = Counter(row.id for row in (*raw.labelled, *raw.validation, *raw.test))
    twice = {row for row, count in letters.items() if count > 1}
    prepared, report = checked(source)
    found = {Row.of(json.loads(bad.raw)["messages"]).id for bad in prepared.rejected if bad.raw.startswith('{"messages"')}
    assert len(twice) == 39
    assert twice <= found
    assert report.count("conflicting answer") >= 39 - report.count("duplicate") - report.count("leak")
