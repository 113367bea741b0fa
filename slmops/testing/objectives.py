"""What every objective must keep, as one function for the tests of ours and of third parties."""

from __future__ import annotations

from dataclasses import replace

import torch

from slmops.errors import ConfigError
from slmops.signals.tensors import SampledTensors, TopKTensors, into_batch
from slmops.signals.topk import LOG_ZERO
from slmops.testing.batches import check_in_batches
from slmops.testing.layers import check_layer_loss
from slmops.testing.pairs import check_own_pairs, check_pairs
from slmops.training.objectives.base import Answers, Objective
from slmops.training.objectives.contrastive import Contrastive
from slmops.training.objectives.matching import Matching
from slmops.training.objectives.modules import OwnPairLoss, OwnTokenLoss

POSITIONS, VOCABULARY = 6, 11


def check_objective(objective: Objective) -> None:
    """Raise ``AssertionError`` with the promise that an objective breaks.

    The promises: one finite float32 loss a position, with finite gradients, also far from the teacher; a position's loss
    depends on nothing but that position; inputs are left alone; without a signal, an objective that needs one raises
    ``ConfigError`` and any other does not care; where it needs one, it is zero, with a gradient of zero, where student and
    teacher agree, and that is the best a student can do; where it does not, a likelier label costs less; in a batch it is
    about the answers' tokens, each predicted by the one before it, however the batch is padded, split or projected. One with
    ``takes_samples`` is zero, too, where the samples have exactly the student's probabilities.

    What a loss on layers promises stands at :func:`slmops.testing.layers.check_layer_loss`, what one on pairs of texts does at
    :func:`slmops.testing.pairs.check_pairs`, and a user's on pairs of rows at :func:`slmops.testing.pairs.check_own_pairs`.
    """
    if isinstance(objective, OwnPairLoss):
        check_own_pairs(objective)
        return
    if isinstance(objective, OwnTokenLoss) and objective.reduction != "none":
        check_in_batches(objective)
        check_objective(objective.singly)
        return
    if isinstance(objective, Contrastive):
        check_pairs(objective)
        return
    if isinstance(objective, Matching):
        check_layer_loss(objective)
        return
    _check_shape(objective)
    _check_independence(objective)
    _check_signal(objective)
    check_in_batches(objective)
    if objective.needs_signal:
        _check_agreement_is_best(objective)
    else:
        _check_label_is_learned(objective)


def example_answers(k: int = 3, *, seed: int = 0, scale: float = 2.0) -> Answers:
    """Random logits and labels with a teacher's top-``k``; at ``k = VOCABULARY`` the tail is empty."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(POSITIONS, VOCABULARY, generator=generator)
    labels = torch.randint(VOCABULARY, (POSITIONS,), generator=generator)
    return with_teacher(Answers(logits, labels), scale * torch.randn(POSITIONS, VOCABULARY, generator=generator), k)


def with_teacher(answers: Answers, teacher_logits: torch.Tensor, k: int) -> Answers:
    """The same batch with the top-``k`` signal of a teacher with these logits ``[N, V]``, not rounded."""
    logprobs = torch.log_softmax(teacher_logits, dim=-1)
    top, ids = logprobs.topk(k, dim=-1)
    rest = logprobs.scatter(-1, ids, float("-inf")).logsumexp(-1).clamp(min=LOG_ZERO)
    return replace(answers, signal=TopKTensors(ids, top, rest))


def with_all_samples(answers: Answers, teacher_logits: torch.Tensor) -> Answers:
    """The same batch with so many samples of a teacher with these logits that each token has its probability as weight."""
    logprobs = torch.log_softmax(teacher_logits, dim=-1)
    weights, ids = logprobs.exp().sort(dim=-1, descending=True)
    return replace(answers, signal=SampledTensors(ids, weights, -(logprobs.exp() * logprobs).sum(-1)))


def _check_shape(objective: Objective) -> None:
    for scale in (0.0, 2.0, 1e4):
        for k in (1, 3, VOCABULARY):
            answers = example_answers(k, scale=scale)
            losses, gradient = _losses_and_gradient(objective, answers)
            assert losses.shape == (POSITIONS,), (
                f"the losses have the shape {tuple(losses.shape)}, not one a position ({POSITIONS},)"
            )
            assert losses.dtype == torch.float32, f"the losses are {losses.dtype}, not float32"
            assert losses.isfinite().all(), f"a loss is not finite for logits of the size {scale:g} (k = {k})"
            assert gradient.isfinite().all(), f"a gradient is not finite for logits of the size {scale:g} (k = {k})"


def _check_independence(objective: Objective) -> None:
    answers = example_answers()
    before = [tensor.clone() for tensor in _tensors(answers)]
    whole = objective(answers)
    for old, new in zip(before, _tensors(answers), strict=True):
        assert torch.equal(old, new), "an input was changed"
    chosen = torch.tensor([4, 1])
    assert answers.signal is not None
    part = objective(Answers(answers.logits[chosen], answers.labels[chosen], answers.signal.at(chosen)))
    assert torch.allclose(part, whole[chosen], atol=1e-6), "a position's loss depends on the other positions"


def _check_signal(objective: Objective) -> None:
    answers = example_answers()
    blind = Answers(answers.logits, answers.labels)
    if not objective.needs_signal:
        assert torch.equal(objective(blind), objective(answers)), "it says that it needs no signal, and uses it"
        return
    try:
        objective(blind)
    except ConfigError:
        pass
    else:
        raise AssertionError("it needs a signal and does not raise ConfigError without one")
    if getattr(objective, "takes_samples", False):
        value, gradient = _losses_and_gradient(objective, with_all_samples(answers, answers.logits))
        assert value.abs().max() < 1e-4, "it is not zero where the samples have the student's probabilities"
        assert gradient.abs().max() < 1e-5, "its gradient is not zero where the samples have the student's probabilities"


def _check_agreement_is_best(objective: Objective) -> None:
    for k in (1, 3, VOCABULARY):
        answers = example_answers(k)
        agreeing = with_teacher(answers, answers.logits, k)
        best, gradient = _losses_and_gradient(objective, agreeing)
        assert gradient.abs().max() < 1e-5, f"its gradient is not zero where teacher and student agree (k = {k})"
        assert best.abs().max() < 1e-4, f"it is not zero where teacher and student agree (k = {k})"
        for step in (0.1, 1.0, -1.0):
            noise = torch.randn(answers.logits.shape, generator=torch.Generator().manual_seed(1))
            worse = objective(replace(agreeing, logits=answers.logits + step * noise))
            assert (worse >= best - 1e-5).all(), f"a student that disagrees with the teacher has a lower loss (k = {k})"
            assert worse.mean() > best.mean(), f"a student that disagrees with the teacher costs nothing (k = {k})"


def _check_label_is_learned(objective: Objective) -> None:
    answers = example_answers()
    raised = answers.logits.scatter_add(-1, answers.labels.unsqueeze(-1), torch.ones(POSITIONS, 1))
    better = objective(replace(answers, logits=raised))
    assert (better < objective(answers)).all(), "a likelier label does not cost less"


def _tensors(answers: Answers) -> list[torch.Tensor]:
    return [answers.logits, answers.labels, *(into_batch(answers.signal).values() if answers.signal else ())]


def _losses_and_gradient(objective: Objective, answers: Answers) -> tuple[torch.Tensor, torch.Tensor]:
    logits = answers.logits.clone().requires_grad_(True)
    losses = objective(replace(answers, logits=logits))
    assert losses.requires_grad, "the losses have no gradient"
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    return losses.detach(), gradient
