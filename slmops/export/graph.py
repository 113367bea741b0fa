"""Changes to the graph that the model builder writes: less work on a prompt, one table for embedding and output layer."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.errors import ModelError
from slmops.files import atomic

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

IDS = "input_ids"
MASK = "attention_mask"
_ATTENTION = ("GroupQueryAttention", "MultiHeadAttention", "Attention")


def load(file: Path, *, with_weights: bool = False) -> ModelProto:
    """Read a graph; its weights stay in their file unless they are asked for."""
    import onnx

    return onnx.load(str(file), load_external_data=with_weights)


def save(model: ModelProto, file: Path) -> None:
    """Write a graph; weights that are in memory go into ``<file>.data``, those in a file stay where they are."""
    import onnx

    in_memory = any(tensor.data_location != onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    in_files = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    if in_memory and not in_files:
        data = file.with_name(f"{file.name}.data")
        data.unlink(missing_ok=True)  # onnx would append
        onnx.save_model(model, str(file), save_as_external_data=True, location=data.name, size_threshold=1024)
        _sync(data)
        return
    with atomic(file, "wb") as stream:
        stream.write(model.SerializeToString())


def output_layer(graph: GraphProto) -> NodeProto:
    """The matrix product that makes the logits.

    Raises:
        ModelError: The graph has another form than the builder's.
    """
    nodes: list[NodeProto] = [node for node in graph.node if node.name.startswith("/lm_head/MatMul")]
    if nodes:
        return nodes[0]
    raise ModelError("the converted graph has no output layer", fix="this architecture cannot be exported yet")


def keep_last_position(model: ModelProto) -> None:
    """Compute logits for the last token of each row only, and the last layer after its attention too.

    On a prompt the output layer costs as much as many layers, and its logits are large. The builder's own option for
    this (``prune_lm_head``) takes the last column, which in a batch is the padding of the shorter rows; here each row's
    last token is found from the attention mask, so rows of any lengths can be in a batch.
    """
    graph = model.graph
    if not {IDS, MASK} <= {value.name for value in graph.input}:
        return
    edges, consumers = _edges_after_attention(graph)
    if not edges:
        consumers = [output_layer(graph)]
        edges = [consumers[0].input[0]]
    first = min(index for index, node in enumerate(graph.node) if any(node is consumer for consumer in consumers))
    for number, edge in enumerate(edges):
        for node in consumers:
            node.input[:] = [f"/last/{number}" if name == edge else name for name in node.input]
    nodes = [*graph.node]
    del graph.node[:]
    graph.node.extend([*nodes[:first], *_last_position_nodes(graph, edges), *nodes[first:]])
    del graph.value_info[:]  # the shapes after the selection have changed
    logits = next(value for value in graph.output if value.name == "logits").type.tensor_type.shape.dim[1]
    logits.ClearField("dim_param")
    logits.dim_value = 1  # by this the engine knows that there is one position a row


def share_embedding(model: ModelProto) -> None:
    """Let the embedding read the output layer's quantized table where it lies in the file.

    The builder reshapes the table at load time, which keeps a second copy of it in memory; two names for one place in
    the file need none, and only the rows of tokens that occur are ever read.
    """
    import onnx

    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[0] in initializers:
            lookup = next((other for other in graph.node if node.output[0] in other.input), None)
            table = initializers[node.input[0]]
            if lookup is None or lookup.op_type != "GatherBlockQuantized" or table.data_location != onnx.TensorProto.EXTERNAL:
                continue
            alias = onnx.TensorProto()
            alias.CopyFrom(table)
            alias.name = "model.embed_tokens.weight"
            rows, size = table.dims[0], math.prod(table.dims)
            alias.dims[:] = [rows, size // rows]
            graph.initializer.append(alias)
            lookup.input[0] = alias.name
            graph.node.remove(node)
            return


def prune_initializers(graph: GraphProto) -> None:
    """Drop weights that no node reads any more."""
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _edges_after_attention(graph: GraphProto) -> tuple[list[str], list[NodeProto]]:
    """Activations that cross from the last attention (and before) to what follows it, and the nodes that follow.

    Empty where that part reads anything but activations of shape (batch, sequence, width).
    """
    nodes = list(graph.node)
    places = [index for index, node in enumerate(nodes) if node.op_type in _ATTENTION]
    if not places:
        return [], []
    last = places[-1]
    reached = {nodes[last].output[0]}
    followers = []
    for node in nodes[last + 1 :]:
        if reached.intersection(node.input):
            followers.append(node)
            reached.update(node.output)
    made = {name for node in followers for name in node.output}
    fixed = {tensor.name for tensor in graph.initializer} | {node.output[0] for node in nodes if node.op_type == "Constant"}
    edges = list(dict.fromkeys(_inputs(followers, without=made | fixed)))
    shapes = {value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in graph.value_info}
    for edge in edges:
        if shapes.get(edge, [])[:2] != ["batch_size", "sequence_length"] or len(shapes[edge]) != 3:
            return [], []
    return edges, followers


def _inputs(nodes: Iterable[NodeProto], without: set[str]) -> Iterator[str]:
    for node in nodes:
        yield from (name for name in node.input if name and name not in without)


def _last_position_nodes(graph: GraphProto, edges: list[str]) -> list[NodeProto]:
    """Nodes that take row ``b``'s position ``length(b) - 1 - past`` of each edge, ``length`` counting the mask's ones.

    While decoding, a shorter row's length is less than the padded past; there is one position then, number 0.
    """
    from onnx import TensorProto, helper

    def constant(name: str, value: int) -> str:
        graph.initializer.append(helper.make_tensor(f"/last/{name}", TensorProto.INT64, [1], [value]))
        return f"/last/{name}"

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
        return helper.make_node(kind, inputs, [f"/last/{output}"], name=f"/last/{output}/{kind}", **attributes)

    zero, one, two = (constant(name, value) for name, value in (("zero", 0), ("one", 1), ("two", 2)))
    return [
        node("ReduceSum", [MASK, one], "length", keepdims=1),
        node("Shape", [MASK], "total", start=1, end=2),
        node("Shape", [IDS], "new", start=1, end=2),
        node("Sub", ["/last/total", "/last/new"], "past"),
        node("Sub", ["/last/length", "/last/past"], "count"),
        node("Sub", ["/last/count", one], "place"),
        node("Max", ["/last/place", zero], "position"),
        node("Unsqueeze", ["/last/position", two], "index"),
        *(node("GatherND", [edge, "/last/index"], str(number), batch_dims=1) for number, edge in enumerate(edges)),
    ]


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
