"""LoRA weights as optional inputs of an exported graph (Hu et al. 2021, arXiv:2106.09685; ONNX Runtime's multi-LoRA).

A matrix product ``x W`` becomes ``x W + (x A) B``. ``A`` and ``B`` are inputs with a default of rank 0, so that a model
without an active adapter, or with one that leaves a layer alone, computes the base; the rank is whatever an adapter brings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slmops.errors import ModelError
from slmops.files import read_json
from slmops.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapter

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

Shapes = Mapping[str, tuple[int, int]]
"""Linear layers of a base model by their names there: width of input and output."""

_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_MODULE = re.compile(r"(?:^|\.)layers\.(?P<layer>\d+)\.(?P<block>self_attn|mlp)\.(?P<leaf>\w+)$")
_BLOCKS = {"self_attn": "attn", "mlp": "mlp"}
_PACKED = ("q_proj", "k_proj", "v_proj")
"""Layers that the model builder puts side by side into one product, ``qkv_proj``, where it can."""

_REFUSED = {
    "use_dora": "it is a DoRA adapter, which scales the base's weights too",
    "modules_to_save": "it brings whole layers of its own (modules_to_save)",
    "trainable_token_indices": "it brings embeddings of its own (trainable_token_indices)",
    "target_parameters": "it adapts parameters that are no linear layers (target_parameters)",
    "layer_replication": "it repeats layers of the base (layer_replication)",
    "alora_invocation_tokens": "it acts from certain tokens on only (aLoRA)",
    "use_qalora": "it pools its inputs (QALoRA)",
}
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal")
"""Kinds of ``init_lora_weights`` that leave the base's weights as they are."""


@dataclass(frozen=True)
class Lora:
    """The weights of an adapter, ready to be inputs.

    Args:
        layers: By the name of the adapted layer: ``A`` (inputs, rank) and ``B`` (rank, outputs), the latter with the
            adapter's scale, both float32.
    """

    layers: Mapping[str, tuple[Any, Any]]

    @property
    def rank(self) -> int:
        """The largest one."""
        return max(int(a.shape[1]) for a, _ in self.layers.values())

    @property
    def targets(self) -> list[str]:
        """Last parts of the names of the adapted layers, such as ``q_proj``."""
        return sorted({name.rpartition(".")[2] for name in self.layers})

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(int(a.size + b.size) for a, b in self.layers.values())


def check_kind(path: Path) -> None:
    """Refuse adapters that are more than low-rank updates of linear layers.

    Raises:
        ModelError: It is of another kind; the message has the reason.
    """
    config: Mapping[str, Any] = read_json(path / ADAPTER_CONFIG)
    reason = next((reason for key, reason in _REFUSED.items() if config.get(key)), None)
    kind, start = str(config.get("peft_type", "none of PEFT's")), config.get("init_lora_weights", True)
    if kind != "LORA":
        reason = f"its kind is {kind}, which is not LoRA"
    elif isinstance(start, str) and not start.startswith(_PLAIN_STARTS):
        reason = f"its training began by changing the base's weights ({start})"
    if reason is not None:
        raise ModelError(
            f"this adapter cannot be an input of a shared model: {reason}",
            where=str(path),
            fix="export it alone: train with --merge, or merge it; several adapters share a base as plain LoRA",
        )


def read_lora(adapter: Adapter, shapes: Shapes) -> Lora:
    """The weights of an adapter that :func:`check_kind` has let pass.

    Args:
        adapter: The adapter.
        shapes: The base's layers.

    Raises:
        ModelError: It has other weights than those of linear layers, or does not fit the base's.
    """
    import torch
    from peft.utils.other import get_pattern_key
    from safetensors.torch import load_file

    config = read_json(adapter.path / ADAPTER_CONFIG)
    alphas = config.get("alpha_pattern") or {}
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(str(adapter.path / ADAPTER_WEIGHTS)).items():
        found = _TENSOR.fullmatch(key)
        if found is None:
            raise _misfit(adapter, f"{key} is no weight of an adapted linear layer")
        sides.setdefault(found["module"], {})[found["side"]] = tensor.float()
    layers = {}
    for module, pair in sides.items():
        if module not in shapes:
            raise _misfit(adapter, f"the base has no linear layer {module}")
        a, b = pair["A"], pair["B"]
        rank, (inputs, outputs) = a.shape[0], shapes[module]
        if a.shape != (rank, inputs) or b.shape != (outputs, rank):
            raise _misfit(adapter, f"{module} has {inputs} inputs and {outputs} outputs there, {a.shape[1]} and {b.shape[0]} here")
        alpha = alphas.get(get_pattern_key([*alphas], module), config["lora_alpha"])
        scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
        layers[module] = (np.ascontiguousarray(a.T.numpy()), np.ascontiguousarray((b * scale).T.numpy()))
    if not layers:
        raise _misfit(adapter, "it has no weights")
    return Lora(layers)


def linear_shapes(base: Path) -> Shapes:
    """Name and widths of everything in a model folder that may be a linear layer, from the headers of its weights."""
    from slmops.models.load import tensor_infos, weight_files

    return {
        name.removesuffix(".weight"): (info.shape[1], info.shape[0])
        for file in weight_files(base)
        for name, info in tensor_infos(file).items()
        if name.endswith(".weight") and len(info.shape) == 2
    }


@dataclass(frozen=True)
class Site:
    """A matrix product of the graph and the layers of the base that it computes, side by side in its output.

    Args:
        name: Of the product, such as ``/model/layers.0/attn/qkv_proj``.
        parts: Name and widths of each layer.
    """

    name: str
    parts: tuple[tuple[str, tuple[int, int]], ...]

    @property
    def inputs(self) -> tuple[str, str]:
        """Names of the graph's inputs for ``A`` and ``B``."""
        stem = self.name.strip("/").replace("/", ".")
        return f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"

    @property
    def widths(self) -> tuple[int, int]:
        """Of its input and its output."""
        return self.parts[0][1][0], sum(outputs for _, (_, outputs) in self.parts)

    def values(self, lora: Lora) -> dict[str, Any]:
        """An adapter's values for the two inputs; empty where it leaves the product alone.

        Layers side by side have their ``A`` side by side and their ``B`` on a diagonal of blocks.
        """
        adapted = [(lora.layers[name], start) for name, start in self._starts() if name in lora.layers]
        if not adapted:
            return {}
        left = np.concatenate([a for (a, _), _ in adapted], axis=1)
        right = np.zeros((left.shape[1], self.widths[1]), np.float32)
        row = 0
        for (_, b), start in adapted:
            right[row : row + b.shape[0], start : start + b.shape[1]] = b
            row += b.shape[0]
        return dict(zip(self.inputs, (left, right), strict=True))

    def _starts(self) -> list[tuple[str, int]]:
        starts, column = [], 0
        for name, (_, outputs) in self.parts:
            starts.append((name, column))
            column += outputs
        return starts


def add_inputs(graph: GraphProto, modules: Iterable[str], shapes: Shapes) -> list[Site]:
    """Give the products of some layers their inputs; returns these products.

    It comes before the weights are rounded, as the inputs read the product's own input.

    Raises:
        ModelError: A layer has no product of its own in the graph.
    """
    from onnx import TensorProto, helper

    products = {output.removesuffix(_OUTPUT): node for node in graph.node for output in node.output if output.endswith(_OUTPUT)}
    sites = {site.name: site for site in (_site(module, products, shapes) for module in modules)}
    added: dict[str, Sequence[NodeProto]] = {}
    for site in sites.values():
        node = products[site.name]
        (a, b), (inputs, outputs), total = site.inputs, site.widths, node.output[0]
        rank = f"{site.name}/rank"
        shaped: tuple[tuple[str, list[str | int | None], list[int]], ...] = (
            (a, [inputs, rank], [inputs, 0]),
            (b, [rank, outputs], [0, outputs]),
        )
        for name, sizes, empty in shaped:
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes))
            # An initializer with the name of an input is its default.
            graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, empty, b"", raw=True))
        source, plain, low, update = node.input[0], f"{site.name}/base", f"{site.name}/lora_A", f"{site.name}/lora_B"
        node.output[0] = plain
        added[plain] = [
            helper.make_node("MatMul", [source, a], [low], name=f"{low}/MatMul"),
            helper.make_node("MatMul", [low, b], [update], name=f"{update}/MatMul"),
            helper.make_node("Add", [plain, update], [total], name=f"{site.name}/lora/Add"),
        ]
    nodes = [more for node in graph.node for more in (node, *added.get(node.output[0], ()))]
    del graph.node[:]
    graph.node.extend(nodes)
    return list(sites.values())


_OUTPUT = "/MatMul/output_0"


def _site(module: str, products: Mapping[str, Any], shapes: Shapes) -> Site:
    found = _MODULE.search(module)
    if found is not None:
        block = f"/model/layers.{found['layer']}/{_BLOCKS[found['block']]}"
        own, packed = f"{block}/{found['leaf']}", f"{block}/qkv_proj"
        if own in products:
            return Site(own, ((module, shapes[module]),))
        if found["leaf"] in _PACKED and packed in products:
            stem = module.removesuffix(found["leaf"])
            return Site(packed, tuple((stem + leaf, shapes[stem + leaf]) for leaf in _PACKED))
    raise ModelError(
        f"the layer {module} has no matrix product of its own in the exported graph",
        fix="adapt layers of attention and MLP: --target_modules q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
    )


def _misfit(adapter: Adapter, what: str) -> ModelError:
    return ModelError(
        f"this adapter does not fit: {what}", where=str(adapter.path), fix="give the adapter's own base, and a plain LoRA"
    )
