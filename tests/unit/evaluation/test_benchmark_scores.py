"""What the harness says becomes scores with intervals and paired differences; needs no harness."""

from __future__ import annotations

from typing import Any

import pytest

from slmops.evaluation.benchmarks.scores import Score, leads, scores_of, table
from slmops.evaluation.stats import wilson


def scored(model: str, metrics: list[float | None], value: float | None = None, **more: Any) -> Score:
    """The one score of a task whose rows have these values."""
    known = [one for one in metrics if one is not None]
    asked = [{"row": i, "row_hash": f"h{i}", "filter": "none", "metrics": {"acc": one}} for i, one in enumerate(metrics)]
    mean = sum(known) / len(known) if known else 0.0
    result = {
        "values": {"alias": "t", "acc,none": mean if value is None else value, "acc_stderr,none": 0.1, "sample_len": len(metrics)},
        "higher_is_better": {"acc": True},
        "rows": len(metrics),
        "of": 1319,
        "cut": False,
        **more,
    }
    (score,) = scores_of(
        result, asked, 0.95, model=model, engine="hf", task="t", shots=5, task_version="3.0", samples=f"{model}.jsonl"
    )
    return score


def test_a_mean_of_right_and_wrong_rows_has_wilsons_interval() -> None:
    score = scored("a", [1.0, 0.0, 1.0, 1.0])
    assert (score.value, score.stderr, score.rows, score.of) == (0.75, 0.1, 4, 1319)
    assert score.interval == wilson(3, 4, 0.95)


def test_a_metric_of_the_whole_set_has_the_interval_of_its_standard_error_and_no_differences() -> None:
    corpus = scored("a", [None, None], value=0.5)
    assert corpus.interval == pytest.approx((0.5 - 0.196, 0.5 + 0.196), abs=1e-3)
    assert corpus.by_row is None
    assert leads([corpus, scored("b", [None, None], value=0.7)], 0.95) == []
    assert scored("a", [1.0, 0.0], value=0.9).by_row is None, "a value that is not the mean of its rows"


def test_the_difference_is_of_the_same_rows_and_its_word_knows_the_direction() -> None:
    a, b = [1.0] * 20 + [0.0] * 20, [1.0] * 40
    (lead,) = leads([scored("a", a), scored("b", b)], 0.95)
    assert (lead.model, lead.against, lead.value, lead.word, lead.rows) == ("b", "a", 0.5, "better", 40)
    errors = [scored(name, rows, higher_is_better={"acc": False}) for name, rows in (("a", a), ("b", b))]
    assert leads(errors, 0.95)[0].word == "worse"
    assert leads([scored("a", a), scored("b", b[:-1])], 0.95) == [], "other questions are not compared"


def test_the_table_has_a_line_a_score_and_a_line_a_difference() -> None:
    from dataclasses import asdict

    scores = [scored("a", [1.0, 0.0] * 10), scored("b", [1.0, 1.0] * 10)]
    report = {
        "confidence": 0.95,
        "harness": {"version": "0.4.13"},
        "settings": {"seed": 1234},
        "scores": [score.as_dict() for score in scores],
        "differences": [asdict(lead) for lead in leads(scores, 0.95)],
    }
    lines = table(report).splitlines()
    assert lines[1].split()[:5] == ["t", "acc", "a", "0.5000", "0.1000"]
    assert "20 of 1,319" in lines[1]
    assert any("+0.5000" in line and line.endswith("better") for line in lines)
    assert lines[-1] == "lm-eval 0.4.13, seed 1234"
    report["scores"][0]["cut"] = True
    assert "* Prompts that do not fit" in table(report)
