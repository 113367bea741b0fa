"""What the tables of a report are made from."""

from __future__ import annotations

import pytest

from slmops.evaluation.parts import Difference
from slmops.evaluation.schema import Report, parse_report
from slmops.evaluation.tables import batch_sentences, class_table, leakage_sentence, margin_words, marked, worst_slices
from tests.unit.evaluation.sample_report import sample_report


@pytest.fixture
def report() -> Report:
    return parse_report(sample_report())


def test_words_in_which_texts_differ_are_marked_and_everything_is_escaped() -> None:
    a, b = marked("a red <b> car stops here", "a blue <b> car stops")
    assert str(a) == "a <mark>red</mark> &lt;b&gt; car stops<mark> here</mark>"
    assert str(b) == "a <mark>blue</mark> &lt;b&gt; car stops"


def test_texts_with_little_in_common_are_left_as_they_are() -> None:
    assert tuple(map(str, marked("lost parcel", "delivery date"))) == ("lost parcel", "delivery date")
    assert tuple(map(str, marked("", "something"))) == ("", "something")


def test_the_worst_slices_are_those_whose_interval_says_so_then_by_how_much(report: Report) -> None:
    assert [(item.value, item.word) for item in worst_slices(report)] == [
        ("exchange size", "worse"),
        ("over 120 characters", "worse"),
        ("chat", "INCONCLUSIVE"),
        ("under 40 characters", "INCONCLUSIVE"),
    ]


def test_of_a_measure_where_lower_is_better_the_highest_slice_is_the_worst() -> None:
    report = sample_report()
    report["measures"]["accuracy"]["better"] = "lower"
    assert [item.value for item in worst_slices(parse_report(report))] == ["mail"]


def test_the_labels_are_those_of_what_is_packaged(report: Report) -> None:
    table = class_table(report)
    assert table is not None
    assert (table.row, table.others) == ("packaged", ["teacher"])
    scores = [line.score.f1 for line in table.lines]
    assert scores == sorted(scores)
    assert len(scores) == 18


@pytest.mark.parametrize(
    ("interval", "better", "words"),
    [
        ((-0.02, 0.01), "higher", "not inferior: at most 0.030 worse"),
        ((-0.08, -0.04), "higher", "inferior: more than 0.030 worse"),
        ((-0.05, 0.01), "higher", "INCONCLUSIVE whether at most 0.030 worse"),
        ((0.04, 0.08), "lower", "inferior: more than 0.030 worse"),
        ((0.04, 0.08), "higher", "not inferior: at most 0.030 worse"),
    ],
)
def test_a_margin_is_held_by_the_bound_of_the_interval(interval: tuple[float, float], better: str, words: str) -> None:
    told = {"a": "a", "b": "b", "measure": "accuracy", "difference": 0, "word": "better", "method": "", "margin": 0.03}
    report = sample_report()
    report["measures"]["accuracy"]["better"] = better
    assert margin_words(parse_report(report), Difference.model_validate({**told, "interval": interval})) == words


def test_without_leaks_there_is_nothing_to_say(report: Report) -> None:
    assert leakage_sentence(report) is None
    leaked = sample_report() | {"leakage": {"rows": 1, "share": 0.0025, "against": "train.jsonl", "examples": []}}
    assert str(leakage_sentence(parse_report(leaked))).startswith("1 of 400 test rows (0.2 %) stands in train.jsonl, too.")


def test_every_engine_is_in_one_sentence_about_batching(report: Report) -> None:
    depends, same, unknown = batch_sentences(report)
    assert depends.startswith("Answers of torch depend")
    assert same.startswith("Answers of onnxruntime-genai do not depend")
    assert unknown == "Answers of scikit-learn were not tried in batches of other sizes (TF-IDF + logistic regression)."
