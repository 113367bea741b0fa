"""Measures of answers have the task's own values and those of reference implementations, for any choice of rows."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slmops.data.rows import Row
from slmops.data.tagged import fields_of, sentences
from slmops.errors import ConfigError, DataError, MissingExtraError, UsageError
from slmops.evaluation.classes import INVALID, class_scores, confusion
from slmops.evaluation.measures import MEASURES
from slmops.evaluation.quality import QUALITY, Outputs, fitting, tallies, tally
from slmops.evaluation.validity import assertion_tallies
from slmops.files import read_jsonl
from slmops.tasks.base import Task, open_task

LABELS = ("cold", "hot", "mild", "windy")
TEXTS = ("The cat sat on the mat today.", "It rains, and it pours!", "No.", "Ünïcode ist schön", "one two three four five six")


def outputs(task: Task, answers: Sequence[str], references: Sequence[str], **known: Any) -> Outputs:
    rows = [Row.of(f"question {number}", reference) for number, reference in enumerate(references)]
    return Outputs(task, rows, answers, **known)


def noisy(texts: Sequence[str], seed: int = 0) -> list[str]:
    """The texts with words lost, doubled and swapped; now and then nothing is left."""
    rng, found = random.Random(seed), []
    for text in texts:
        words = [word for word in text.split() for _ in range(rng.choice((0, 1, 1, 1, 2)))]
        if words and rng.random() < 0.5:
            words.insert(rng.randrange(len(words)), words.pop())
        found.append(" ".join(words) if rng.random() > 0.05 else "")
    return found


def labelled(seed: int = 0, rows: int = 60) -> Outputs:
    """Answers of which some are wrong, some are no label, and ``windy`` is never right, though it is answered."""
    rng = random.Random(seed)
    expected = [rng.choice(LABELS[:3]) for _ in range(rows)]
    answers = [rng.choice([label, label, *LABELS, "who knows"]) for label in expected]
    return outputs(open_task("classification", {"labels": LABELS}), answers, expected)


@pytest.mark.parametrize(
    ("name", "options", "references", "answers"),
    [
        ("classification", {"labels": ["a", "b"]}, ["a", "b", "b", "a"], ["A.", "a", "?", "a"]),
        ("nli", {}, ["neutral", "entailment"], ["It is neutral.", "contradiction"]),
        ("qa", {"kind": "multiple_choice"}, ["A", "B", "C"], ["(A) Rome", "C", ""]),
        ("qa", {"kind": "open"}, ["the red one", "Paris", "a b c"], ["Red one!", "London", "c b"]),
        ("extraction", {"fields": ["x", "y"]}, ['{"x": "1", "y": ["a", "b"]}', '{"x": "2"}'], ['{"x": 1, "y": "A"}', "no"]),
        ("extraction", {"fields": ["x"]}, ["{}", "{}"], ["{}", "{}"]),
        ("extraction", {"fields": ["x"]}, ["{}", "{}"], ["{}", "broken"]),
        ("math", {}, ["#### 12", "1,000"], ["it is 12", "999"]),
        ("summarization", {"max_words": 9}, list(TEXTS), [*TEXTS[1:], "far too many words " * 5]),
        ("translation", {}, list(TEXTS), noisy(TEXTS, 3)),
        ("translation", {"bleu_tokenizer": "char"}, list(TEXTS), noisy(TEXTS, 4)),
        ("conversation", {"assertions": [{"lacks": "mat"}]}, list(TEXTS[1:]), noisy(TEXTS[1:])),
        ("generation", {}, list(TEXTS), ["", *TEXTS[1:]]),
        ("generation", {"output": "python"}, ["x = 1", "y = 2"], ["x=1  # one", "y = "]),
    ],
)
def test_the_values_are_those_that_the_task_gives(
    name: str, options: dict[str, Any], references: list[str], answers: list[str]
) -> None:
    task = open_task(name, options)
    scores = task.score(answers, references)
    found = tallies(outputs(task, answers, references))
    assert {measure: found[measure].value for measure in scores} == pytest.approx(scores)
    assert list(found)[: len(scores)] == list(scores)
    assert set(found) <= set(MEASURES)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_shares_of_labels_are_those_of_scikit_learn(average: str) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    made = labelled()
    read = [answer or INVALID for answer in made.read]
    options = {"labels": LABELS if average == "micro" else sorted(set(made.expected)), "average": average, "zero_division": 0}
    for kind, function in zip(("precision", "recall", "f1"), ("precision_score", "recall_score", "f1_score"), strict=True):
        assert tally(f"{average}_{kind}", made).value == pytest.approx(getattr(metrics, function)(made.expected, read, **options))


def test_classes_and_confusion_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    made = labelled()
    read = [answer or INVALID for answer in made.read]
    table = metrics.classification_report(made.expected, read, output_dict=True, zero_division=0)
    for one in class_scores(made)[:3]:
        known = table[one.label]
        assert (one.precision, one.recall, one.f1) == pytest.approx((known["precision"], known["recall"], known["f1-score"]))
        assert one.rows == known["support"]
    matrix = confusion(made)
    assert matrix.answered == ("cold", "hot", "mild", "windy", INVALID)
    assert matrix.counts == tuple(map(tuple, metrics.confusion_matrix(made.expected, read, labels=matrix.answered)[:3].tolist()))


def test_a_label_that_no_reference_has_counts_for_no_average_and_has_no_recall() -> None:
    made = outputs(open_task("classification", {"labels": LABELS}), ["hot", "windy"], ["hot", "hot"])
    assert tally("macro_f1", made).value == pytest.approx(2 / 3)
    [_, windy] = class_scores(made)
    assert (windy.label, windy.precision, windy.rows) == ("windy", 0.0, 0)
    assert windy.recall != windy.recall  # NaN


def test_a_label_that_is_never_answered_has_no_precision() -> None:
    made = outputs(open_task("classification", {"labels": LABELS}), ["hot", "hot", "?"], ["hot", "cold", "cold"])
    assert tally("precision", made).value == pytest.approx(0.25)
    assert [(one.label, one.precision) for one in class_scores(made)] == [("cold", 0.0), ("hot", 0.5)]


def corpus(name: str, answers: Sequence[str], references: Sequence[str]) -> float:
    import sacrebleu

    if name == "bleu":
        return float(sacrebleu.corpus_bleu(list(answers), [list(references)], use_effective_order=True).score)
    return float(sacrebleu.corpus_chrf(list(answers), [list(references)]).score) / 100


@pytest.mark.parametrize("measure", ["bleu", "chrf"])
@pytest.mark.parametrize("seed", range(4))
def test_corpus_measures_are_those_of_sacrebleu_for_any_choice_of_rows(measure: str, seed: int) -> None:
    rng = random.Random(seed)
    references = [" ".join(rng.choice(TEXTS) for _ in range(rng.randrange(1, 4))) for _ in range(30)]
    answers = noisy(references, seed)
    found = tally(measure, outputs(open_task("translation", {}), answers, references))
    assert found.value == pytest.approx(corpus(measure, answers, references), abs=1e-9)
    chosen = [rng.randrange(30) for _ in range(30)]
    resampled = corpus(measure, [answers[place] for place in chosen], [references[place] for place in chosen])
    assert found.take(chosen).value == pytest.approx(resampled, abs=1e-9)
    sums = found.rows[[chosen, list(range(30))]].sum(axis=1)
    assert found.of(sums).tolist() == pytest.approx([resampled, found.value], abs=1e-9)


@pytest.mark.parametrize("measure", ["bleu", "chrf"])
@pytest.mark.parametrize(
    ("answer", "reference"),
    [("", "some words here"), ("no overlap", "zzz"), ("a", "a"), ("one two nine four", "one two three four"), ("a b", "b a c")],
)
def test_corpus_measures_of_very_short_texts_too(measure: str, answer: str, reference: str) -> None:
    found = tally(measure, outputs(open_task("translation", {}), [answer], [reference]))
    assert found.value == pytest.approx(corpus(measure, [answer], [reference]))


def test_texts_of_a_real_set_are_measured_as_the_references_do(shared_data: Path) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    rows = read_jsonl(shared_data / "summarization_scitldr" / "test.jsonl")[:60]
    references = [" ".join(row["target"][0].split()) for row in rows]
    answers = [" ".join(row["source"][0].split()) for row in rows]
    made = outputs(open_task("summarization", {}), answers, references)
    for measure in ("bleu", "chrf"):
        assert tally(measure, made).value == pytest.approx(corpus(measure, answers, references), abs=1e-9)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    known = [scorer.score(reference, answer) for reference, answer in zip(references, answers, strict=True)]
    for ours, theirs in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        found = tally(ours, made)
        assert 0 < found.value < 1
        assert found.scores is not None
        assert found.scores.tolist() == pytest.approx([score[theirs].fmeasure for score in known])


def damaged(tags: Sequence[str], rng: random.Random) -> list[str]:
    """Tags with whole entities lost, renamed or made up."""
    found = list(tags)
    starts = [place for place, tag in enumerate(tags) if tag.startswith("B-")]
    for start in starts:
        end = start + 1
        while end < len(tags) and tags[end].startswith("I-"):
            end += 1
        draw = rng.random()
        if draw < 0.2:
            found[start:end] = ["O"] * (end - start)
        elif draw < 0.4:
            found[start:end] = ["B-product", *["I-product"] * (end - start - 1)]
    if rng.random() < 0.2 and found[-1] == "O":
        found[-1] = "B-person"
    return found


BIO = [
    (["Ann", "Lee", "flew", "to", "New", "York", "."], ["B-person", "I-person", "O", "O", "B-location", "I-location", "O"]),
    (["Paris", "and", "Rome", "met", "Bo"], ["B-location", "O", "B-location", "O", "B-person"]),
    (["nothing", "here"], ["O", "O"]),
]


def entity_outputs(blocks: Sequence[tuple[list[str], list[str]]], seed: int) -> tuple[Outputs, list[list[str]], list[list[str]]]:
    rng = random.Random(seed)
    expected = [tags for _, tags in blocks]
    given = [damaged(tags, rng) for tags in expected]
    fields = sorted({tag[2:] for tags in (*expected, *given) for tag in tags if tag != "O"})
    task = open_task("extraction", {"fields": fields})
    answers, references = (
        [fields_of(words, tags) for (words, _), tags in zip(blocks, side, strict=True)] for side in (given, expected)
    )
    return outputs(task, answers, references), given, expected


@pytest.mark.parametrize("seed", range(5))
def test_entities_are_counted_as_seqeval_does(seed: int) -> None:
    metrics = pytest.importorskip("seqeval.metrics")
    made, given, expected = entity_outputs(BIO * 5, seed)
    assert 0 < tally("entity_f1", made).value < 1
    for kind in ("precision", "recall", "f1"):
        assert tally(f"entity_{kind}", made).value == pytest.approx(getattr(metrics, f"{kind}_score")(expected, given))


def test_entities_of_a_real_set_are_counted_as_seqeval_does(shared_data: Path) -> None:
    metrics = pytest.importorskip("seqeval.metrics")
    lines = (shared_data / "ner_wnut17" / "emerging.dev.conll").read_text(encoding="utf-8").splitlines()
    blocks = [(one.words, one.tags) for one in sentences(lines) if not one.problem][:400]
    made, given, expected = entity_outputs(blocks, 1)
    for kind in ("precision", "recall", "f1"):
        assert tally(f"entity_{kind}", made).value == pytest.approx(getattr(metrics, f"{kind}_score")(expected, given), abs=1e-9)


def test_any_choice_of_rows_has_the_value_that_the_task_gives_for_it() -> None:
    rng = random.Random(7)
    for made in (labelled(), entity_outputs(BIO * 5, 2)[0]):
        chosen = [rng.randrange(15) for _ in range(12)]
        some = [made.answers[place] for place in chosen], [made.references[place] for place in chosen]
        scores = made.task.score(*some)
        assert {name: tally(name, made).take(chosen).value for name in scores} == pytest.approx(scores)


def test_an_answer_counts_against_the_right_answer_that_it_is_nearest_to() -> None:
    rows = [replace(Row.of("translate", "the house is big"), others=("the building is large",))]
    made = Outputs(open_task("translation", {}), rows, ["the building is large"])
    assert [tally(name, made).value for name in ("bleu", "chrf", "exact_match")] == pytest.approx([100.0, 1.0, 1.0])


def test_agreement_takes_the_teachers_answers_for_right_and_an_invalid_one_agrees_with_none() -> None:
    task = open_task("classification", {"labels": LABELS})
    made = outputs(task, ["hot", "cold", "?", "hot"], ["hot"] * 4, teacher=["Hot.", "hot", "?", "?"])
    assert tally("agreement", made).value == 0.25
    assert "agreement" in fitting(made)


def test_numbers_are_compared_where_the_task_is_not_math() -> None:
    task = open_task("qa", {"kind": "open"})
    assert tally("numeric_match", outputs(task, ["12 km", "about 3"], ["12", "4"])).value == 0.5
    with pytest.raises(ConfigError, match="a number in every reference"):
        tally("numeric_match", outputs(task, ["12"], ["Paris"]))


@pytest.mark.parametrize(
    ("name", "options", "reference", "answers", "follow"),
    [
        ("extraction", {"fields": ["x"], "required": ["x"]}, '{"x": 1}', ['{"x": 1}', '```\n{"x": 1}```', "{}", "[]"], 0.25),
        ("classification", {"labels": ["hot", "cold"]}, "hot", ["hot", "Hot.", "cold ", "warm"], 0.5),
        ("math", {}, "3", ["so it is three. Answer: 3", "3 apples", "#### 4", "-1/2"], 0.75),
    ],
)
def test_the_schema_is_followed_by_answers_as_they_stand(
    name: str, options: dict[str, Any], reference: str, answers: list[str], follow: float
) -> None:
    made = outputs(open_task(name, options), answers, [reference] * len(answers))
    assert tally("schema_validity", made).value == follow
    assert tally("valid_share", made).value >= follow


def test_assertions_have_their_rates_one_by_one_and_together() -> None:
    task = open_task("summarization", {"max_words": 5, "assertions": [{"lacks": "damn"}, {"max_words": 3}]})
    made = outputs(task, ["fine", "damn fine", "four words are here", "six words are too many here", ""], ["fine"] * 5)
    assert tally("assertion_rate", made).value == pytest.approx(0.2)
    rates = {name: one.value for name, one in assertion_tallies(made).items()}
    assert rates == pytest.approx({"lacks='damn'": 0.4, "max_words=3": 0.4})
    assert "assertion_rate" in fitting(made)


def test_scores_that_are_found_elsewhere_count_where_they_are_known() -> None:
    task = open_task("generation", {})
    made = outputs(task, ["a", "b", "c"], ["a"] * 3, scores={"rubric_score": [5.0, float("nan"), 2.0], "win_rate": [1, 0.5, 0]})
    assert tally("rubric", made).value == pytest.approx(3.5)
    wins = tally("win_rate", made)
    assert (wins.value, wins.scores is not None) == (0.5, True)
    assert {"rubric_score", "win_rate"} <= set(fitting(made))


@pytest.mark.parametrize(
    ("measure", "says"),
    [
        ("win_rate", "ask a judge to compare"),
        ("similarity", "name a model"),
        ("agreement", "teacher's answers"),
        ("ece", "confidence of each answer"),
        ("ppl", "likelihood of the reference texts"),
        ("precision", "whose answers are labels"),
        ("entity_f1", "answers with fields"),
        ("pass_rate", "nothing is asserted"),
        ("size_mb", "no measure of answers"),
    ],
)
def test_what_is_missing_is_said(measure: str, says: str) -> None:
    made = outputs(open_task("generation", {}), ["a"], ["a"])
    with pytest.raises(ConfigError, match=says):
        tally(measure, made)


def test_unknown_measures_and_outputs_that_do_not_fit_together_are_refused() -> None:
    task = open_task("generation", {})
    with pytest.raises(UsageError, match="did you mean 'token_f1'"):
        tally("token_f2", outputs(task, ["a"], ["a"]))
    with pytest.raises(DataError, match="2 answers for 1 test rows"):
        outputs(task, ["a", "b"], ["a"])
    with pytest.raises(DataError, match="no test rows"):
        outputs(task, [], [])
    with pytest.raises(DataError, match="no answer to compare with"):
        tally("token_f1", Outputs(task, [Row.of("what?")], ["a"]))


def test_every_measure_of_answers_stands_in_the_table() -> None:
    assert set(QUALITY) <= set(MEASURES)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(MissingExtraError, match=r"slmops\[evaluate\]"):
        tally("bleu", outputs(open_task("generation", {}), ["a"], ["a"]))
