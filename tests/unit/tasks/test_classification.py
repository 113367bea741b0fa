"""Classification reads a label in spite of case and white space, and scores as scikit-learn does."""

from __future__ import annotations

import pytest

from slmops.errors import ConfigError, UsageError
from slmops.tasks.base import AnswerError, open_task, rejection
from slmops.tasks.classification import Classification

TASK = open_task("classification", {"labels": ["Delivery", "Refund", "account help"]})


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Delivery", "Delivery"),
        (" delivery\n", "Delivery"),
        ("REFUND.", "Refund"),
        ("refund .", "Refund"),
        ("Account \t Help", "account help"),
    ],
)
def test_case_white_space_and_a_full_stop_do_not_matter(text: str, label: str) -> None:
    assert TASK.parse(text) == label
    assert rejection(TASK, text) is None


@pytest.mark.parametrize("text", ["", "deliver", "Delivery or Refund", "it is a refund"])
def test_any_other_text_is_rejected_with_the_text(text: str) -> None:
    with pytest.raises(AnswerError, match="not a label"):
        TASK.parse(text)
    assert rejection(TASK, text) == f"not a label: {text!r}"


def test_a_long_answer_is_shortened_in_the_reason() -> None:
    assert rejection(TASK, "x" * 500) == f"not a label: '{'x' * 57}...'"


def test_an_answer_is_correct_where_it_names_the_references_label() -> None:
    assert TASK.correct("refund.", "Refund")
    assert not TASK.correct("Delivery", "Refund")
    assert not TASK.correct("nonsense", "Refund")


def test_scores_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, f1_score

    references = ["Delivery", "Refund", "Refund", "Delivery", "Delivery", "Refund"]
    answers = ["delivery", "Refund", "Delivery", "nonsense", "account help", "refund."]
    named = ["Delivery", "Refund", "Delivery", "none", "account help", "Refund"]
    assert TASK.score(answers, references) == {
        "accuracy": pytest.approx(accuracy_score(references, named)),
        "macro_f1": pytest.approx(f1_score(references, named, average="macro", labels=["Delivery", "Refund"])),
        "valid_share": pytest.approx(5 / 6),
    }
    assert TASK.primary_measure == "accuracy"


def test_labels_come_from_the_data_where_the_recipe_names_none() -> None:
    answers = ["refund", "Refund", " delivery  it ", "refund"]
    assert Classification.complete({}, answers) == {"labels": ["delivery it", "refund"]}
    assert Classification.complete({"labels": ["a", "b"]}, answers) == {"labels": ["a", "b"]}


def test_mistakes_in_the_options_are_named() -> None:
    with pytest.raises(UsageError, match=r"unknown task type 'classifikation'\n.*did you mean 'classification'"):
        open_task("classifikation", {})
    with pytest.raises(ConfigError, match="label: unknown key; did you mean 'labels'"):
        open_task("classification", {"label": ["a", "b"]})
    with pytest.raises(ConfigError, match=r"labels: .*at least 2"):
        open_task("classification", {"labels": ["a"]})
    with pytest.raises(ConfigError, match="'Refund' and 'refund' are one label"):
        open_task("classification", {"labels": ["Refund", "refund"]})
