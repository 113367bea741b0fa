"""Real data sets, read in place with the options a recipe would give, become rows whose gold answers are perfect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slmops.data.readers import NOT_UTF8
from slmops.data.sources import FilesSource, RawSplits
from slmops.tasks.base import Task, open_task, problem, rejection, task_class


def read(folder: Path, train: str, **options: Any) -> RawSplits:
    return FilesSource(train=folder / train, **options).read()


def opened(name: str, splits: RawSplits, **options: Any) -> Task:
    return open_task(name, task_class(name).complete(options, [str(row.answer) for row in splits.labelled]))


@pytest.mark.parametrize(
    ("task_type", "train", "options", "rows"),
    [
        ("nli", "nli_cf/dev.tsv", {}, 1000),
        ("qa", "qa_commonsenseqa/dev_rand_split.jsonl", {"input_field": "question.stem,question.choices"}, 1221),
        ("math", "math_gsm8k/test.jsonl", {}, 1319),
        ("summarization", "summarization_scitldr/dev.jsonl", {"input_field": "source", "answer_field": "target"}, 619),
        ("extraction", "ner_wnut17/emerging.dev.conll", {}, 1009),
        ("extraction", "extraction_snips/validate_GetWeather.json", {}, 100),
        ("extraction", "support_multidogo/insurance/dev.tsv", {"input_field": "utterance", "tags_field": "slot-labels"}, 1983),
        ("classification", "support_multidogo/insurance/dev.tsv", {}, 1983),
        ("conversation", "conversation_tm4/tm4_chat.jsonl", {}, 3710),
        ("generation", "instruction_dolly_small/dolly_hhrlhf_train_small.jsonl", {}, 1000),
        (
            "generation",
            "instruction_seed/seed_tasks.jsonl",
            {"input_field": "instruction,instances.0.input", "answer_field": "instances.0.output"},
            175,
        ),
        ("classification", "tone_phrases/dataset-classification.json", {}, 1464),
        ("classification", "intent_banking77/test.csv", {}, 3080),
        (
            "qa",
            "rationales_flan_cot/qasc_train.tsv",
            {"column_names": ("question", "answer", "why"), "rationale_field": "why"},
            1084,
        ),
    ],
)
def test_a_real_set_works_with_its_task(shared_data: Path, task_type: str, train: str, options: dict[str, Any], rows: int) -> None:
    splits = read(shared_data, train, **options)
    assert len(splits.labelled) + len(splits.pool) + len(splits.rejected) == rows
    assert len(splits.rejected) <= 0.01 * rows
    task = opened(task_type, splits)
    good = [row for row in splits.labelled if problem(task, row) is None]
    assert len(good) >= 0.99 * len(splits.labelled) > 0.9 * rows
    chosen = good[:: max(1, len(good) // 40)]
    gold = [str(row.answer) for row in chosen]
    if task_type == "summarization":
        pytest.importorskip("rouge_score")
    scores = task.score(gold, gold)
    assert scores[task.primary_measure] == pytest.approx(1.0)
    assert scores["valid_share"] == 1.0
    for row in chosen:
        assert task.ask(row)[-1] == row.messages[-1]
        assert task.training_rows(row, task.parse(str(row.answer)), task.rationale(str(row.answer)))[0].id == row.id


@pytest.mark.parametrize(
    ("task_type", "file", "rows", "answer"),
    [("NLI", "nli", 512, "entailment"), ("NLU_QA", "nlu_qa", 512, "E"), ("MATH", "math", 378, "7")],
)
def test_azures_files_work_as_they_are(shared_data: Path, task_type: str, file: str, rows: int, answer: str) -> None:
    folder = shared_data / "azure_distillation"
    splits = read(folder, f"train_{file}.jsonl", pool=folder / f"validation_{file}.jsonl")
    assert (len(splits.labelled), len(splits.rejected)) == (0, 0)
    assert len(splits.pool) > rows
    task = opened(task_type, splits)
    for row in splits.pool:
        assert task.ask(row) == [dict(turn) for turn in row.messages]  # their own system turn tells the teacher
    assert task.parse(answer) == answer
    assert rejection(task, "I do not know.") is not None
    reasoned = opened(task_type, splits, chain_of_thought=True).ask(splits.pool[0])
    assert [turn["role"] for turn in reasoned] == ["system", "user"]
    assert "step by step" in reasoned[0]["content"]


def test_a_multiple_choice_question_has_its_choices_and_no_answer_makes_a_pool(shared_data: Path) -> None:
    folder = shared_data / "qa_commonsenseqa"
    fields = "question.stem,question.choices"
    splits = read(folder, "dev_rand_split.jsonl", pool=folder / "test_rand_split_no_answers.jsonl", input_field=fields)
    assert len(splits.pool) == 1140
    assert splits.labelled[0].question == (
        "stem: A revolving door is convenient for two direction travel, but it also serves as a security measure at a what?\n"
        "choices:\n(A) bank\n(B) library\n(C) department store\n(D) mall\n(E) new york"
    )
    assert splits.labelled[0].answer == "A"


def test_tagged_words_and_texts_in_pieces_become_fields(shared_data: Path) -> None:
    [row] = [row for row in read(shared_data, "ner_wnut17/wnut17train.conll").labelled if "Empire State" in row.question][:1]
    assert json.loads(str(row.answer)) == {"location": ["Empire State Building", "ESB"]}
    splits = read(shared_data, "extraction_snips/validate_GetWeather.json")
    assert splits.labelled[0].question == "What will the weather be faraway from here?"
    task = opened("extraction", splits)
    assert json.loads(task.parse(str(splits.labelled[0].answer))) == {"spatial_relation": "faraway", "current_location": "here"}


def test_the_latin1_file_loses_one_row_with_its_reason(shared_data: Path) -> None:
    splits = read(shared_data, "extraction_snips/train_PlayMusic_full.json")
    assert len(splits.labelled) == 1999
    assert [bad.reason for bad in splits.rejected] == [NOT_UTF8]


def test_worked_answers_keep_their_reasoning(shared_data: Path) -> None:
    row = read(shared_data, "math_gsm8k/test.jsonl").labelled[0]
    task = open_task("math", {"rationales": "train"})
    rationale = task.rationale(str(row.answer))
    assert rationale is not None
    assert "<<" not in rationale
    [label, why] = task.training_rows(row, task.parse(str(row.answer)), rationale)
    assert (label.answer, why.answer) == ("18", rationale)
    explained = read(shared_data, "rationales_flan_cot/ecqa_train.tsv", column_names=("q", "a", "why"), input_field="q",
                     answer_field="a", rationale_field="why").labelled[0]  # fmt: skip
    task = open_task("qa", {"kind": "open"})
    assert task.parse(str(explained.answer)) == "bloody mess"
    assert str(task.rationale(str(explained.answer))).startswith("Bloody mess is covered")


def test_every_turn_of_a_real_conversation_is_learned(shared_data: Path) -> None:
    row = read(shared_data, "conversation_tm4/tm4_chat.jsonl").labelled[0]
    rows = open_task("conversation", {}).training_rows(row, str(row.answer), None)
    assert [row.answer for row in rows] == [
        "ok, then you can pick up your drink over at the bar in a few minutes.",
        "is the order displayed correct and ready to send off to be made?",
    ]
