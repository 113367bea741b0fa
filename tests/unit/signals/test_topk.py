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
