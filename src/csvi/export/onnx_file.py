"""ONNX: one file for any onnxruntime, without PyTorch; each modality's layers in a branch of an `If`."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from csvi.export.graph import Embed, Graph
from csvi.plugins import imported

Weights = Literal["float32", "float16", "int8"]
"""What large weights are stored in; all is computed in float32."""
FACTS = "csvi"
"""Name of the metadata that say what the file is, as JSON."""
LARGE = 1024
"""Numbers of a tensor from which on it is stored in less than 32 bits."""
SUMMED = {"Conv": slice(1, None), "Gemm": slice(1, None), "MatMul": slice(-2, -1)}
"""Operator → axes of its weight that an output channel sums over; those of nn.Linear are Gemm or MatMul."""


def write_onnx(graph: Graph, facts: Mapping[str, object], file: Path, weights: Weights = "float32") -> Embed:
    """Write the graph: inputs `image` (B, H, W, 3) uint8 and `modality` () int64, output `embedding` (B, D) float32.

    Returns what the file computes in onnxruntime.
    """
    imported("onnxscript", "export", "ONNX")  # what PyTorch needs
    onnx = imported("onnx", "export", "ONNX")
    program = torch.onnx.export(
        graph,
        graph.example,
        input_names=["image", "modality"],
        output_names=["embedding"],
        dynamic_shapes=Graph.any_batch(),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    _forget_where_it_was_made(model)
    _move_weights_into_branches(model.graph)
    if weights != "float32":
        shorten_weights(model, weights)
    onnx.helper.set_model_props(model, {FACTS: json.dumps(facts)})
    onnx.checker.check_model(model, full_check=True)
    file.write_bytes(model.SerializeToString())
    return open_onnx(file)


def open_onnx(file: Path) -> Embed:
    """Open a file that `write_onnx` wrote, in onnxruntime."""
    runtime = imported("onnxruntime", "export", "ONNX")
    session = runtime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])

    def embed(images: np.ndarray, modality: int) -> np.ndarray:
        (embedding,) = session.run(["embedding"], {"image": images, "modality": np.array(modality, np.int64)})
        return np.asarray(embedding)

    return embed


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and those of its branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _forget_where_it_was_made(model: Any) -> None:
    """Drop what PyTorch notes beside nodes and values: lines of code, and paths of files on this machine."""
    for graph in _graphs(model.graph):
        for noted in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
            del noted.metadata_props[:]


def _move_weights_into_branches(graph: Any) -> None:
    """Move weights to the branch that alone uses them: onnxruntime lays out for speed only those of the same graph."""
    branches = [part for part in _graphs(graph) if part is not graph]
    users = {id(part): {name for node in part.node for name in node.input} for part in (graph, *branches)}
    kept = []
    for weight in graph.initializer:
        using = [part for part in (graph, *branches) if weight.name in users[id(part)]]
        if len(using) == 1 and using[0] is not graph:
            using[0].initializer.append(weight)
        else:
            kept.append(weight)
    del graph.initializer[:]
    graph.initializer.extend(kept)


def shorten_weights(model: Any, weights: Weights) -> None:
    """Store the large weights of a model in 16 or 8 bits; its graph turns them into float32.

    It does so by Cast and Mul, which onnxruntime computes once, as it loads the file, so that the model is as fast as
    with 32 bits; DequantizeLinear it would compute in every run.
    """
    for graph in _graphs(model.graph):
        stored, nodes = [], []
        operators = {name: node.op_type for node in graph.node for name in list(node.input)[1:2]}
        for weight in graph.initializer:
            summed = SUMMED.get(operators.get(weight.name, ""))
            if summed is None or math.prod(weight.dims) < LARGE:
                stored.append(weight)
                continue
            tensors, steps = _shortened(weight, weights, tuple(range(len(weight.dims))[summed]))
            stored += tensors
            nodes += steps
        nodes += graph.node
        del graph.initializer[:], graph.node[:]
        graph.initializer.extend(stored)
        graph.node.extend(nodes)


def _shortened(weight: Any, weights: Weights, axes: tuple[int, ...]) -> tuple[list[Any], list[Any]]:
    """Tensors to store in place of a weight, and nodes that compute it; `axes` are summed over for each channel."""
    import onnx
    from onnx.helper import make_node
    from onnx.numpy_helper import from_array, to_array

    name, values, number = weight.name, to_array(weight), onnx.TensorProto.FLOAT
    if weights == "float16":
        half = from_array(values.astype(np.float16), f"{name}.float16")
        return [half], [make_node("Cast", [half.name], [name], to=number)]
    scale = np.maximum(np.abs(values).max(axes, keepdims=True) / 127, np.finfo(np.float32).tiny)
    whole = from_array(np.rint(values / scale).astype(np.int8), f"{name}.int8")
    factor = from_array(scale, f"{name}.scale")
    cast = make_node("Cast", [whole.name], [f"{name}.whole"], to=number)
    return [whole, factor], [cast, make_node("Mul", [*cast.output, factor.name], [name])]
