"""New training rows by a teacher: what is asked, what stays, what is refused and why."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from slmops.data.rows import Row
from slmops.errors import DataError, TeacherError
from slmops.files import read_jsonl, write_jsonl
from slmops.teachers.augment import Augment, AugmentOptions
from slmops.teachers.base import Answers, Outcome, Request
from slmops.teachers.replies import Reply

pytest.importorskip("datasketch", reason="what is alike needs the extra quality")

ROWS = [
    {"text": "Where is the parcel that I ordered last Monday?", "label": "delivery"},
    {"text": "Has my order left the warehouse yet?", "label": "delivery"},
    {"text": "I want my money back for these broken headphones.", "label": "refund"},
    {"text": "Please pay me the amount that I was charged twice.", "label": "refund"},
]


@dataclass
class Scripted:
    """A teacher that says what a function of the last turn says; ``None`` is a request that failed."""

    says: Callable[[str], str | None]
    stops_after: int | None = None
    asked: list[Request] = field(default_factory=list)
    name: str = "scripted"
    identity: Mapping[str, Any] = field(default_factory=lambda: {"scripted": 1})

    def ask(self, requests: Sequence[Request], work: Path) -> Answers:
        outcomes = []
        for request in requests:
            if self.stops_after is not None and len(self.asked) >= self.stops_after:
                outcomes.append(Outcome(request.id, None, None))
                continue
            self.asked.append(request)
            text = self.says(request.messages[-1]["content"])
            reply = None if text is None else Reply(text, "stop", 1, 1, None, "m")
            outcomes.append(Outcome(request.id, reply, "no answer in 8 attempts" if text is None else None))
        stopped = "enough" if len(self.asked) == self.stops_after else None
        return Answers(outcomes, {"faults": {"html": 1}}, stopped)


@dataclass(frozen=True)
class Made:
    kept: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    facts: dict[str, Any]

    @property
    def texts(self) -> list[str]:
        return [row["messages"][-1]["content"] for row in self.kept]

    @property
    def reasons(self) -> list[str]:
        return [row["reason"] for row in self.rejected]


@pytest.fixture
def augment(tmp_path: Path) -> Callable[..., Made]:
    def run(teacher: Scripted, rows: Sequence[Mapping[str, Any]] = ROWS, **options: Any) -> Made:
        write_jsonl(tmp_path / "train.jsonl", rows)
        given = {"data": tmp_path / "train.jsonl", "output_path": tmp_path / "out", "task_type": "classification"}
        given |= {"method": "paraphrase", "teacher_names": ("scripted",), "min_success": 0, **options}
        artifact = Augment(AugmentOptions(**given), teacher).run()
        artifact.verify()
        out = tmp_path / "out"
        return Made(read_jsonl(out / "augmented.jsonl"), read_jsonl(out / "rejected.jsonl"), dict(artifact.manifest.facts))

    return run


def between_tags(prompt: str) -> str:
    return prompt.partition("<text>\n")[2].partition("\n</text>")[0]


def in_other_words(prompt: str) -> str:
    changes = {
        "Where is the parcel that I ordered last Monday?": "Can you tell me what became of Monday's delivery to me?",
        "Has my order left the warehouse yet?": "Did you ship what I bought?",
        "I want my money back for these broken headphones.": "The headphones do not work, so refund me.",
        "Please pay me the amount that I was charged twice.": "You took the sum two times; return one of them.",
    }
    return json.dumps([changes[between_tags(prompt)]])


def test_a_paraphrase_has_the_answer_and_the_mark_of_its_source(augment: Callable[..., Made]) -> None:
    teacher = Scripted(in_other_words)
    made = augment(teacher)
    assert made.texts[1:3] == ["Did you ship what I bought?", "The headphones do not work, so refund me."]
    assert [row["answer"] for row in made.kept] == ["delivery", "delivery", "refund", "refund"]
    sources = [Row.of(row["text"]).id for row in ROWS]
    assert [row["made"] for row in made.kept] == [
        {"method": "paraphrase", "sources": [source], "teacher": "scripted"} for source in sources
    ]
    assert made.kept[0]["origin"].endswith("train.jsonl:1 (paraphrase 1)")
    assert "class 'delivery'" in teacher.asked[0].messages[-1]["content"]
    facts = {name: made.facts[name] for name in ("rows", "asked", "kept", "rejected", "labels")}
    assert facts == {"rows": 4, "asked": 4, "kept": 4, "rejected": 0, "labels": {"delivery": 2, "refund": 2}}


HELD_OUT = [
    {"text": "what about the invoice for the yellow garden chairs", "label": "refund"},
    {"text": "I would like to know who signs the big invoice for the yellow garden chairs", "label": "refund"},
]


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("", "empty answer"),
        (None, "no answer in 8 attempts"),
        ("I'm sorry, but I can't help with that request.", "refusal: "),
        ("I want my money BACK, for these broken headphones", "copy: the question of "),
        ("I want my money back for these broken headphone", "near duplicate: 0."),
        ("Ich möchte mein Geld zurück, weil die Kopfhörer schon nach einer Woche kaputt sind.", "language: "),
        ("What about the invoice for the yellow garden chairs?", "leak: the question of "),
        ("So what about the invoice for the yellow garden chairs", "leak: 0."),
        (
            "Hello again, I write because I would like to know who signs the big invoice for the yellow garden chairs of March.",
            "leak: it holds 100% of ",
        ),
        ("again and again and again and " * 12, "repetition: "),
    ],
)
def test_what_is_refused_and_why(augment: Callable[..., Made], tmp_path: Path, says: str | None, reason: str) -> None:
    write_jsonl(tmp_path / "test.jsonl", HELD_OUT)
    labels = {"labels": ["delivery", "refund"]}
    made = augment(Scripted(lambda prompt: says), ROWS[2:3], task=labels, test_data=tmp_path / "test.jsonl")
    assert made.kept == []
    assert [found.startswith(reason) for found in made.reasons] == [True], made.reasons
    assert made.facts["reasons"] == {reason.partition(":")[0]: 1}
    assert made.rejected[0]["made"]["method"] == "paraphrase"


def test_two_equal_new_rows_are_one(augment: Callable[..., Made]) -> None:
    made = augment(
        Scripted(lambda prompt: '["Nothing like it was ever said here.", "nothing like it was ever said here!"]'), per_row=2
    )
    assert made.texts == ["Nothing like it was ever said here."]
    assert len(made.rejected) == 7
    assert all("copy: the question of" in reason for reason in made.reasons)


def test_a_rewritten_question_keeps_numbers_and_what_the_answer_quotes(augment: Callable[..., Made]) -> None:
    rows = [{"question": "Tom has 3 apples and eats 1. How many are left for his sister?", "answer": "2"}]
    replies = ["Of his 3 apples Tom ate 1. What remains for the sister?", "Tom ate 2 of 5 apples. What remains for the sister?"]
    made = augment(Scripted(lambda prompt: json.dumps(replies)), rows, task_type="math", per_row=2)
    assert made.texts == replies[:1]
    assert made.reasons == ["other numbers: 2, 5 instead of 1, 3"]
    rows = [{"text": "The meeting with Ada Lovelace is in Turin.", "answer": '{"person": "Ada Lovelace", "city": "Turin"}'}]
    replies = ["In Turin there will be a talk with Ada Lovelace.", "We see the famous programmer in Turin soon."]
    made = augment(Scripted(lambda prompt: json.dumps(replies)), rows, task_type="extraction", per_row=2)
    assert made.texts == replies[:1]
    assert made.reasons == ["the answer is not in it: 'Ada Lovelace'"]


def test_back_translation_asks_twice_and_goes_through_the_named_language(augment: Callable[..., Made]) -> None:
    def says(text: str) -> str:
        return f"(deutsch) {text}" if "(deutsch)" not in text else f"Rather: {text.removeprefix('(deutsch) ')[::-1]}"

    teacher = Scripted(says)
    made = augment(teacher, method="back_translation", pivot="German", quality={"language": "any"})
    assert made.texts == [f"Rather: {row['text'][::-1]}" for row in ROWS]
    assert [row["answer"] for row in made.kept] == [row["label"] for row in ROWS]
    systems = [request.messages[0]["content"].partition(".")[0] for request in teacher.asked]
    assert systems == ["Translate the text from English into German"] * 4 + ["Translate the text from German into English"] * 4


def seeded(prompt: str) -> str:
    """New questions where they are asked for; else the label of a question."""
    if "Write 2 new ones" not in prompt:
        return "refund" if "pay" in prompt else "delivery"
    if "'delivery'" in prompt:
        return '["When does the red bicycle arrive?", "Nobody rang at our door today."]'
    return '["Kindly pay back the cinema tickets.", "What time do you open on Sundays?"]'


def test_seeds_of_a_label_stay_if_the_teacher_gives_them_that_label(augment: Callable[..., Made]) -> None:
    teacher = Scripted(seeded)
    made = augment(teacher, method="seeds")
    assert {text: row["answer"] for text, row in zip(made.texts, made.kept, strict=True)} == {
        "When does the red bicycle arrive?": "delivery",
        "Nobody rang at our door today.": "delivery",
        "Kindly pay back the cinema tickets.": "refund",
    }
    assert made.reasons == ["another label: 'refund' was asked for, and the teacher says 'delivery'"]
    assert sorted(made.kept[0]["made"]["sources"]) == sorted(Row.of(row["text"]).id for row in ROWS[:2])
    assert all("delivery\nrefund" in request.messages[0]["content"] for request in teacher.asked[2:])
    assert {request.params.temperature for request in teacher.asked[2:]} == {0.0}


def test_seeds_without_labels_get_the_teachers_answer(augment: Callable[..., Made]) -> None:
    def says(prompt: str) -> str:
        return '["Which river flows through Vienna?"]' if "Write one new one" in prompt else "The Danube"

    rows = [{"question": "What is the capital of France?", "answer": "Paris"}]
    made = augment(Scripted(says), rows, method="seeds", task_type="qa", task={"kind": "open"})
    assert [(row["messages"][-1]["content"], row["answer"]) for row in made.kept] == [
        ("Which river flows through Vienna?", "The Danube")
    ]


def test_the_seed_decides_which_seeds_stand_together(augment: Callable[..., Made]) -> None:
    rows = [{"text": f"question number {word} about the delivery", "label": "delivery"} for word in "abcdefgh"]
    rows += [{"text": "my money back", "label": "refund"}]

    def shown(seed: int) -> list[str]:
        teacher = Scripted(lambda prompt: None)
        augment(teacher, rows, method="seeds", seed=seed, quality={"near_duplicates": 0.99})
        return [request.messages[-1]["content"] for request in teacher.asked]

    first, other, again = shown(1), shown(2), shown(1)
    assert first == again != other


def test_rows_without_an_answer_give_rows_without_one(augment: Callable[..., Made]) -> None:
    rows = [*ROWS[:3], {**ROWS[3], "label": None}]
    assert [row["answer"] for row in augment(Scripted(in_other_words), rows).kept] == ["delivery", "delivery", "refund", None]


def test_the_given_rows_can_stand_before_the_new_ones_and_rows_already_made_are_no_sources(augment: Callable[..., Made]) -> None:
    mark = {"method": "paraphrase", "sources": ["x"], "teacher": "t"}
    rows = [{"messages": [{"role": "user", "content": row["text"]}], "answer": row["label"]} for row in ROWS]
    rows += [{"messages": [{"role": "user", "content": "Made of another one."}], "answer": "refund", "made": mark}]
    made = augment(Scripted(in_other_words), rows, with_originals=True)
    assert made.facts["rows"] == 4
    assert made.texts[:5] == [*(row["text"] for row in ROWS), "Made of another one."]
    assert ["made" in row for row in made.kept] == [False] * 4 + [True] * 5
    assert made.kept[4]["made"] == mark


def test_given_rows_that_are_bad_double_or_leaked_are_set_aside_with_their_reasons(
    augment: Callable[..., Made], tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "test.jsonl", [{"text": ROWS[0]["text"], "label": "delivery"}])
    made = augment(Scripted(in_other_words), [*ROWS, ROWS[1], {"text": "", "label": "refund"}], test_data=tmp_path / "test.jsonl")
    assert made.facts["rows"] == 3
    assert sorted(reason.partition(" of ")[0] for reason in made.reasons) == [
        "duplicate",
        "empty field 'text'",
        "leak: the question",
    ]


def test_too_few_good_rows_fail_and_leave_the_reasons(augment: Callable[..., Made], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only 0 good rows of 4"):
        augment(Scripted(lambda prompt: ""), min_success=0.7)
    assert len(read_jsonl(tmp_path / "out" / "rejected.jsonl")) == 4
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_teacher_that_stops_leaves_what_there_is(augment: Callable[..., Made], tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="stopped: enough; 2 new rows are there"):
        augment(Scripted(in_other_words, stops_after=2))
    assert len(read_jsonl(tmp_path / "out" / "augmented.jsonl")) == 2
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_finished_folder_asks_nobody(augment: Callable[..., Made]) -> None:
    teacher = Scripted(in_other_words)
    assert augment(teacher) == augment(teacher)
    assert len(teacher.asked) == 4


def test_nothing_to_make_rows_from(augment: Callable[..., Made]) -> None:
    mark = {"method": "paraphrase", "sources": ["x"], "teacher": "t"}
    rows = [{"messages": [{"role": "user", "content": row["text"]}], "answer": row["label"], "made": mark} for row in ROWS]
    with pytest.raises(DataError, match="no row to make others from"):
        augment(Scripted(in_other_words), rows)
