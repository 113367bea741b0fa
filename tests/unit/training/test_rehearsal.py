"""A training tried on a few rows: which rows, what they are trained on, how each term pulls, and what stops it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from slmops.data.rows import Row
from slmops.data.templates import IGNORED, Encoded, Template
from slmops.errors import FingerprintError, TrainingError
from slmops.models.load import load_model
from slmops.sections import TrainingSection
from slmops.signals.topk import TopK
from slmops.training.batches import collate
from slmops.training.findings import (
    Agreement,
    Cost,
    Findings,
    Pull,
    Selected,
    Tokens,
    check_agreement,
    check_pulls,
    check_selected,
    check_tokens,
)
from slmops.training.forward import answers_of
from slmops.training.objectives import CrossEntropy, ForwardKL, WeightedSum
from slmops.training.rehearsal import Beside, count_tokens, few, read_selected, spread, try_training

LABELS = ("delivery", "refund of the money", "account")
ROWS = [Row.of(f"question {number}" + " please" * number, LABELS[number % 3], f"rows.csv:{number}") for number in range(6)]
TOKENS = Tokens(rows=10, least=2, median=3, without=0, too_long=0, max_length=64, length=20.0)
AGREEMENT = Agreement(tokens=9, self_kl=1e-6, self_kl_most=1e-3, what="a probability", largest=1e-4, apart=1e-5, apart_most=0.02)
PULLS = (Pull("cross_entropy", 0.3, 2.0, False), Pull("forward_kl", 0.7, 0.5, True))
FINDINGS = Findings(
    TOKENS, Selected(4, "refund<end>", "rows.csv:1"), AGREEMENT, "", 1.5, PULLS, Cost(3, 100, 7300.0, 1234.0, 16000.0)
)


def row_of(tokens: int) -> Encoded:
    return Encoded(tuple(range(tokens)), (IGNORED,) * (tokens - 1) + (tokens - 1,))


def test_a_few_rows_are_spread_evenly() -> None:
    assert spread(3, 5) == [0, 1, 2]
    assert spread(10, 4) == [0, 2, 5, 7]


@pytest.mark.parametrize(
    ("lengths", "most", "chosen"),
    [
        ([10, 10, 10, 10], 2, [0, 2]),
        ([10, 10, 10, 10], 9, [0, 1, 2, 3]),
        ([30, 90, 30, 30], 4, [0, 2, 3]),  # with the second one, padding would fill the budget of 100 tokens
        ([400, 200, 300], 3, [1]),
    ],
)
def test_a_few_rows_are_few_tokens(lengths: list[int], most: int, chosen: list[int]) -> None:
    assert few([row_of(tokens) for tokens in lengths], most, tokens=100) == chosen


def test_trained_tokens_are_counted_as_the_rows_say(template: Template) -> None:
    long = Row.of("please " * 60, "delivery")
    found, kept, encoded = count_tokens([*ROWS, long, Row.of("unlabelled")], template, max_length=60)
    sizes = sorted(len(template.encode(row).answer_ids) for row in ROWS)
    assert (found.rows, found.without, found.too_long, found.left) == (8, 1, 1, 6)
    assert (found.least, found.median) == (sizes[0], (sizes[2] + sizes[3]) / 2)
    assert kept == ROWS
    assert found.length == sum(len(row.input_ids) for row in encoded) / 6


def test_the_trained_text_is_the_answer_and_the_end_token(template: Template) -> None:
    found = read_selected(ROWS, [template.encode(row) for row in ROWS], template)
    assert (found.rows, found.example, found.origin, found.wrong) == (6, "delivery<|im_end|>", "rows.csv:0", ())


@pytest.mark.parametrize("prompt", [-1, 1])
def test_a_mask_that_begins_elsewhere_is_noticed(template: Template, prompt: int) -> None:
    def moved(row: Encoded) -> Encoded:
        start = row.prompt_length + prompt
        return Encoded(row.input_ids, (IGNORED,) * start + row.input_ids[start:])

    good, bad = template.encode(ROWS[0]), moved(template.encode(ROWS[1]))
    found = read_selected(ROWS[:2], [good, bad], template)
    assert len(found.wrong) == 1
    assert found.wrong[0].startswith("rows.csv:1: ")
    with pytest.raises(TrainingError, match=r"the trained tokens of 1 of 2 rows are not the answer and its end: rows\.csv:1"):
        check_selected(found)


def test_an_answer_without_its_end_is_noticed(template: Template) -> None:
    encoded = template.encode(ROWS[0])
    assert read_selected(ROWS[:1], [Encoded(encoded.input_ids[:-1], encoded.labels[:-1])], template).wrong


def test_pulls_are_the_norms_of_the_weighted_gradients(tiny_model: Path, template: Template) -> None:
    encoded = [template.encode(row) for row in ROWS]
    generator = torch.Generator().manual_seed(0)
    signals = [TopK.from_logits(torch.randn(len(row.answer_ids), 384, generator=generator), 8) for row in encoded]
    specs: tuple[dict[str, Any], ...] = (
        {"name": "cross_entropy", "weight": 0.3},
        {"name": "forward_kl", "weight": {"from": 0, "to": 2}},
    )
    section = TrainingSection(objectives=specs, precision="float32", freeze_embeddings=True)
    tried = try_training(tiny_model, section, WeightedSum.of(specs), ROWS, encoded, signals, Beside(None, ()), 2)
    model = load_model(tiny_model, attention="eager")
    model.get_input_embeddings().weight.requires_grad_(False)
    for pull, weight, objective in zip(tried.pulls, (0.3, 2.0), (CrossEntropy(), ForwardKL()), strict=True):
        model.zero_grad()
        (weight * objective(answers_of(model, collate(encoded, 2, signals)))).mean().backward()
        expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
        assert pull.norm == pytest.approx(float(expected), rel=1e-4)
    assert tried.loss == pytest.approx(0.3 * CrossEntropy()(answers_of(model, collate(encoded, 2))).mean().item(), rel=1e-4)
    assert tried.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert tried.token_seconds > 0 < tried.update_seconds


def test_the_table_says_all_of_it() -> None:
    assert FINDINGS.table().splitlines() == [
        "pre-flight",
        "  teacher as student    KL 1e-06 nats a token over 9 tokens (rounding explains 0.001)",
        "  cached against live   a probability differs by at most 0.0001; 1e-05 of what is cached is off (rounding explains 0.02)",
        "  trained text          'refund<end>' (rows.csv:1); the answer in 4 of 4 rows",
        "  trained tokens a row  least 2, median 3; none in 0.0% of 10 rows, 0.0% set aside as longer than 64",
        "  loss                  1.5 before the first update",
        "  gradients             cross_entropy 2, forward_kl 0.5; signals to cross-entropy 0.25 : 1",
        "  time                  about 2 h 01 min for 3 trainings of 100 updates",
        "  memory                about 1.2 GB; 16.0 GB are available",
    ]


def test_a_term_that_hardly_pulls_is_hinted_at() -> None:
    weak = replace(FINDINGS, pulls=(PULLS[0], replace(PULLS[1], norm=0.01)))
    assert weak.hints == ("forward_kl pulls with 0.50% of the force of cross_entropy: raise its weight, or leave it out",)
    assert FINDINGS.hints == ()


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        (replace(TOKENS, without=10), "no row has an answer token to train on"),
        (replace(TOKENS, without=4, too_long=6), "none of 10 rows fits into max_length 64"),
    ],
)
def test_a_run_that_would_train_on_nothing_stops(tokens: Tokens, problem: str) -> None:
    with pytest.raises(TrainingError, match=problem):
        check_tokens(tokens)
    check_tokens(TOKENS)


@pytest.mark.parametrize(
    ("loss", "norms", "problem"),
    [
        (float("nan"), (1.0, 1.0), "the loss is nan before the first update"),
        (float("inf"), (1.0, 1.0), "the loss is inf"),
        (1.0, (1.0, float("nan")), "the gradient of forward_kl is not finite"),
        (1.0, (0.0, 0.0), "all gradients are zero"),
    ],
)
def test_a_loss_that_changes_nothing_stops(loss: float, norms: tuple[float, float], problem: str) -> None:
    pulls = [replace(pull, norm=norm) for pull, norm in zip(PULLS, norms, strict=True)]
    with pytest.raises(TrainingError, match=problem):
        check_pulls(loss, pulls)
    check_pulls(0.0, [PULLS[0], replace(PULLS[1], norm=0.0)])


def test_signals_that_are_not_the_teachers_stop() -> None:
    check_agreement(AGREEMENT, "signals")
    with pytest.raises(
        FingerprintError, match=r"signals: the cached signals are not the teacher's: 30.0% of what is cached is off"
    ):
        check_agreement(replace(AGREEMENT, apart=0.3), "signals")
    for kl in (0.5, float("nan")):
        with pytest.raises(TrainingError, match="the teacher in the student's place is"):
            check_agreement(replace(AGREEMENT, self_kl=kl), "signals")
