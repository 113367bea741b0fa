"""A teacher's distribution reduced to its top k and one tail mass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slmops.signals.topk import LOG_ZERO, TopK

LOGITS = 3.0 * torch.randn(50, 200, generator=torch.Generator().manual_seed(0))


def test_the_most_likely_tokens_are_kept_in_order() -> None:
    signal = TopK.from_logits(torch.tensor([[1.0, 3.0, 0.0, 2.0]]), 2)
    assert signal.ids.tolist() == [[1, 3]]
    probabilities = np.exp([1.0, 3.0, 0.0, 2.0]) / np.exp([1.0, 3.0, 0.0, 2.0]).sum()
    assert np.exp(signal.logprobs.astype(float))[0] == pytest.approx(probabilities[[1, 3]], rel=1e-3)
    assert np.exp(signal.tail[0]) == pytest.approx(probabilities[[0, 2]].sum(), rel=1e-2)
    assert (signal.ids.dtype, signal.logprobs.dtype, signal.tail.dtype) == (np.uint16, np.float16, np.float32)


@pytest.mark.parametrize("k", [1, 8, 32, 199])
def test_the_rounded_top_k_and_the_tail_add_up_to_one(k: int) -> None:
    signal = TopK.from_logits(LOGITS, k)
    top = np.exp(signal.logprobs.astype(np.float64)).sum(-1)
    assert top + np.exp(signal.tail.astype(np.float64)) == pytest.approx(1.0, abs=1e-6 if k < 199 else 1e-3)


@pytest.mark.parametrize("k", [200, 1000])
def test_the_whole_vocabulary_leaves_no_tail(k: int) -> None:
    signal = TopK.from_logits(LOGITS, k)
    assert signal.ids.shape == (50, 200)
    assert set(signal.tail.tolist()) == {LOG_ZERO}
    dense = torch.log_softmax(LOGITS, -1).gather(-1, torch.from_numpy(signal.ids.astype(np.int64)))
    assert signal.logprobs == pytest.approx(dense.numpy(), rel=1e-3, abs=1e-6)


def test_a_certain_teacher_gives_finite_numbers() -> None:
    """Its tail is empty, and forbidden tokens have logits of minus infinity."""
    certain, forbidden = torch.zeros(2, 10), torch.tensor([0.0, float("-inf")])
    certain[0, 3] = 1e4
    certain[1, 2:] = forbidden[1]
    for k in (1, 5, 10):
        signal = TopK.from_logits(certain, k)
        assert np.isfinite(signal.logprobs).all()
        assert np.isfinite(signal.tail).all()
    assert TopK.from_logits(certain, 1).tail[0] == LOG_ZERO


def test_bfloat16_logits_are_reduced_in_float32() -> None:
    rounded = LOGITS.to(torch.bfloat16)
    assert (TopK.from_logits(rounded, 8).logprobs == TopK.from_logits(rounded.float(), 8).logprobs).all()


def test_signals_are_cut_and_joined_along_the_positions() -> None:
    whole = TopK.from_logits(LOGITS, 4)
    again = TopK.concatenate([whole[0:7], whole[7:7], whole[7:50]])
    assert len(whole[0:7]) == 7
    for name in ("ids", "logprobs", "tail"):
        assert (getattr(again, name) == getattr(whole, name)).all()


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


def test_over_fewer_tokens_what_is_gone_is_in_the_tail() -> None:
    logits = torch.randn(5, 10, generator=torch.Generator().manual_seed(0)) * 2
    kept = [9, 2, 4, 7, 0, 1]
    new_ids = np.full(10, -1, np.int64)
    new_ids[kept] = np.arange(6)
    signal = TopK.from_logits(logits, 4).remapped(new_ids, 6)
    whole = softmax(logits.numpy())
    assert signal.ids.shape == (5, 4)
    for place in range(5):
        assert len(set(signal.ids[place])) == 4
        likeliest = np.argsort(-whole[place])[:4]
        known = {int(new_ids[token]): whole[place, token] for token in likeliest if new_ids[token] >= 0}
        found = dict(zip(signal.ids[place].tolist(), np.exp(signal.logprobs[place].astype(float)), strict=True))
        assert {token: found.pop(token) for token in known} == pytest.approx(known, rel=2e-3)
        assert not any(found.values())
        assert np.exp(signal.tail[place]) == pytest.approx(1 - sum(known.values()), abs=2e-3)


def test_where_all_tokens_that_are_left_are_known_it_is_the_distribution_given_these() -> None:
    logits = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    new_ids = np.array([-1, 2, -1, 0, 1, -1, -1, -1])
    signal = TopK.from_logits(logits, 8).remapped(new_ids, 3)
    given = softmax(logits.numpy()[:, [3, 4, 1]])
    assert np.exp(np.take_along_axis(signal.logprobs.astype(float), np.argsort(signal.ids, -1), -1)) == pytest.approx(
        given, rel=2e-3
    )
    assert (signal.tail == LOG_ZERO).all()


def test_renumbered_it_says_the_same() -> None:
    signal = TopK.from_logits(torch.randn(4, 6, generator=torch.Generator().manual_seed(2)), 3)
    turned = signal.remapped(np.array([5, 4, 3, 2, 1, 0]), 6)
    assert (turned.ids == 5 - signal.ids).all()
    assert (turned.logprobs == signal.logprobs).all()
    assert turned.tail == pytest.approx(signal.tail, rel=1e-5)
