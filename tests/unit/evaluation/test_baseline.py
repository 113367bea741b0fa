"""The baseline without a language model learns what words give away."""

from __future__ import annotations

import random

import pytest

from slmops.data.rows import Row
from slmops.evaluation.baseline import TfidfBaseline
from slmops.runtimes.base import Sampling

SUBJECTS = {"delivery": ["parcel", "courier", "tracking"], "refund": ["money", "refunded", "bank"]}


def rows(count: int, seed: int) -> list[Row]:
    rng = random.Random(seed)
    labels = [rng.choice(list(SUBJECTS)) for _ in range(count)]
    return [Row.of(f"please look at my {rng.choice(SUBJECTS[label])} no. {rng.randrange(999)}", label) for label in labels]


@pytest.fixture(scope="module")
def baseline() -> TfidfBaseline:
    return TfidfBaseline.fit(rows(60, seed=1))


def test_it_answers_questions_it_has_not_seen(baseline: TfidfBaseline) -> None:
    test = rows(50, seed=2)
    answers = [generation.text for generation in baseline.generate([row.question for row in test], Sampling())]
    assert sum(answer == row.answer for answer, row in zip(answers, test, strict=True)) >= 49


def test_it_looks_like_a_runtime(baseline: TfidfBaseline) -> None:
    (generation,) = baseline.generate(["where is the courier"], Sampling())
    assert (generation.text, generation.finish_reason, generation.prompt_tokens) == ("delivery", "stop", 20)
    assert list(baseline.stream("where is the courier", Sampling())) == ["delivery", generation]
    assert len(baseline.tokenize("where")) == 5
    assert baseline.info.name == "scikit-learn"


def test_its_parameters_are_the_classifiers_weights(baseline: TfidfBaseline) -> None:
    features = baseline.vectorizer.transform(["x"]).shape[1]
    assert baseline.parameters == features + 1  # two labels: one weight a feature and an intercept


def test_a_label_that_occurs_once_is_no_obstacle() -> None:
    few = TfidfBaseline.fit([Row.of("where is my parcel", "delivery"), Row.of("my money back", "refund")])
    assert few.generate(["parcel"], Sampling())[0].text == "delivery"
