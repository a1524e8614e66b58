"""What an inference does, counted on the graph as it runs: shapes are taken from one real inference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from edge.budget import Work

Feeds = Mapping[str, NDArray[np.generic]]
"""Graph input -> array."""
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "Einsum", "FusedMatMul"})


def count_work(model: onnx.ModelProto, feeds: Feeds) -> Work:
    """The work of one inference on these inputs. `model` is in floating point, not quantised."""
    shapes = _shapes(model, feeds)
    operations, activations = 0.0, 0
    constants = {i.name for i in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in _PRODUCTS:
            continue
        inputs = [shapes[name] for name in node.input if name in shapes]
        output = shapes[node.output[0]]
        operations += 2.0 * _size(output) * _depth(node, inputs)
        activations += _size(output) + sum(
            _size(shapes[n]) for n in node.input if n in shapes and n not in constants
        )
    weights = sum(_size(tuple(i.dims)) for i in model.graph.initializer if len(i.dims) > 0)
    return Work(operations, weights, activations, len(model.graph.node))


def _depth(node: onnx.NodeProto, inputs: list[tuple[int, ...]]) -> int:
    """How many products make one number of the output."""
    if node.op_type == "Conv":
        return _size(inputs[1][1:])
    if node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return inputs[0][0] if transposed else inputs[0][1]
    return inputs[0][-1]


def _shapes(model: onnx.ModelProto, feeds: Feeds) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor: the graph is run once with all of them as outputs."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    outputs = {o.name for o in probe.graph.output}
    names = [name for node in probe.graph.node for name in node.output if name and name not in outputs]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    every = [*outputs, *names]
    found = {n: tuple(np.shape(v)) for n, v in zip(every, session.run(every, dict(feeds)), strict=True)}
    found.update({i.name: tuple(i.dims) for i in model.graph.initializer})
    found.update({name: value.shape for name, value in feeds.items()})
    return found


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
