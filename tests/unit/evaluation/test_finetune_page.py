"""The page of a fine-tuning: one file, offline, escaped, with what became of it on top; and its lines for a terminal."""

from __future__ import annotations

import re
from typing import Any

import pytest

from slmops.evaluation.finetune_page import compared, render_html, score_sentence, terminal_lines
from tests.unit.evaluation.html_page import Page

CURVE = [
    {"step": 10, "loss": 3.0, "validation": 2.0},
    {"step": 20, "loss": 1.0, "validation": 1.2},
    {"step": 30, "loss": 0.5, "validation": 1.4},
    {"step": 40, "loss": 0.1, "validation": 1.9},
]
OVERFITTING = {
    "kind": "overfitting",
    "sentence": "the validation loss was lowest after update 20 (1.200) and is 1.900 after 40",
    "advice": "keep the best weights",
    "since": 20,
}
GOOD = {"kind": "good", "sentence": "the validation loss fell", "advice": "", "since": None}
SCORES: dict[str, Any] = {
    "measure": "accuracy",
    "confidence": 0.95,
    "rows": 40,
    "of": 169,
    "before": {"value": 0.1, "interval": [0.04, 0.23]},
    "after": {"value": 0.9, "interval": [0.77, 0.96]},
    "constant": {"answer": "joy", "value": 0.25, "interval": [0.14, 0.4]},
    "difference": {"value": 0.8, "interval": [0.6, 0.9], "word": "better"},
    "against_constant": {"value": 0.65, "interval": [0.5, 0.8], "word": "better"},
    "examples": [
        {"question": "I'm <b>thrilled</b>", "reference": "joy", "before": "", "after": "fear", "was_right": False, "right": False},
        {"question": "Boo", "reference": "fear", "before": "joy", "after": "fear", "was_right": False, "right": True},
    ],
}


def facts(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "base": "smollm2-135m-instruct",
        "method": "lora",
        "parameters": 134_515_008,
        "rows": 956,
        "steps": 40,
        "planned": 40,
        "kept": 20,
        "answer_tokens": 12_000,
        "seconds": 95.0,
        "too_long": 3,
        "curve": CURVE,
        "rates": [1.2e-3, 8e-4, 3e-4, 0.0],
        "estimate": {
            "seconds": 80.0,
            "peak_mb": 2500.0,
            "available_mb": 9000.0,
            "updates": 40,
            "tokens": 30_000,
            "dry_run_seconds": 4.0,
        },
        "peak_mb": 2600.0,
        "settings": [
            {"name": "learning_rate", "value": 1.3e-3, "origin": "default", "reason": "ten times that of all weights"},
            {"name": "warmup_share", "value": 0.1, "origin": "default", "reason": "a tenth"},
            {"name": "batch_size", "value": 16, "origin": "yours", "reason": ""},
        ],
        "scores": SCORES,
        "diagnosis": OVERFITTING,
    }
    return {**values, **changes}


BARE = facts(
    curve=[{"step": 1, "loss": 2.0, "validation": None}],
    rates=[],
    scores=None,
    estimate=None,
    kept=None,
    diagnosis={"kind": "unknown", "sentence": "there are too few points", "advice": "make more updates", "since": None},
)


@pytest.mark.parametrize("values", [facts(), facts(diagnosis=GOOD), BARE], ids=["overfitting", "good", "bare"])
def test_the_page_is_whole_and_asks_for_nothing_outside(values: dict[str, Any]) -> None:
    html = render_html("tone", values)
    page = Page(html)
    assert html.lstrip().startswith("<!doctype html>")
    assert "script" not in page.tags
    assert [value for name, value in page.attributes if name in ("src", "href") and not value.startswith(("#", "data:"))] == []
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", html)
    anchors = {value for name, value in page.attributes if name == "href" and value.startswith("#")}
    ids = [value for name, value in page.attributes if name == "id"]
    assert {anchor[1:] for anchor in anchors} <= set(ids)
    assert len(ids) == len(set(ids))
    assert values["diagnosis"]["sentence"] in page.text


def test_what_became_of_it_stands_on_top_with_what_to_try() -> None:
    text = Page(render_html("tone", facts())).text
    assert (
        text.index("overfitting")
        < text.index("lowest after update 20")
        < text.index("keep the best weights")
        < text.index("Figures")
    )
    assert "kept here, then overfitting" in text


def test_charts_have_titles_that_say_the_finding() -> None:
    html = render_html("tone", facts())
    assert "The validation loss fell from 2.000 to 1.200, after update 20" in html
    assert "The learning rate rises to 0.0013 in 4 updates, then falls" in html
    assert "Learning rate, 10⁻³" in html
    assert "Accuracy 0.100 [0.040, 0.230] → 0.900 [0.770, 0.960] on 40 of 169 validation rows: better" in html
    assert html.count("<svg") == 6
    assert "The validation loss did not fall" in render_html("x", facts(curve=[CURVE[1], CURVE[2]], rates=[1e-3, 0.0]))
    good = render_html("tone", facts(diagnosis=GOOD))
    assert "kept: update 20" in good
    assert "beyond" not in good.partition("<body>")[2]
    assert "beyond" in html.partition("<body>")[2]


def test_settings_estimate_and_answers_are_there_and_escaped() -> None:
    html = render_html("tone", facts())
    text = Page(html).text
    for cell in ("learning_rate", "0.0013", "ten times that of all weights", "1 min 20 s", "1 min 35 s", "2.50 GB", "2.60 GB"):
        assert cell in text
    assert "I&#39;m &lt;b&gt;thrilled&lt;/b&gt;" in html
    assert "<b>thrilled" not in html
    assert "<img" not in render_html("<img src=x>", facts())


def test_of_a_training_that_stopped_early_the_estimate_is_for_its_updates() -> None:
    assert compared(facts(steps=20))[0] == ("time", "40 s", "1 min 35 s", "for 20 of 40 updates")
    assert compared(facts(resumed=True))[0][3] == "the training was resumed: of its last part alone"
    assert compared(facts(estimate=None)) == []


def test_the_terminal_has_the_same_in_a_few_lines() -> None:
    lines = terminal_lines(facts())
    assert lines[0] == "loss      training   █▃▂▁ 3.000 → 0.100"
    assert lines[1] == "          validation █▁▃▇ 2.000 → 1.900"
    assert lines[2] == "kept      update 20, validation loss 1.200 nats a token"
    assert lines[3] == f"score     {score_sentence(SCORES)}"
    assert lines[4] == "estimate  time 1 min 20 s, was 1 min 35 s; memory 2.50 GB, was 2.60 GB"
    assert terminal_lines(BARE) == []


def test_a_score_that_rows_do_not_tell_apart_is_said_to_be() -> None:
    unsure = {**SCORES, "of": 40, "difference": {**SCORES["difference"], "word": "INCONCLUSIVE"}}
    assert score_sentence(unsure).endswith("on 40 validation rows: too few rows to tell apart")
    unknown = {**SCORES, "before": {"value": None, "interval": None}}
    assert score_sentence(unknown).startswith("accuracy – → 0.900")
