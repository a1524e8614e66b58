"""Int8 in the ways that are worth trying, and how far each is from the original (docs/adr/0011)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from edge.budget import Precision
from edge.work import Feeds

_WEIGHTED = ("MatMul", "Gemm", "Conv")
"""Operators whose second input is a matrix of weights."""
_PRODUCTS = ["MatMul"]
"""Computed in int8. All other operators stay in floating point: with them the error is four times as large. Gemm
(the few rows of an ego state) is never worth it."""
_SMALLEST = 1024
"""Numbers. Fewer weights than these save nothing that their scales do not cost."""


@dataclass(frozen=True, slots=True)
class OutputError:
    """How far an output is from the original over all samples, in the output's unit (modes, scale: m)."""

    largest: float
    p99: float
    mean: float


@dataclass(frozen=True, slots=True)
class Parity:
    """A graph against the original on the same inputs."""

    outputs: dict[str, OutputError]
    plan_m: OutputError
    """Displacement of the waypoints of the trajectory that the *original* is most confident of, as both graphs
    draw it, m."""
    same_choice: float
    """Share of samples where both are most confident of the same trajectory."""
    samples: int


def fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with constants folded and dead nodes dropped: the same numbers on every machine."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options = _quiet_options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return _with_metadata(onnx.load(str(path)), model)


def weighted(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes whose weights can be int8, in the graph's order."""
    sizes = {i.name: int(np.prod(i.dims)) for i in model.graph.initializer}
    return [
        n.name
        for n in model.graph.node
        if n.op_type in _WEIGHTED and len(n.input) > 1 and sizes.get(n.input[1], 0) >= _SMALLEST
    ]


def int8_weights(model: onnx.ModelProto, samples: Sequence[Feeds], kept: Collection[str]) -> onnx.ModelProto:
    """Weights stored as int8 with a scale per output, computed with in floating point: Cast and Mul on constants,
    which every runtime folds when it opens the graph. A third of the bytes at fp32's speed."""
    stored = onnx.ModelProto()
    stored.CopyFrom(model)
    constants = {i.name: i for i in stored.graph.initializer}
    candidates = set(weighted(model))
    axes = {n.input[1]: _output_axis(n) for n in stored.graph.node if n.name in candidates}
    for node in stored.graph.node:
        if node.name in kept:
            axes.pop(node.input[1], None)
    unpacking = []
    for name, axis in axes.items():
        numbers, scale = _rounded(numpy_helper.to_array(constants[name]), axis)
        constants[name].CopyFrom(numpy_helper.from_array(numbers, f"{name}_int8"))
        stored.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        unpacking += [
            helper.make_node(
                "Cast", [f"{name}_int8"], [f"{name}_cast"], f"{name}_cast", to=onnx.TensorProto.FLOAT
            ),
            helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name], f"{name}_unpack"),
        ]
    nodes = [*unpacking, *stored.graph.node]
    del stored.graph.node[:]
    stored.graph.node.extend(nodes)
    return stored


def int8_dynamic(model: onnx.ModelProto, samples: Sequence[Feeds], kept: Collection[str]) -> onnx.ModelProto:
    """Matrix products in int8, activations by the range of each inference; other weights as int8_weights. The
    range is the batch's: a plan depends on the vehicles that are computed with it."""
    products = _products(model, kept)
    if not products:
        return int8_weights(model, samples, kept)
    with _files(model) as (source, target):
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=_PRODUCTS,
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=products,
            extra_options={"MatMulConstBOnly": True},
        )
        return int8_weights(_with_metadata(onnx.load(str(target)), model), samples, kept)


def int8_static(model: onnx.ModelProto, samples: Sequence[Feeds], kept: Collection[str]) -> onnx.ModelProto:
    """QDQ: matrix products in int8, activations by the ranges seen on the samples; other weights as
    int8_weights."""
    products = _products(model, kept)
    if not products:
        return int8_weights(model, samples, kept)
    with _files(model) as (source, target):
        quantize_static(
            source,
            target,
            _Samples(samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_PRODUCTS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=products,
            calibrate_method=CalibrationMethod.MinMax,
            calibration_providers=["CPUExecutionProvider"],
        )
        return int8_weights(_with_metadata(onnx.load(str(target)), model), samples, kept)


@dataclass(frozen=True, slots=True)
class Way:
    """How a graph becomes smaller or faster."""

    build: Callable[[onnx.ModelProto, Sequence[Feeds], Collection[str]], onnx.ModelProto]
    """(graph, samples that calibrate, names of the nodes that stay in floating point) -> graph."""
    precision: Precision
    """What its matrix products compute in."""


WAYS: dict[str, Way] = {
    "int8-weights": Way(int8_weights, "fp32"),
    "int8-dynamic": Way(int8_dynamic, "int8"),
    "int8-static": Way(int8_static, "int8"),
}
"""Name -> way, in the order in which they are tried."""


def open_session(model: onnx.ModelProto, threads: int = 1) -> onnxruntime.InferenceSession:
    """A CPU session as the vehicle opens it: all optimisations, a fixed number of threads."""
    options = _quiet_options()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def outputs_of(
    session: onnxruntime.InferenceSession, samples: Sequence[Feeds]
) -> list[dict[str, NDArray[np.generic]]]:
    """Each sample's outputs by name."""
    names = [o.name for o in session.get_outputs()]
    return [dict(zip(names, session.run(names, dict(feeds)), strict=True)) for feeds in samples]


def parity(
    original: Sequence[dict[str, NDArray[np.generic]]], other: Sequence[dict[str, NDArray[np.generic]]]
) -> Parity:
    """How far `other` is from `original`, output by output, and on the trajectory that is driven: modes
    [B, M, T, 2] at the largest confidence [B, M]. Raises ValueError where there is nothing to compare."""
    if not original or len(original) != len(other):
        raise ValueError(f"{len(original)} and {len(other)} samples cannot be compared")
    errors = {
        name: _error([_distance(a[name], b[name]) for a, b in zip(original, other, strict=True)])
        for name in original[0]
    }
    plans, same = [], []
    for a, b in zip(original, other, strict=True):
        chosen = a["confidence"].argmax(1)
        rows = np.arange(len(chosen))
        offset = _distance(a["modes"][rows, chosen], b["modes"][rows, chosen])
        plans.append(np.hypot(offset[..., 0], offset[..., 1]))
        same.append(chosen == b["confidence"].argmax(1))
    return Parity(errors, _error(plans), float(np.concatenate(same).mean()), sum(len(s) for s in same))


def _products(model: onnx.ModelProto, kept: Collection[str]) -> list[str]:
    candidates = set(weighted(model)) - set(kept)
    return [n.name for n in model.graph.node if n.op_type in _PRODUCTS and n.name in candidates]


def _output_axis(node: onnx.NodeProto) -> int:
    """The axis of the weights that counts outputs."""
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return 0 if node.op_type == "Conv" else -1


def _rounded(weights: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 and the scale of each output, shaped to be multiplied with.

    Rounding keeps the sum of each output's weights: the numbers nearest to a tie go the other way until it does.
    Pixels and rectified features have a mean far from zero, on which a shifted sum acts as a shifted bias; so
    kept, the largest displacement is a third to a half smaller."""
    first = np.moveaxis(weights, axis, 0)
    rows = first.reshape(len(first), -1)
    largest = np.abs(rows).max(1, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    error = np.rint(rows / scale) - rows / scale
    excess = np.rint(error.sum(1, keepdims=True))
    rank = np.argsort(np.argsort(-error * np.sign(excess), axis=1, kind="stable"), axis=1, kind="stable")
    numbers = np.rint(rows / scale) - np.where(rank < np.abs(excess), np.sign(excess), 0)
    shaped = np.moveaxis(np.clip(numbers, -127, 127).astype(np.int8).reshape(first.shape), 0, axis)
    return shaped, np.moveaxis(scale.reshape(-1, *[1] * (weights.ndim - 1)), 0, axis)


class _Samples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, samples: Sequence[Feeds]) -> None:
        self._left = iter(samples)

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        feeds = next(self._left, None)
        return None if feeds is None else dict(feeds)


@contextmanager
def _files(model: onnx.ModelProto) -> Iterator[tuple[Path, Path]]:
    """The quantiser works on files, and warns about a pre-processing that `fold` has done."""
    root = logging.getLogger()
    level = root.level
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        plain = onnx.ModelProto()
        plain.CopyFrom(model)
        del plain.graph.value_info[:]  # shapes from before the folding contradict what the quantiser infers
        onnx.save(plain, str(source))
        root.setLevel(logging.ERROR)
        try:
            yield source, target
        finally:
            root.setLevel(level)


def _with_metadata(model: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    present = {p.key for p in model.metadata_props}
    model.metadata_props.extend(p for p in original.metadata_props if p.key not in present)
    return model


def _quiet_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


def _distance(a: NDArray[np.generic], b: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.abs(a.astype(np.float64) - b.astype(np.float64))


def _error(differences: list[NDArray[np.float64]]) -> OutputError:
    every = np.concatenate([d.ravel() for d in differences])
    return OutputError(float(every.max()), float(np.quantile(every, 0.99)), float(every.mean()))
