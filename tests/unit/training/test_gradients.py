"""Gradients of embeddings row by row, and clipping by one product: the numbers are PyTorch's own."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from slmops.models.load import load_model
from slmops.training.gradients import clip, rows_of_embedding

IDS = torch.tensor([[5, 9, 5, 7], [5, 2, 2, 30]])


def loss_of(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=IDS, labels=IDS, use_cache=False).loss


@pytest.fixture
def model(tiny_model: Path) -> torch.nn.Module:
    return load_model(tiny_model, dtype="float32", attention="eager")


def test_the_gradient_is_that_of_the_whole_embedding(model: torch.nn.Module) -> None:
    plain = copy.deepcopy(model)
    for _ in range(2):  # the second adds to the first, as accumulated batches do
        loss_of(plain).backward()
        with rows_of_embedding(model):
            loss_of(model).backward()
    for (name, own), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert own.grad is not None, name
        torch.testing.assert_close(own.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_only_the_output_layer_makes_a_gradient_of_the_vocabularys_size(model: torch.nn.Module) -> None:
    assert edges_to_the_embedding(model, loss_of(model)) == 2
    with rows_of_embedding(model):
        assert edges_to_the_embedding(model, loss_of(model)) == 1


def edges_to_the_embedding(model: torch.nn.Module, loss: torch.Tensor) -> int:
    weight = model.get_input_embeddings().weight
    seen, waiting, edges = set(), [loss.grad_fn], 0
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        following = [after for after, _ in node.next_functions]
        edges += sum(getattr(after, "variable", None) is weight for after in following)
        waiting += following
    return edges


def test_afterwards_the_model_is_as_before(model: torch.nn.Module) -> None:
    with rows_of_embedding(model):
        pass
    assert not model.get_input_embeddings()._forward_hooks
    with rows_of_embedding(model), torch.no_grad():
        assert not model(input_ids=IDS).logits.requires_grad


def test_a_frozen_embedding_gets_no_gradient(model: torch.nn.Module) -> None:
    weight = model.get_input_embeddings().weight.requires_grad_(False)
    with rows_of_embedding(model):
        loss_of(model).backward()
    assert weight.grad is None


@pytest.mark.parametrize("longest", [0.5, 1e9])
def test_clipping_is_torchs(model: torch.nn.Module, longest: float) -> None:
    loss_of(model).backward()
    plain = copy.deepcopy(model)
    for own, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        theirs.grad = None if own.grad is None else own.grad.clone()
    expected = torch.nn.utils.clip_grad_norm_(plain.parameters(), longest)
    assert clip(model.parameters(), longest) == pytest.approx(float(expected), rel=1e-5)
    for own, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, theirs.grad, rtol=1e-5, atol=1e-9)


def test_a_norm_that_is_not_finite_changes_no_gradient() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.tensor([1.0, float("inf"), 2.0])
    assert clip([parameter], 1.0) == float("inf")
    assert parameter.grad.tolist() == [1.0, float("inf"), 2.0]
