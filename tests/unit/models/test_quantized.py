"""Frozen layers in few bits: how far from the weights, and that products and gradients are those of what is unpacked."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from slmops.errors import MissingExtraError, ModelError
from slmops.models.load import load_model
from slmops.models.quantized import GROUP, QuantizedLinear, load_quantized, pack, unpack
from slmops.testing.tiny import save_tiny_model

TOKENS = torch.tensor([[5, 9, 60, 7, 200, 3]])


@pytest.mark.parametrize("width", [GROUP, 3 * GROUP, GROUP + 7])
@pytest.mark.parametrize(("bits", "most"), [(8, 1 / 254), (4, 0.16)])
def test_no_weight_is_further_off_than_half_a_step(bits: int, most: float, width: int) -> None:
    """Of four bits the widest gap between neighbours is that of -1 and -0.696."""
    weight = torch.randn(5, width, generator=torch.Generator().manual_seed(0))
    packed, scales = pack(weight, bits)
    found = unpack(packed, scales, width, bits, torch.float32)
    groups = -(-width // GROUP)
    assert packed.shape == (5, groups * GROUP * bits // 8)
    assert scales.shape == (5, groups)
    largest = scales.repeat_interleave(GROUP, 1)[:, :width]
    assert ((found - weight).abs() <= most * largest + 1e-6).all()


def test_nf4_by_hand() -> None:
    """A group with the scale 2: each weight takes the nearest number of the table; two share a byte, the first in its low half."""
    weight = torch.zeros(1, GROUP)
    weight[0, :4] = torch.tensor([2.0, -2.0, 0.9, 0.0])
    packed, scales = pack(weight, 4)
    assert scales.tolist() == [[2.0]]
    assert packed[0, :2].tolist() == [15 + (0 << 4), 12 + (7 << 4)]
    assert unpack(packed, scales, GROUP, 4, torch.float32)[0, :4].tolist() == pytest.approx([2.0, -2.0, 2 * 0.4407098, 0.0])


def test_zeros_stay_zeros() -> None:
    for bits in (4, 8):
        packed, scales = pack(torch.zeros(2, GROUP), bits)
        assert not unpack(packed, scales, GROUP, bits, torch.float32).any()


@pytest.mark.parametrize("bits", [4, 8])
def test_products_and_gradients_are_those_of_the_unpacked_weights(bits: int) -> None:
    torch.manual_seed(0)
    dense = torch.nn.Linear(70, 9)
    layer = QuantizedLinear(dense.weight, dense.bias, bits)
    dense.weight.data = layer.unpacked(torch.float32)
    given = [torch.randn(4, 3, 70, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
    for one, own in zip((layer, dense), given, strict=True):
        one(own).square().sum().backward()
    torch.testing.assert_close(layer(given[0]), dense(given[0]))
    torch.testing.assert_close(given[0].grad, given[1].grad)
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(given[0]).dtype == torch.bfloat16


@pytest.mark.parametrize(("kind", "bits", "off"), [("llama", 8, 0.05), ("llama", 4, 0.8), ("qwen2", 8, 0.05)])
def test_a_model_in_few_bits_is_near_the_model(tmp_path: Path, kind: str, bits: int, off: float) -> None:
    folder = save_tiny_model(tmp_path / "model", kind=kind)
    whole, model = load_model(folder), load_quantized(folder, bits)
    with torch.no_grad():
        expected, found = whole(TOKENS).logits, model(TOKENS).logits
    assert 0 < float((found - expected).norm() / expected.norm()) < off
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in model.parameters())
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    packed = sum(one.weight.numel() for one in model.modules() if isinstance(one, QuantizedLinear))
    assert packed == sum(one.weight.numel() for one in whole.model.modules() if isinstance(one, torch.nn.Linear)) * bits // 8
    if kind == "qwen2":  # whose queries, keys and values have a bias
        assert torch.equal(model.model.layers[0].self_attn.q_proj.bias, whole.model.layers[0].self_attn.q_proj.bias)


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="only Linux says what is mapped")
def test_nothing_of_the_file_stays_in_memory(tmp_path: Path) -> None:
    """The file is mapped while it is read, and a float32 tensor that is no copy would keep the whole of it in memory."""
    folder = save_tiny_model(tmp_path / "model")
    model = load_quantized(folder, 4)
    assert str(folder / "model.safetensors") not in Path("/proc/self/maps").read_text()
    assert torch.equal(model.get_input_embeddings().weight, load_model(folder).get_input_embeddings().weight)


def test_a_folder_that_lacks_a_tensor_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny_model(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match="1 tensors are missing from the weights, such as"):
        load_quantized(folder, 4)


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_on_a_gpu_it_is_a_matter_of_bitsandbytes(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(MissingExtraError, match=r"'bitsandbytes' is not installed\n.*slmops\[gpu\]"):
        load_quantized(tiny_model, 4)
