"""The rule of a probe on made scores: each verdict, what is extrapolated, and how many rows would settle what is open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from slmops.evaluation.probe import LEAST_ROWS, Evidence, Finding, decide, extrapolate, rows_to_settle

ROWS = 200


def right(count: int, *, first: int = 0) -> list[float]:
    """So many percent of the test rows are answered right, from one on."""
    return [float((row - 2 * first) % ROWS < 2 * count) for row in range(ROWS)]


def found(evidence: Evidence, margin: float = 0.03) -> Finding:
    return decide(evidence, confidence=0.95, margin=margin)


LEADS = Evidence(
    teacher=right(90),
    fine_tuned={25: right(60), 50: right(66), 100: right(70)},
    rivals={"tfidf": right(65), "untuned": right(5)},
    labelled=100,
    tuned=True,
    unlabelled=500,
)
"""A teacher that knows more than everything that is cheaper."""


def test_yes_where_the_teacher_leads_over_everything_cheaper() -> None:
    finding = found(LEADS)
    assert (finding.word, finding.more_rows) == ("yes", None)
    assert finding.leads["fine-tuned"].value == pytest.approx(0.2)
    assert set(finding.leads) == {"fine-tuned", "tfidf", "untuned"}


@pytest.mark.parametrize(
    ("rival", "named"),
    [
        ({"fine_tuned": {100: right(90)}}, "the fine-tuned student"),
        ({"rivals": {"tfidf": right(95), "untuned": right(5)}}, "TF-IDF"),
        ({"rivals": {"untuned": right(90)}}, "the untuned student"),
    ],
)
def test_no_where_something_cheaper_reaches_the_teacher(rival: dict[str, object], named: str) -> None:
    finding = found(replace(LEADS, **rival))
    assert finding.word == "no"
    assert named in finding.why


def test_a_lead_below_the_margin_is_no_and_above_a_smaller_margin_yes() -> None:
    close = replace(LEADS, rivals={}, fine_tuned={100: right(84)})
    assert found(close, margin=0.15).word == "no"
    assert found(close, margin=0.03).word == "yes"


def test_open_where_the_interval_spans_zero_with_the_rows_that_would_settle_it() -> None:
    finding = found(replace(LEADS, teacher=right(75), rivals={}, fine_tuned={100: right(70, first=30)}))
    assert finding.word == "INCONCLUSIVE"
    assert finding.more_rows is not None
    assert finding.more_rows > ROWS // 2


def test_one_open_rival_keeps_it_open() -> None:
    finding = found(replace(LEADS, rivals={"tfidf": right(85, first=12)}))
    assert finding.word == "INCONCLUSIVE"
    assert "TF-IDF" in finding.why
    assert "fine-tuned" not in finding.why


def test_few_test_rows_say_nothing() -> None:
    few = LEAST_ROWS - 5
    finding = decide(Evidence(teacher=[1.0] * few, fine_tuned={9: [0.0] * few}), confidence=0.95, margin=0.03)
    assert (finding.word, finding.more_rows) == ("INCONCLUSIVE", 5)


def test_a_teacher_without_rows_to_answer_is_no_unless_it_can_make_some() -> None:
    nothing = replace(LEADS, unlabelled=0, makes_rows=False)
    assert found(nothing).word == "no"
    assert "collect unlabelled rows" in found(nothing).why
    finding = found(replace(nothing, makes_rows=True))
    assert finding.word == "yes"
    assert "slmops augment" in finding.why


def test_a_trial_that_beats_everything_cheaper_is_yes_though_the_teacher_does_not_lead() -> None:
    reached = replace(LEADS, teacher=right(70))
    assert found(reached).word == "no"
    assert found(replace(reached, distilled=right(85))).word == "yes"
    assert found(replace(reached, distilled=right(70))).word == "no"
    open_yet = found(replace(reached, distilled=right(72)))
    assert (open_yet.word, open_yet.why) == (
        "INCONCLUSIVE",
        "the intervals do not say whether the trial's student beats the fine-tuned student",
    )


def test_an_untuned_teacher_must_lead_over_what_all_labelled_rows_would_give() -> None:
    api = replace(LEADS, rivals={}, teacher=right(80), fine_tuned={25: right(50), 50: right(60), 100: right(70)})
    assert found(replace(api, tuned=True, labelled=200)).word == "yes"
    finding = found(replace(api, tuned=False, labelled=200))
    assert finding.leads["fine-tuned"].value == pytest.approx(0.0)
    assert finding.word != "yes"


def test_a_curve_goes_on_in_the_logarithm_of_the_rows_and_never_down() -> None:
    curve = {25: right(50), 50: right(60), 100: right(70)}
    assert extrapolate(curve, 400).mean() == pytest.approx(0.9)
    assert extrapolate(curve, 100).tolist() == right(70)
    assert extrapolate({50: right(70), 100: right(60)}, 400).mean() == pytest.approx(0.6)
    assert extrapolate({100: right(60)}, 400).mean() == pytest.approx(0.6)


def test_rows_to_settle_are_enough_eight_times_in_ten() -> None:
    random = np.random.default_rng(0)
    teacher = np.repeat([1.0, 0.0, 1.0, 0.0], [20, 12, 40, 28])
    student = np.repeat([0.0, 1.0, 1.0, 0.0], [20, 12, 40, 28])
    total = len(teacher) + rows_to_settle(teacher, student, 0.03, 0.95)
    each = random.choice(teacher - student, size=(2000, total))
    shown = each.mean(axis=1) - 1.96 * each.std(axis=1) / total**0.5 > 0
    assert shown.mean() == pytest.approx(0.8, abs=0.04)
