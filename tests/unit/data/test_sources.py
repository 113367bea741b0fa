"""Files become rows: shapes, columns chosen by name or by what they hold, and what is said about a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from given_files import given, read, user
from pydantic import ValidationError

from slmops.data.readers import NOT_UTF8
from slmops.data.rows import Row
from slmops.data.sources import SOURCES, FilesSource, detect
from slmops.errors import ConfigError, DataError

# ---- shapes


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [
        ({"prompt": "2 + 2?", "response": "4"}, "2 + 2?", "4"),
        ({"prompt": "2 + 2?", "completion": " 4\n"}, "2 + 2?", "4"),
        ({"prompt": "2 + 2?", "answer": "4"}, "2 + 2?", "4"),
        ({"input": "2 + 2?", "output": "4"}, "2 + 2?", "4"),
        ({"input": "2 + 2?", "teacher_output": "4"}, "2 + 2?", "4"),
        ({"instruction": "Add.", "input": "2, 2", "output": "4"}, "Add.\n\n2, 2", "4"),
        ({"instruction": "Add 2 and 2.", "input": "", "output": "4"}, "Add 2 and 2.", "4"),
        ({"text": "2 + 2", "label": 4}, "2 + 2", "4"),
        ({"Text": "4 > 2", "Label": True}, "4 > 2", "true"),
        ({"question": "2 + 2?", "answer": "4"}, "2 + 2?", "4"),
        ({"id": 7, "question": "2 + 2?", "answerKey": "B"}, "2 + 2?", "B"),
        ({"utteranceId": "u1", "utterance": "hi", "slot-labels": "O", "intent": "greet"}, "hi", "greet"),
        ({"sentence": "good", "label": "positive"}, "good", "positive"),
        (
            {"sentence1": "A dog.", "sentence2": "A pet.", "gold_label": "entailment"},
            "sentence1: A dog.\nsentence2: A pet.",
            "entailment",
        ),
        ({"context": "It is 5.", "question": "What is it?", "answer": "5"}, "context: It is 5.\nquestion: What is it?", "5"),
    ],
)
def test_columns_are_known_by_their_names(tmp_path: Path, row: dict[str, Any], question: str, answer: str) -> None:
    [got] = read(tmp_path, [row]).labelled
    assert (got.messages, got.answer) == ((user(question),), answer)


@pytest.mark.parametrize(
    ("row", "options", "fields"),
    [
        ({"premise": "A dog.", "hypothesis": "A pet.", "label": "yes"}, {}, {"premise": "A dog.", "hypothesis": "A pet."}),
        ({"a": {"one": "x"}, "two": "y", "z": "yes"}, {"input_field": "a.one,two", "answer_field": "z"}, {"one": "x", "two": "y"}),
        ({"a": "x", "b": 2, "c": "yes"}, {"text_template": "{a} or {b}: {c}"}, {"a": "x", "b": "2"}),
        ({"instruction": "Add 2 and 2.", "input": "", "output": "4"}, {}, {"instruction": "Add 2 and 2."}),
        ({"text": "A dog.", "label": "yes"}, {}, None),
    ],
)
def test_the_texts_of_a_question_made_of_several_are_kept(
    tmp_path: Path, row: dict[str, Any], options: dict[str, str], fields: dict[str, str] | None
) -> None:
    [got] = read(tmp_path, [row], **options).labelled
    assert got.fields == fields
    assert Row.from_dict(got.as_dict()) == got
    assert ("fields" in got.as_dict()) == (fields is not None)
    assert got.with_answer("no").fields == fields


def test_the_last_assistant_turn_of_messages_is_the_answer(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, user("hi"), {"role": "assistant", "content": "hello"}, user("2 + 2?")]
    splits = read(tmp_path, [{"messages": [*turns, {"role": "assistant", "content": "4"}]}, {"messages": turns}])
    assert [(row.messages, row.answer) for row in splits.labelled] == [(tuple(turns), "4")]
    assert [(row.messages, row.answer) for row in splits.pool] == [(tuple(turns), None)]


def test_messages_may_have_their_answer_in_a_field_beside_them(tmp_path: Path) -> None:
    splits = read(tmp_path, [{"messages": [user("2 + 2?")], "answer": "4"}, {"messages": [user("2 + 3?")], "answer": None}])
    assert [row.answer for row in splits.labelled] == ["4"]
    assert [row.question for row in splits.pool] == ["2 + 3?"]


def test_a_field_beside_a_finished_conversation_is_not_its_answer(tmp_path: Path) -> None:
    turns = [user("hi"), {"role": "assistant", "content": "hello"}]
    [row] = read(tmp_path, [{"messages": turns, "category": "small talk"}]).labelled
    assert row.answer == "hello"


def test_the_system_prompt_goes_before_conversations_that_have_none(tmp_path: Path) -> None:
    own = {"role": "system", "content": "Own."}
    rows = [{"messages": [user("a")]}, {"messages": [own, user("b")]}, {"messages": [{"role": "system", "content": ""}, user("c")]}]
    splits = read(tmp_path, rows, system_prompt="Given.")
    assert [row.messages[0]["content"] for row in splits.pool] == ["Given.", "Own.", "Given."]


def test_a_text_template_names_the_fields(tmp_path: Path) -> None:
    rows = [{"phrase": "so glad", "tone": "joy", "year": 2020}]
    [one] = read(tmp_path, rows, text_template="{phrase} => {tone}").labelled
    assert (one.question, one.answer) == ("so glad", "joy")
    [two] = read(tmp_path, rows, text_template="In {year}: {phrase} => {tone}").labelled
    assert (two.question, two.answer) == ("In 2020: so glad =>", "joy")


def test_fields_can_be_named(tmp_path: Path) -> None:
    rows = [{"text": "ignored", "title": "Late", "body": "Where is it?", "queue": "delivery"}]
    [one] = read(tmp_path, rows, input_field="body", answer_field="queue").labelled
    assert (one.question, one.answer) == ("Where is it?", "delivery")
    [two] = read(tmp_path, rows, input_field="title, body", answer_field="queue").labelled
    assert two.question == "title: Late\nbody: Where is it?"


def test_a_named_field_may_hold_the_turns(tmp_path: Path) -> None:
    rows = [{"conversation": [user("hi"), {"role": "assistant", "content": "hello"}], "topic": "none"}]
    [row] = read(tmp_path, rows, input_field="conversation").labelled
    assert (row.messages, row.answer) == ((user("hi"),), "hello")


# ---- columns by what they hold


def test_of_two_unknown_columns_the_one_with_few_short_values_is_the_answer(tmp_path: Path) -> None:
    rows = [{"tone": tone, "id": number, "phrase": f"phrase {number}"} for number, tone in enumerate(["joy", "fear"] * 4)]
    splits = read(tmp_path, rows)
    assert (splits.labelled[0].question, splits.labelled[0].answer) == ("phrase 0", "joy")


def test_a_single_unknown_text_column_is_the_question(tmp_path: Path) -> None:
    splits = read(tmp_path, "id,complaint\n1,late parcel\n2,wrong size\n", "train.csv")
    assert [row.question for row in splits.pool] == ["late parcel", "wrong size"]


@pytest.mark.parametrize(
    ("rows", "listed"),
    [
        ([{"a": "one two", "b": "three four"}, {"a": "five", "b": "six"}], "a (text), b (text)"),
        (
            [{"text": "one", "origin": "web shop", "clerk": "Ann"}, {"text": "two", "origin": "phone", "clerk": "Bo"}],
            "clerk (text)",
        ),
        (
            [{"question": {"stem": "What?"}, "answerKey": "A"}, {"question": {"stem": "Who?"}, "answerKey": "B"}],
            "question (an object)",
        ),
        ([{"source": ["a", "b"], "title": "x"}, {"source": ["c"], "title": "y"}], "source (a list), title (text)"),
    ],
)
def test_columns_that_no_rule_decides_are_listed_with_the_flags(tmp_path: Path, rows: list[dict[str, Any]], listed: str) -> None:
    with pytest.raises(DataError) as raised:
        read(tmp_path, rows)
    assert listed in str(raised.value)
    assert "--input_field NAME --answer_field NAME, or --text_template" in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_field": "txt"}, r"no column 'txt', which input_field names\n.*did you mean 'text'"),
        ({"answer_field": "lable"}, r"no column 'lable', which answer_field names\n.*did you mean 'label'"),
        ({"text_template": "{text} => {lable}"}, r"no column 'lable', which text_template names\n.*did you mean 'label'"),
    ],
)
def test_a_named_column_that_is_not_there_names_the_nearest(tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], **options)


@pytest.mark.parametrize(
    "content",
    [
        "Where is my parcel today?\tdelivery\nMoney back please\trefund\n",
        "late parcel,delivery\nno parcel,delivery\nmoney back,refund\nwrong size,refund\n",
    ],
)
def test_a_header_that_looks_like_data_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"train\.csv:1: the first line looks like data") as raised:
        read(tmp_path, content, "train.csv")
    assert "such as text,label" in str(raised.value)


def test_a_wordy_header_can_be_used_by_naming_it(tmp_path: Path) -> None:
    content = "What is your question for us?,queue\nwhere is it,delivery\n"
    [row] = read(tmp_path, content, "train.csv", input_field="What is your question for us?", answer_field="queue").labelled
    assert row.answer == "delivery"


# ---- the source as a plug-in


def test_the_registry_knows_it_and_unknown_options_are_refused(tmp_path: Path) -> None:
    assert SOURCES.get("files") is FilesSource
    with pytest.raises(ValidationError, match="labels"):
        FilesSource.model_validate({"train": "train.jsonl", "labels": ["a"]})


@pytest.mark.parametrize("name", ["input_field", "answer_field", "system_prompt"])
def test_a_text_template_excludes_options_it_would_overrule(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} and text_template exclude each other"):
        FilesSource.model_validate({"train": "t.jsonl", "text_template": "{a} => {b}", name: "x"})


def test_a_malformed_text_template_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="must end with the answer's"):
        FilesSource(train=Path("t.jsonl"), text_template="{only}")


def test_the_fingerprint_follows_options_and_contents_and_not_the_place(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "x"}]
    (tmp_path / "elsewhere").mkdir()
    here, there = given(tmp_path, rows), given(tmp_path / "elsewhere", rows)
    base = FilesSource(train=here).fingerprint()
    assert FilesSource(train=there).fingerprint() == base
    changed = [
        FilesSource(train=here, system_prompt="Be brief.").fingerprint(),
        FilesSource(train=here, test=there).fingerprint(),
        FilesSource(train=here, pool=there).fingerprint(),
        FilesSource(train=given(tmp_path, [*rows, *rows])).fingerprint(),
    ]
    assert len({base, *changed}) == 5


def test_a_missing_file_is_named_by_fingerprint_and_read(tmp_path: Path) -> None:
    source = FilesSource(train=tmp_path / "nothing.jsonl")
    for act in (source.fingerprint, source.read):
        with pytest.raises(DataError, match=r"nothing\.jsonl"):
            act()


# ---- what is said about a file


def test_a_file_is_described_in_a_paragraph(tmp_path: Path) -> None:
    rows = "".join(f"message {number},{'refund' if number % 4 else 'delivery'}\n" for number in range(8))
    found = detect(given(tmp_path, "message,queue\n" + rows + "lonely\n", "train.csv"))
    assert (found.task_type, found.distinct_answers, found.labelled_share, found.labels) == (
        "classification",
        2,
        1.0,
        ("refund", "delivery"),
    )
    assert found.describe() == (
        "train.csv: CSV, UTF-8, 8 rows; taken as question in 'message', answer in 'queue' ('queue' has few distinct short values). "
        "100% of the rows have an answer, 2 different ones (refund, delivery): classification. "
        "A question has 9 characters on average. "
        f"Bad rows set aside: 1, the first at {tmp_path / 'train.csv'}:10 (wrong number of columns: 1 where the header has 2)."
    )


@pytest.mark.parametrize(
    ("answers", "task_type"),
    [
        (["yes", "no"] * 5, "classification"),
        (["1", "2", "3", "4", "5"] * 4, "classification"),
        ([f"answer {number}" for number in range(10)], "generation"),
        ([str(number // 2) for number in range(100)], "generation"),  # results of sums, not labels
        (["a long sentence that is no label, " * 3, "another"] * 5, "generation"),
        (["same"] * 10, "generation"),
    ],
)
def test_few_short_repeated_answers_mean_classification(tmp_path: Path, answers: list[str], task_type: str) -> None:
    rows = [{"question": f"question {number}", "answer": answer} for number, answer in enumerate(answers)]
    assert detect(given(tmp_path, rows)).task_type == task_type


def test_a_file_without_answers_says_so(tmp_path: Path) -> None:
    found = detect(given(tmp_path, [{"text": "abc"}]))
    assert (found.labelled_share, found.task_type) == (0.0, "generation")
    assert "No row has an answer" in found.describe()


@pytest.mark.parametrize(
    ("file", "format", "taken", "rows", "distinct", "task_type"),
    [
        (
            "tone_phrases/dataset-classification.json",
            "JSON lines",
            "question in 'phrase', answer in 'tone'",
            1464,
            4,
            "classification",
        ),
        ("intent_banking77/train.csv", "CSV", "question in 'text', answer in 'category'", 10003, 77, "classification"),
        ("nli_cf/train.tsv", "TSV", "question in 'sentence1' and 'sentence2', answer in 'gold_label'", 8330, 3, "classification"),
        ("azure_distillation/train_nli.jsonl", "JSON lines", "chat turns in 'messages'", 512, 0, "generation"),
        ("math_gsm8k/test.jsonl", "JSON lines", "question in 'question', answer in 'answer'", 1319, 1319, "generation"),
        ("support_multidogo/insurance/dev.tsv", "TSV", "question in 'utterance', answer in 'intent'", 1980, 10, "classification"),
    ],
)
def test_real_files_are_taken_for_what_they_are(
    shared_data: Path, file: str, format: str, taken: str, rows: int, distinct: int, task_type: str
) -> None:
    found = detect(shared_data / file)
    assert (found.format, found.rows, found.distinct_answers, found.task_type) == (format, rows, distinct, task_type)
    assert taken in found.describe()


@pytest.mark.parametrize("file", ["rationales_flan_cot/creak_train.tsv", "lm_text/input.txt"])
def test_real_files_without_a_header_are_refused(shared_data: Path, file: str) -> None:
    with pytest.raises(DataError, match="the first line looks like data"):
        detect(shared_data / file)


def test_a_latin1_csv_file_keeps_the_rows_that_are_ascii(tmp_path: Path) -> None:
    splits = read(tmp_path, "text,label\ncafé,a\ntea,b\n".encode("latin-1"), "train.csv")
    assert [row.question for row in splits.labelled] == ["tea"]
    assert [(bad.origin, bad.reason) for bad in splits.rejected] == [(f"{tmp_path / 'train.csv'}:2", NOT_UTF8)]


def test_a_pool_of_chat_turns_does_without_the_columns_that_the_train_file_has(tmp_path: Path) -> None:
    train = given(tmp_path, [{"q": {"stem": "2 + 2?"}, "a": "4"}, {"q": {"stem": "3 + 2?"}, "a": "5"}], "train.jsonl")
    pool = given(tmp_path, [{"messages": [{"role": "user", "content": "2 + 3?"}]}], "pool.jsonl")
    splits = FilesSource(train=train, pool=pool, input_field="q.stem", answer_field="a").read()
    assert [row.question for row in splits.pool] == ["2 + 3?"]
    with pytest.raises(DataError, match="there is no column 'a'"):
        FilesSource(train=train, test=pool, input_field="q.stem", answer_field="a").read()
