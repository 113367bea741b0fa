"""8-bit quantization of the float32 graph that the model builder writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper, numpy_helper

from slmops.export.graph import IDS, output_layer, prune_initializers

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

BLOCK = 32
_MIDDLE = 128  # what an unsigned byte holds for zero
_MICROSOFT = "com.microsoft"
_LARGEST = 64
"""Of a weight in an integer product: x86 processors without VNNI add two products in 16 bits, and 2 * 255 * 64 fits."""


def quantize(model: ModelProto, *, integer_activations: bool) -> None:
    """Quantize every matrix product with constant weights, and the embedding.

    Args:
        model: Graph with its weights in memory; changed in place.
        integer_activations: False: weights in blocks of 32 along the input, each with its scale (``MatMulNBits``).
            True: one scale an output channel, and each token's activations are rounded to 8 bits with a scale of their
            own, so that the product is one of integers and a row's result depends on nothing else in the batch. The
            output layer keeps blocks, as it shares its table with the embedding.
    """
    graph = model.graph
    inputs = {value.name for value in graph.input}  # an initializer of that name is only a default
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in inputs}
    head = output_layer(graph)
    tied = _tied_lookup(graph, head)
    products = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    rounded: dict[str, tuple[str, str]] = {}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if not any(node is product for product in products):
            nodes.append(node)
            continue
        weight = numpy_helper.to_array(weights[node.input[1]])
        if weight.shape[0] % BLOCK:
            nodes.append(node)  # cannot be cut into blocks: stays in float32
        elif integer_activations and node is not head:
            nodes += _integer_product(graph, node, weight, rounded)
        else:
            nodes.append(_block_product(graph, node, weight))
    del graph.node[:]
    graph.node.extend(nodes)
    if head.input[1] not in {name for node in graph.node for name in node.input if node.op_type == "MatMul"}:
        _quantize_embedding(graph, weights, tied)
    prune_initializers(graph)


def _block_product(graph: GraphProto, node: NodeProto, weight: Any) -> NodeProto:
    """``MatMulNBits``: table (outputs, blocks, 32) of bytes around 128, scales (outputs, blocks)."""
    table, scales = _blocks(weight.T)
    inputs, outputs = weight.shape
    names = _store(graph, _base(node), weight=table.reshape(outputs, inputs // BLOCK, BLOCK), scale=scales)
    return helper.make_node(
        "MatMulNBits",
        [node.input[0], *names],
        list(node.output),
        name=node.name + "_Q8",
        domain=_MICROSOFT,
        K=inputs,
        N=outputs,
        bits=8,
        block_size=BLOCK,
        accuracy_level=4,  # activations in 8 bits, a scale a block
    )


def _integer_product(graph: GraphProto, node: NodeProto, weight: Any, rounded: dict[str, tuple[str, str]]) -> list[NodeProto]:
    """Round the activations of each token, multiply integers, put the scales back.

    Activations are unsigned with 128 for zero: x86 processors multiply unsigned by signed bytes.
    """
    nodes = []
    source, base = node.input[0], _base(node)
    if source not in rounded:
        place = f"/rounded/{base}"
        rounded[source] = (f"{place}/bytes", f"{place}/largest")
        tiny, step, axis, middle = _shared(graph)
        nodes = [
            helper.make_node("Abs", [source], [f"{place}/size"], name=f"{place}/Abs"),
            helper.make_node("ReduceMax", [f"{place}/size", axis], [f"{place}/max"], name=f"{place}/ReduceMax", keepdims=1),
            helper.make_node("Max", [f"{place}/max", tiny], [f"{place}/largest"], name=f"{place}/Max"),
            helper.make_node("Div", [source, f"{place}/largest"], [f"{place}/unit"], name=f"{place}/Div"),
            helper.make_node("QuantizeLinear", [f"{place}/unit", step, middle], [f"{place}/bytes"], name=f"{place}/QuantizeLinear"),
        ]
    data, largest = rounded[source]
    _, step, _, middle = _shared(graph)
    scales = np.maximum(np.abs(weight).max(axis=0), 1e-12).astype(np.float32) / _LARGEST
    table = np.rint(weight / scales).astype(np.int8)
    names = _store(graph, base, weight=table, scale=scales)
    product = f"{node.output[0]}/unscaled"
    return [
        *nodes,
        helper.make_node(
            "MatMulIntegerToFloat", [data, names[0], step, names[1], middle], [product], name=node.name + "_W8A8", domain=_MICROSOFT
        ),
        helper.make_node("Mul", [product, largest], list(node.output), name=node.name + "/Scale"),
    ]


def _tied_lookup(graph: GraphProto, head: NodeProto) -> bool:
    """Whether the embedding reads the transposed weights of the output layer."""
    return any(node.op_type == "Transpose" and node.input[0] == head.input[1] for node in graph.node)


def _quantize_embedding(graph: GraphProto, weights: dict[str, Any], tied: bool) -> None:
    """Put ``GatherBlockQuantized`` in place of the lookup; a tied one reads the output layer's table."""
    lookup = next((node for node in graph.node if node.op_type == "Gather" and node.input[1] == IDS), None)
    if lookup is None:
        return
    if tied:
        head = output_layer(graph)
        shape = next(tensor.dims for tensor in graph.initializer if tensor.name == head.input[1])
        flat = numpy_helper.from_array(np.array([shape[0], shape[1] * shape[2]]), "model.embed_tokens.shape")
        graph.initializer.append(flat)
        inputs = ["/model/embed_tokens/Reshape/output_0", IDS, head.input[2]]
        before = [helper.make_node("Reshape", [head.input[1], flat.name], inputs[:1], name="/model/embed_tokens/Reshape")]
    else:
        table = numpy_helper.to_array(weights[lookup.input[0]])
        if table.shape[1] % BLOCK:
            return
        data, scales = _blocks(table)
        names = _store(graph, "model.embed_tokens", weight=data, scale=scales)
        inputs, before = [names[0], IDS, names[1]], []
    gather = helper.make_node(
        "GatherBlockQuantized",
        inputs,
        list(lookup.output),
        name="/model/embed_tokens/GatherBlockQuantized",
        domain=_MICROSOFT,
        bits=8,
        block_size=BLOCK,
        gather_axis=0,
        quantize_axis=1,
    )
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node is lookup:
            nodes += [*before, gather]
        elif node.output[0] != lookup.input[0]:  # the transposition of a tied table
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _blocks(table: Any) -> tuple[Any, Any]:
    """Bytes around 128 and scales of a table (rows, columns), a scale for 32 columns of a row."""
    rows, columns = table.shape
    blocks = np.ascontiguousarray(table, dtype=np.float32).reshape(rows, columns // BLOCK, BLOCK)
    scales = np.maximum(np.abs(blocks).max(axis=2), 1e-12) / 127
    data = (np.rint(blocks / scales[:, :, None]) + _MIDDLE).astype(np.uint8)
    return data.reshape(rows, columns), scales.astype(np.float32)


def _store(graph: GraphProto, base: str, *, weight: Any, scale: Any) -> list[str]:
    names = [f"{base}.weight_8bit", f"{base}.scale"]
    graph.initializer.extend(numpy_helper.from_array(array, name) for array, name in zip((weight, scale), names, strict=True))
    return names


def _shared(graph: GraphProto) -> list[str]:
    """Names of the constants of :func:`_integer_product`: smallest scale, step, axis, zero point."""
    names = ["/rounded/tiny", "/rounded/step", "/rounded/axis", "/rounded/middle"]
    if not any(tensor.name == names[0] for tensor in graph.initializer):
        values = [np.float32(1e-9), np.float32(1 / 127), np.array([-1]), np.uint8(_MIDDLE)]
        graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value), name) for value, name in zip(values, names, strict=True)
        )
    return names


def _base(node: NodeProto) -> str:
    return str(node.name).strip("/").replace("/", ".").removesuffix(".MatMul")
