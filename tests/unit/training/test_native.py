"""Compiled passes: values and gradients beside float64, which parts of a model they take, and a machine without a compiler."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from slmops.training import native
from slmops.training.deferred import Products
from slmops.training.gated import Gated
from slmops.training.native import Kernels, kernels
from slmops.training.norms import Norm
from slmops.training.projection import Projection
from slmops.training.quick import quicken
from slmops.training.rotary import Rotary
from tests.unit.training.test_tree import FAMILIES, states_and_gradients, tiny

ROUNDING = {"atol": 0.02, "rtol": 0.01}
"""A number of bfloat16 has eight bits; some of these values are sums."""


@pytest.fixture(scope="module")
def compiled() -> Kernels:
    found = kernels(torch.bfloat16)
    if found is None:
        pytest.skip("no C compiler on this machine")
    return found


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What was compiled is looked for again, in the test and after it."""
    native._kernels.cache_clear()
    yield
    native._kernels.cache_clear()


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def exact(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [one.detach().double().requires_grad_() for one in tensors]


@pytest.mark.parametrize("count", [1, 15, 16, 37, 1000])
def test_gated_values_and_gradients_are_those_in_float64(compiled: Kernels, count: int) -> None:
    gate, up, above = 4 * numbers(count), numbers(count, seed=1), numbers(count, seed=2)
    g, u = exact(gate, up)
    expected = g * torch.sigmoid(g) * u
    expected.backward(above.double())
    torch.testing.assert_close(compiled.gated(gate, up).double(), expected, **ROUNDING)
    for found, tensor in zip(compiled.gated_back(above, gate, up), (g, u), strict=True):
        torch.testing.assert_close(found.double(), tensor.grad, **ROUNDING)


def test_far_from_zero_a_gate_is_open_or_shut(compiled: Kernels) -> None:
    gate = torch.tensor([-300.0, -90.0, 90.0, 300.0, float("nan")]).bfloat16()
    found = compiled.gated(gate, torch.ones_like(gate))
    assert found[:4].tolist() == pytest.approx([0.0, 0.0, 90.0, 300.0], abs=1e-30)
    assert found[4].isnan()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("width", [8, 33, 576])
def test_norms_and_their_gradients_are_those_in_float64(compiled: Kernels, width: int, dtype: torch.dtype) -> None:
    states, weight, above = numbers(5, width).float(), numbers(width, seed=1).float(), numbers(5, width, seed=2).to(dtype)
    s, w = exact(states, weight)
    expected = w * s / (s.square().mean(-1, keepdim=True) + 0.05).sqrt()
    expected.backward(above.double())
    close: dict[str, float] = ROUNDING if dtype is torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    found, scales = compiled.norm(states, weight, 0.05, dtype)
    assert found.dtype is dtype
    torch.testing.assert_close(found.double(), expected, **close)
    of_states, of_weight = compiled.norm_back(above, states, weight, scales)
    torch.testing.assert_close(of_states.double(), s.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(of_weight.double(), w.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("keys", [1, 5, 16, 36, 48])
def test_weights_and_scores_gradients_are_those_in_float64(compiled: Kernels, keys: int, window: int | None) -> None:
    scores, above = 8 * numbers(2, 3 * keys, keys), numbers(2, 3 * keys, keys, seed=1)
    (s,) = exact(scores)
    behind = torch.arange(keys).unsqueeze(1) - torch.arange(keys)
    hidden = (behind < 0) | (behind >= (window or keys))
    expected = (0.5 * s).masked_fill(hidden.repeat(3, 1), float("-inf")).softmax(-1)
    expected.backward(above.double())
    weights = compiled.softmax_(scores.clone(), 0.5, window)
    torch.testing.assert_close(weights.double(), expected, **ROUNDING)
    assert not weights.masked_select(hidden.repeat(3, 1)).any()
    torch.testing.assert_close(compiled.softmax_back_(weights, above.clone(), 0.5).double(), s.grad, **ROUNDING)


def test_scores_that_are_no_numbers_stay_none(compiled: Kernels) -> None:
    scores = torch.zeros(1, 4, 4).bfloat16()
    scores[0, 2, 1] = float("nan")
    weights = compiled.softmax_(scores, 1.0, None)
    assert weights[0, 2, :3].isnan().any()
    assert weights[0, 3].tolist() == [0.25] * 4


@pytest.mark.parametrize("turns", [True, False])
def test_vectors_go_to_their_places_and_back(compiled: Kernels, turns: bool) -> None:
    """Three nodes of two heads; the first node stands at two places, and what fills up is a fourth."""
    vectors, width = numbers(8, 6), 6
    cos, sin = (numbers(4, width, seed=seed).float() for seed in (1, 2))
    index = torch.tensor([0, 2, 4, 0, 1, 3, 5, 1])
    (exact_vectors,) = exact(vectors)

    def turned(x: torch.Tensor) -> torch.Tensor:
        by_node = x.view(4, 2, width)
        first, second = by_node.chunk(2, dim=-1)
        return (by_node * cos.unsqueeze(1) + torch.cat((-second, first), -1) * sin.unsqueeze(1)).view(8, width)

    turn = (cos, sin) if turns else None
    expected = (turned(exact_vectors) if turns else exact_vectors)[index]
    found = compiled.spread(vectors, index, turn, 2)
    torch.testing.assert_close(found.double(), expected, **ROUNDING)
    above = numbers(8, width, seed=3)
    expected.backward(above.double())
    torch.testing.assert_close(compiled.gather(above, index, turn, 2, 8).double(), exact_vectors.grad, **ROUNDING)

    places = torch.tensor([0, 4, 1, 5, 2, 6])  # each head's own place
    exact_vectors.grad = None
    (turned(exact_vectors) if turns else exact_vectors)[:6].backward(above[places].double())
    torch.testing.assert_close(compiled.collect(above, places, turn, 2, 8).double(), exact_vectors.grad, **ROUNDING)
    own = torch.zeros(8, width).double()
    own[places] = vectors[:6].double()
    assert torch.equal(compiled.settle(vectors, places, 8).double(), own)


@pytest.mark.parametrize(("rows", "columns"), [((3,), 5), ((40, 17), 24), ((8, 64), 100)])
def test_matrices_are_stacked_and_transposed(compiled: Kernels, rows: tuple[int, ...], columns: int) -> None:
    parts = [numbers(count, columns, seed=count) for count in rows]
    width = sum(rows) + 3
    found = compiled.stacked_columns(parts, width)
    assert torch.equal(found[:, : sum(rows)], torch.cat(parts).t())
    assert not found[:, sum(rows) :].any()


@pytest.mark.usefixtures("compiled")
def test_a_product_of_several_threads_rows_is_that_of_all() -> None:
    inputs, above = [numbers(20, 6), numbers(13, 6, seed=1)], [numbers(20, 4, seed=2), numbers(13, 4, seed=3)]
    weight = torch.nn.Parameter(torch.zeros(4, 6))
    Products(inputs, [(weight, above)]).add()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad.double(), torch.cat(above).double().t() @ torch.cat(inputs).double(), **ROUNDING)


ROTARY = {"llama", "llama-many", "qwen2", "mistral", "granite"}
"""Families whose attention layers have the known form; a norm within, a cap, one layer for all three or other angles are others."""

GATED = ROTARY | {"qwen3", "cohere"}
"""Families whose networks have the known form; Gemma's gate is another, and Phi's two layers are one."""


def lowered(model: Any) -> Any:
    """As a thread's twin: linear layers but the last in bfloat16."""
    head = model.get_output_embeddings()
    for module in model.modules():
        if type(module) is torch.nn.Linear and module is not head:
            module.to(torch.bfloat16)
    return model


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b).norm() / b.norm())


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_models_states_and_gradients_are_as_near_to_float32_as_pytorchs(family: str) -> None:
    exact_model, theirs, ours = tiny(family, **FAMILIES[family]), *(lowered(tiny(family, **FAMILIES[family])) for _ in range(2))
    quicken(ours, torch.bfloat16)
    taken = [type(module.forward) for module in ours.modules()]
    assert (taken.count(Rotary), taken.count(Gated)) == (3 * (family in ROTARY), 3 * (family in GATED))
    projection = Projection.of(tiny(family, **FAMILIES[family]))
    assert projection is not None
    states, gradients = states_and_gradients(exact_model, projection.of_twin(exact_model))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own_states, own = states_and_gradients(theirs, projection.of_twin(theirs))
        quick_states, quick = states_and_gradients(ours, projection.of_twin(ours))
    assert apart(quick_states, states) < 1.5 * apart(own_states, states) + 0.002
    assert quick.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert apart(quick[name], gradient) < 1.5 * apart(own[name], gradient) + 0.01, name


def test_what_does_not_lie_in_one_piece_is_refused(compiled: Kernels) -> None:
    with pytest.raises(ValueError, match="strides"):
        compiled.gated(numbers(4, 6).t(), numbers(6, 4))


@pytest.mark.usefixtures("compiled")
def test_the_same_numbers_every_time() -> None:
    model = lowered(tiny("llama"))
    projection = Projection.of(tiny("llama"))
    assert projection is not None
    quicken(model, torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        once, again = (states_and_gradients(model, projection.of_twin(model)) for _ in range(2))
    assert torch.equal(once[0], again[0])
    assert all(torch.equal(once[1][name], gradient) for name, gradient in again[1].items())


@pytest.mark.usefixtures("forgotten")
def test_without_a_compiler_pytorch_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert kernels(torch.bfloat16) is None
    model = lowered(tiny("llama"))
    quicken(model, torch.bfloat16)
    forwards = [module.forward for module in model.modules()]
    assert not any(isinstance(one, Rotary | Gated) for one in forwards)
    assert {one.compiled for one in forwards if isinstance(one, Norm)} == {None}


def test_float32_is_left_to_pytorch() -> None:
    assert kernels(None) is None
    assert kernels(torch.float32) is None


@pytest.mark.usefixtures("compiled", "forgotten")
@pytest.mark.parametrize("breaks", ["compiler", "library"])
def test_what_does_not_compile_or_load_is_left_out(breaks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMOPS_CACHE", str(tmp_path / "cache"))
    if breaks == "compiler":
        monkeypatch.setattr(native, "_FLAGS", ["--no-such-flag"])
    else:
        native._compiled().write_bytes(b"no library")
    assert kernels(torch.bfloat16) is None
    assert [file.suffix for file in (tmp_path / "cache" / "native").iterdir()] == ([".so"] if breaks == "library" else [])
