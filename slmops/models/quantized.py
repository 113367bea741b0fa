"""A frozen model whose linear layers really lie in 4 or 8 bits, for adapters to be trained on (QLoRA, Dettmers et al. 2023).

Weights are read from safetensors a tensor at a time and packed at once, so that the whole model is never in memory. At a product
a layer's weights are unpacked, and again for the gradient of what went in; nothing of them is kept between. Four bits are the
paper's NormalFloat (NF4), eight are integers; both with one scale for 64 neighbouring weights of an output. On a GPU this is the
business of bitsandbytes, whose kernels are made for it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from slmops.errors import MissingExtraError, ModelError
from slmops.models.load import quiet_transformers, runs_remote_code, tensor_infos, weight_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GROUP = 64
"""Weights that share a scale, as in the paper."""

_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334),
    *(-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Quantiles of a normal distribution, scaled to one: the paper's table (appendix E)."""


class QuantizedLinear(torch.nn.Linear):
    """A linear layer that is not trained, whose weights lie in ``bits`` bits.

    Args:
        weight: Of the layer it takes the place of, ``[out, in]``.
        bias: ``[out]`` or ``None``.
        bits: 4 or 8.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, bits: int) -> None:
        torch.nn.Module.__init__(self)
        self.out_features, self.in_features = weight.shape
        self.bits = bits
        packed, scales = pack(weight, bits)
        # Parameters and not buffers, since what shares a model's parameters shares these too.
        self.weight = torch.nn.Parameter(packed, requires_grad=False)
        self.scales = torch.nn.Parameter(scales, requires_grad=False)
        self.bias = None if bias is None else torch.nn.Parameter(bias.detach().clone(), requires_grad=False)

    def unpacked(self, dtype: torch.dtype) -> torch.Tensor:
        """The weights as numbers, ``[out, in]``."""
        return unpack(self.weight, self.scales, self.in_features, self.bits, dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``input`` times the weights, in the type of autocast where there is one."""
        kind = input.device.type
        if torch.is_autocast_enabled(kind):
            input = input.to(torch.get_autocast_dtype(kind))
        product: torch.Tensor = _Product.apply(input, self)
        return product if self.bias is None else product + self.bias.to(product.dtype)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: torch.Tensor, layer: QuantizedLinear) -> torch.Tensor:
        ctx.layer = layer
        return torch.nn.functional.linear(given, layer.unpacked(given.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (above,) = gradients
        return above @ ctx.layer.unpacked(above.dtype), None


def pack(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights ``[out, in]`` in few bits, uint8 ``[out, …]``, and a float32 scale for each group, ``[out, ceil(in / 64)]``."""
    rows, width = weight.shape
    padded = torch.nn.functional.pad(weight.detach().float(), (0, -width % GROUP)).view(rows, -1, GROUP)
    scales = padded.abs().amax(-1).clamp(min=1e-12)
    parts = (padded / scales.unsqueeze(-1)).view(rows, -1)
    if bits == 8:
        return (torch.round(parts * 127).to(torch.int16) + 128).to(torch.uint8), scales
    table = torch.tensor(_NF4)
    codes = torch.bucketize(parts, (table[1:] + table[:-1]) / 2).to(torch.uint8)
    return codes[:, ::2] | (codes[:, 1::2] << 4), scales


def unpack(packed: torch.Tensor, scales: torch.Tensor, width: int, bits: int, dtype: torch.dtype) -> torch.Tensor:
    """The other way round, ``[out, width]``."""
    rows = packed.shape[0]
    # In place and without wide indices: what is made here lies between activations that stay, and leaves gaps of its size.
    if bits == 8:
        parts = packed.to(dtype).sub_(128).div_(127)
    else:
        table = torch.tensor(_NF4, dtype=dtype, device=packed.device)
        pairs = torch.stack([table.repeat(16), table.repeat_interleave(16)], dim=-1)  # of each byte, the low four bits first
        parts = pairs.index_select(0, packed.flatten().int())
    return parts.view(rows, -1, GROUP).mul_(scales.to(dtype).unsqueeze(-1)).view(rows, -1)[:, :width]


def load_quantized(path: Path, bits: int, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model of a folder with all linear layers but the output in few bits; the rest is frozen too.

    Args:
        path: Of the folder.
        bits: 4 or 8.
        dtype: Of the rest, and of what goes from layer to layer and is kept for the gradient.

    Raises:
        ModelError: A tensor is missing.
        MissingExtraError: There is a GPU, and bitsandbytes is not installed.
    """
    quiet_transformers()
    if torch.cuda.is_available():
        return _by_bitsandbytes(path, bits, dtype)
    from accelerate import init_empty_weights
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    trusted = runs_remote_code()
    config = AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=trusted)
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation="eager", trust_remote_code=trusted
        )
    head = model.get_output_embeddings()
    wanted = {f"{name}.weight": name for name, one in model.named_modules() if type(one) is torch.nn.Linear and one is not head}
    for file in weight_files(path):
        for name in tensor_infos(file):
            # What has been read of a file stays in memory until it is closed.
            with safe_open(file, framework="pt") as tensors:
                _place(model, name, tensors.get_tensor(name), wanted, bits, dtype)
    model.tie_weights()
    missing = [name for name, one in model.named_parameters() if one.is_meta]
    if missing:
        raise ModelError(f"{len(missing)} tensors are missing from the weights, such as {missing[0]}", where=str(path))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.eval()


def _by_bitsandbytes(path: Path, bits: int, dtype: torch.dtype) -> PreTrainedModel:
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError("bitsandbytes", "gpu", without="--method lora, or CUDA_VISIBLE_DEVICES= to train on the processor")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    for file in weight_files(path):
        tensor_infos(file)
    four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": torch.bfloat16}
    packed = BitsAndBytesConfig(load_in_4bit=True, **four) if bits == 4 else BitsAndBytesConfig(load_in_8bit=True)
    options = {"use_safetensors": True, "local_files_only": True, "trust_remote_code": runs_remote_code()}
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        str(path), dtype=dtype, quantization_config=packed, device_map={"": torch.cuda.current_device()}, **options
    )
    model.requires_grad_(False)
    return model.eval()


def _place(model: PreTrainedModel, name: str, tensor: torch.Tensor, wanted: dict[str, str], bits: int, dtype: torch.dtype) -> None:
    owner, _, field = name.rpartition(".")
    try:
        module = model.get_submodule(owner)
    except AttributeError:
        return  # such as an output layer that is the embedding
    if name in wanted:
        above, _, last = owner.rpartition(".")
        layer = QuantizedLinear(tensor, None, bits)
        layer.bias = module.bias  # read before it, or still to be read into its place
        setattr(model.get_submodule(above), last, layer)
    elif isinstance(getattr(module, field, None), torch.nn.Parameter):
        # A copy: the tensor as it stands in the file would keep all of the file in memory.
        setattr(module, field, torch.nn.Parameter(tensor.to(dtype, copy=True), requires_grad=False))
