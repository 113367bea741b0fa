"""Perplexity against the model's own float64 probabilities, whole and in windows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ConfigError, DataError
from slmops.evaluation.perplexity import reference_losses, text_losses, windows
from slmops.evaluation.quality import Outputs, fitting, tally
from slmops.tasks.base import open_task

TEXTS = [
    "where is my parcel",
    "Zürich costs 12,50 € 😀",
    "",
    "please refund the money for the shoes I sent back last week, the discount code does not work " * 4,
]


@pytest.fixture(scope="module")
def exact(tiny_model: Path) -> Any:
    from slmops.models.load import load_model

    return load_model(tiny_model).double()


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    from slmops.models.load import load_model

    return load_model(tiny_model)


def nats(exact: Any, ids: list[int], first: int) -> list[float]:
    """The loss of each token from ``first`` on, directly."""
    import torch

    with torch.no_grad():
        logs = exact(torch.tensor([ids])).logits.log_softmax(-1)[0]
    return [-float(logs[place - 1, ids[place]]) for place in range(first, len(ids))]


def with_start(template: Template, text: str) -> list[int]:
    ids: list[int] = template.tokenizer(text, add_special_tokens=False)["input_ids"]
    return [int(template.tokenizer.bos_token_id), *ids]


def test_a_text_that_fits_has_the_loss_of_all_its_tokens(model: Any, exact: Any, template: Template) -> None:
    for text in TEXTS:
        [(loss, tokens, size)] = text_losses(model, template.tokenizer, text, context=256) or [(0.0, 0, 0)]
        ids = with_start(template, text)
        assert (tokens, size) == (len(ids) - 1, len(text.encode()))
        assert loss == pytest.approx(sum(nats(exact, ids, 1)), rel=1e-5)


def test_perplexity_is_of_all_tokens_and_bits_are_of_all_bytes(model: Any, exact: Any, template: Template) -> None:
    losses = [(text_losses(model, template.tokenizer, text, context=256) or [(0.0, 0, 0)])[0] for text in TEXTS]
    rows = [Row.of(f"{number}", text or "-") for number, text in enumerate(TEXTS)]
    made = Outputs(open_task("generation", {}), rows, TEXTS, losses=losses)
    each = [loss for text in TEXTS for loss in nats(exact, with_start(template, text), 1)]
    size = sum(len(text.encode()) for text in TEXTS)
    assert tally("ppl", made).value == pytest.approx(math.exp(sum(each) / len(each)), rel=1e-5)
    assert tally("bits_per_byte", made).value == pytest.approx(sum(each) / math.log(2) / size, rel=1e-5)
    assert tally("byte_perplexity", made).value == pytest.approx(2 ** tally("bits_per_byte", made).value)
    assert {"perplexity", "byte_perplexity", "bits_per_byte"} <= set(fitting(made))


def test_windows_count_each_token_once_behind_what_the_stride_leaves_before_it(model: Any, exact: Any, template: Template) -> None:
    """As the guide of Hugging Face has it: a window overlaps the one before, and only its new tokens count."""
    context, stride = 32, 8
    ids = with_start(template, TEXTS[3])[: 32 + 5 * 8]
    expected, before = 0.0, 1
    for begin in range(0, len(ids), stride):
        end = min(begin + context, len(ids))
        expected += sum(nats(exact, ids[begin:end], before - begin))
        before = end
        if end == len(ids):
            break
    text = template.tokenizer.decode(ids[1:])
    losses, tokens, sizes = zip(*text_losses(model, template.tokenizer, text, context=context, stride=stride), strict=True)
    assert (sum(tokens), sum(sizes)) == (len(ids) - 1, len(text.encode()))
    assert sum(losses) == pytest.approx(expected, rel=1e-5)
    coarse = text_losses(model, template.tokenizer, text, context=context, stride=context - 1)
    assert sum(loss for loss, _, _ in coarse) != pytest.approx(expected, rel=1e-5)


def test_characters_of_several_tokens_have_their_bytes_once(model: Any, template: Template) -> None:
    text = "😀é" * 40
    found = text_losses(model, template.tokenizer, text, context=8, stride=3)
    assert sum(size for _, _, size in found) == len(text.encode())
    few = text_losses(model, template.tokenizer, "plain text " * 9, context=8, stride=3, most_tokens=10)
    assert sum(tokens for _, tokens, _ in few) == 10


@pytest.mark.parametrize(("before", "length", "context", "stride"), [(1, 50, 8, 3), (20, 7, 8, 7), (5, 30, 8, 1), (3, 2, 8, 4)])
def test_every_counted_token_is_labelled_in_one_window_and_sees_enough(before: int, length: int, context: int, stride: int) -> None:
    ids = list(range(before + length))
    found = windows(ids[:before], ids[before:], context, stride)
    assert [token for window in found for token in window.answer_ids] == ids[before:]
    for window in found:
        assert len(window.input_ids) <= context
        first = window.answer_ids[0]
        assert window.prompt_length >= min(first, context - stride)


def test_of_an_answer_only_its_own_tokens_count(model: Any, exact: Any, template: Template) -> None:
    rows = [Row.of("where is my parcel", "delivery é"), Row.of("my money back please " * 40, "refund")]
    found = reference_losses(model, template, rows, context=64)
    for row, (loss, tokens, size) in zip(rows, found, strict=True):
        one = template.encode(row)
        whole = list(one.input_ids[:-1])[-64:]
        assert (tokens, size) == (len(one.answer_ids) - 1, len(str(row.answer).encode()))
        assert loss == pytest.approx(sum(nats(exact, whole, len(whole) - tokens)), rel=1e-5)


def test_a_stride_that_skips_tokens_and_a_row_without_an_answer_are_refused(model: Any, template: Template) -> None:
    with pytest.raises(ConfigError, match="1 to 31"):
        text_losses(model, template.tokenizer, "a", context=32, stride=32)
    with pytest.raises(DataError, match="no answer"):
        reference_losses(model, template, [Row.of("a")], context=32)
