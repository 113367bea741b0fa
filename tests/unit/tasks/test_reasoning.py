"""Chain of thought: asked for behind whatever the prompt says, kept, trained as a second task or dropped."""

from __future__ import annotations

import pytest

from slmops.data.rows import Row
from slmops.errors import ConfigError
from slmops.tasks.base import AnswerError, Task, open_task
from slmops.tasks.reasoning import split_answer

SYSTEM = {"role": "system", "content": "One of three labels only."}
ROW = Row.of([SYSTEM, {"role": "user", "content": "Premise: it rains.\nHypothesis: it is wet."}], origin="nli.jsonl:1")


def nli(**options: object) -> Task:
    return open_task("nli", options)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("entailment", "", "entailment"),
        ("Rain wets.\nAnswer: entailment", "Rain wets.", "entailment"),
        ("Rain wets. The final answer is: entailment", "Rain wets.", "entailment"),
        ("Rain wets.\n**Answer:** neutral", "Rain wets.", "neutral"),
        ('{"reason": "Rain wets.", "answer": "entailment"}', "Rain wets.", "entailment"),
        ('```json\n{"answer_choice": "entailment", "explanation": "Rain wets."}\n```', "Rain wets.", "entailment"),
        ("Answer: neutral? No.\nAnswer: entailment", "Answer: neutral? No.", "entailment"),
        ('{"broken": ', "", '{"broken":'),
    ],
)
def test_reasoning_and_answer_are_told_apart(text: str, reasoning: str, answer: str) -> None:
    assert split_answer(text) == (reasoning, answer)


def test_the_teacher_is_asked_to_reason_behind_the_prompt_of_the_row() -> None:
    assert nli().ask(ROW)[0] == SYSTEM
    asked = nli(chain_of_thought=True).ask(ROW)
    assert asked[0]["content"].startswith(SYSTEM["content"] + "\n\n")
    assert "step by step" in asked[0]["content"]
    assert "'Answer:'" in asked[0]["content"]


def test_examples_and_labels_stand_in_the_teachers_prompt() -> None:
    examples = [{"question": "P. H.", "answer": "neutral", "rationale": "P does not say H."}]
    task = nli(chain_of_thought=True, system_prompt="Labels: {labels}.", examples=examples)
    system, question, answer, asked = task.ask(ROW)
    assert system["content"].startswith("Labels: entailment, neutral, contradiction.")
    assert question == {"role": "user", "content": "P. H."}
    assert answer == {"role": "assistant", "content": "P does not say H.\nAnswer: neutral"}
    assert asked == ROW.messages[1]
    assert nli(system_prompt="").ask(Row.of("Q"))[0]["role"] == "user"


def test_an_example_that_is_wrong_is_refused() -> None:
    with pytest.raises(ConfigError, match="the answer 'maybe' of an example is none: not a label"):
        nli(examples=[{"question": "P. H.", "answer": "maybe"}])
    with pytest.raises(ConfigError, match="chain_of_thought is off"):
        nli(examples=[{"question": "P. H.", "answer": "neutral", "rationale": "So."}])


@pytest.mark.parametrize(("rationales", "kept", "rows"), [("keep", "Rain wets.", 1), ("train", "Rain wets.", 2), ("drop", None, 1)])
def test_a_rationale_is_kept_trained_or_dropped(rationales: str, kept: str | None, rows: int) -> None:
    task = nli(chain_of_thought=True, rationales=rationales)
    text = "Rain wets.\nAnswer: Entailment"
    assert task.rationale(text) == kept
    made = task.training_rows(ROW, task.parse(text), task.rationale(text))
    assert len(made) == rows
    assert (made[0].messages, made[0].answer) == (ROW.messages, "entailment")
    if rows == 2:
        assert made[1].answer == "Rain wets."
        assert made[1].messages[1] == ROW.messages[1]
        assert "Explain" in made[1].messages[0]["content"]
        assert made[1].origin == ROW.origin


def test_without_a_system_turn_the_second_task_is_told_behind_the_question() -> None:
    [_, why] = nli(rationales="train").training_rows(Row.of("P. H."), "neutral", "So.")
    assert [turn["role"] for turn in why.messages] == ["user"]
    assert why.question.startswith("P. H.\n\nExplain")


def test_reasoning_without_an_answer_is_refused() -> None:
    with pytest.raises(AnswerError, match="no answer behind the reasoning"):
        nli(chain_of_thought=True).parse("Rain wets.\nSo this would be entailment, but let me")
    with pytest.raises(AnswerError, match="no answer behind the reasoning"):
        nli().parse("Rain wets.\nAnswer:")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Entailment.", "entailment"),
        ("'neutral'", "neutral"),
        ("**Contradiction**", "contradiction"),
        ("The relationship is neutral.", "neutral"),
    ],
)
def test_a_label_is_read(text: str, label: str) -> None:
    assert nli().parse(text) == label


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("entailment or neutral", "several labels"),
        ("This is not entailment", "not a label"),
        ("It isn't a contradiction.", "not a label"),
        ("maybe", "not a label"),
    ],
)
def test_a_text_that_names_no_label_or_several_is_refused(text: str, reason: str) -> None:
    with pytest.raises(AnswerError, match=reason):
        nli().parse(text)
