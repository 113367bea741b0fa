"""Every registered task keeps the contract: gold answers are perfect, garbage is not, options travel as JSON."""

from __future__ import annotations

import json
import pickle
import re
from typing import Any

import pytest

from slmops.data.rows import Row
from slmops.evaluation.measures import MEASURES
from slmops.tasks.base import TASKS, AnswerError, Task, open_task, task_class

GOLD: dict[str, list[str]] = {
    "classification": ["refund", "delivery", "account help"],
    "conversation": ["Sure, a large latte. Anything else?", "It will be ready in five minutes."],
    "extraction": ['{"city": "Bad Homburg", "day": ["Monday", "Friday"]}', '{"city": "Rome"}', "{}"],
    "generation": ["Why did the chicken cross the road?", "1. Wash\n2. Cut\n3. Cook"],
    "math": ["72", "-3.5", "1/3", "He has 48/2 = <<48/2=24>>24 left.\n#### 1,024"],
    "nli": ["entailment", "neutral", "contradiction"],
    "qa": ["A", "E", "c"],
    "summarization": ["We prove that the loss of a linear network has no bad local minimum.", "A short one."],
    "translation": ["The house is on the hill.", "Good morning to all of you"],
}
MORE_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "nli": [{"chain_of_thought": True, "rationales": "train"}],
    "qa": [{"kind": "open"}, {"kind": "extractive"}, {"chain_of_thought": True}],
    "math": [{"chain_of_thought": True, "rationales": "drop"}],
    "summarization": [{"chain_of_density": True, "rationales": "train"}],
    "conversation": [{"train_on": "last"}],
    "classification": [{"system_prompt": "Choose one of {labels}."}],
}
GARBAGE = ("", "  \n ", "⁂", "I'm sorry, but I can't help with that.")
CASES = [(name, options) for name in TASKS.names() for options in [{}, *MORE_OPTIONS.get(name, [])]]
NEEDS = {"summarization": "rouge_score", "translation": "sacrebleu"}


@pytest.fixture(params=CASES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(CASES)])
def case(request: pytest.FixtureRequest) -> tuple[str, Task, list[str]]:
    name, options = request.param
    gold = GOLD[name]
    return name, open_task(name, task_class(name).complete(options, gold)), gold


def row() -> Row:
    return Row.of([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is it?"}])


def test_every_registered_task_is_tested_here() -> None:
    assert set(GOLD) == set(TASKS.names())


def test_a_gold_answer_has_a_normal_form_that_stays(case: tuple[str, Task, list[str]]) -> None:
    _, task, gold = case
    for answer in gold:
        normal = task.parse(answer)
        assert task.parse(normal) == normal
        assert task.correct(answer, answer)
        assert task.correct(normal, answer)
        assert fits(normal, task.answer_schema)


def test_gold_against_gold_is_perfect_and_garbage_is_not(case: tuple[str, Task, list[str]]) -> None:
    name, task, gold = case
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    perfect = task.score(gold, gold)
    assert set(perfect) <= set(MEASURES)
    assert perfect[task.primary_measure] == pytest.approx(1.0)
    assert perfect["valid_share"] == 1.0
    for garbage in GARBAGE:
        scores = task.score([garbage] * len(gold), gold)
        assert set(scores) == set(perfect)
        assert scores[task.primary_measure] < 0.3
        assert not task.correct(garbage, gold[0])
    assert task.score([], [])[task.primary_measure] >= 0


def test_garbage_is_refused_with_a_reason(case: tuple[str, Task, list[str]]) -> None:
    _, task, _ = case
    for garbage in GARBAGE[:2]:
        with pytest.raises(AnswerError, match=r"\w+ \w+"):
            task.parse(garbage)


def test_a_teacher_is_asked_with_strings_and_the_question_comes_last(case: tuple[str, Task, list[str]]) -> None:
    _, task, _ = case
    for question in (row(), Row.of("What is it?")):
        turns = task.ask(question)
        assert all(
            set(turn) == {"role", "content"} and all(isinstance(text, str) and text for text in turn.values()) for turn in turns
        )
        assert turns[-1] == {"role": "user", "content": "What is it?"}
        assert [turn["role"] for turn in turns].count("system") <= 1
        assert "{labels}" not in turns[0]["content"]


def test_the_first_training_row_is_the_question_with_the_answer(case: tuple[str, Task, list[str]]) -> None:
    _, task, gold = case
    for rationale in (None, "Because it says so."):
        first, *others = task.training_rows(row(), task.parse(gold[0]), rationale)
        assert (first.id, first.messages, first.answer) == (row().id, row().messages, task.parse(gold[0]))
        assert all(other.answer and other.id != first.id for other in others)


def test_options_travel_as_json_and_by_pickle(case: tuple[str, Task, list[str]]) -> None:
    name, task, gold = case
    assert task.parse(gold[0])  # fills what is cached
    options = json.loads(json.dumps(task.model_dump(mode="json")))  # type: ignore[attr-defined]
    assert open_task(name, options) == task
    assert pickle.loads(pickle.dumps(task)) == task  # noqa: S301


def fits(answer: str, schema: dict[str, Any]) -> bool:
    """The few words of JSON Schema that tasks use."""
    if "enum" in schema:
        return answer in schema["enum"]
    if schema["type"] == "object":
        values = json.loads(answer)
        return isinstance(values, dict) and set(schema["required"]) <= set(values) <= set(schema["properties"])
    return len(answer) >= schema.get("minLength", 0) and re.search(schema.get("pattern", ""), answer) is not None
