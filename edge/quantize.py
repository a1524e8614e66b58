"""Int8 by ONNX Runtime, in the ways that are worth trying, and how far each is from the original."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from edge.work import Feeds

_PRODUCTS = ["MatMul", "Gemm"]
"""All other operators stay in floating point: with them in int8 the error is four times as large (FACTS)."""


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
    """Of the trajectory that the *original* is most confident of, as both graphs draw it, m."""
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


def int8_dynamic(model: onnx.ModelProto, samples: Sequence[Feeds]) -> onnx.ModelProto:
    """Weights of the matrix products in int8, activations by the range of each inference."""
    return _dynamic(model, [])


def int8_but_heads(model: onnx.ModelProto, samples: Sequence[Feeds]) -> onnx.ModelProto:
    """As int8_dynamic, but the last product before each output stays in floating point."""
    return _dynamic(model, last_products(model))


def int8_static(model: onnx.ModelProto, samples: Sequence[Feeds]) -> onnx.ModelProto:
    """QDQ: weights in int8 per channel, activations by the ranges seen on the samples."""
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
            calibrate_method=CalibrationMethod.MinMax,
            calibration_providers=["CPUExecutionProvider"],
        )
        return _with_metadata(onnx.load(str(target)), model)


WAYS: dict[str, Callable[[onnx.ModelProto, Sequence[Feeds]], onnx.ModelProto]] = {
    "int8-dynamic": int8_dynamic,
    "int8-but-heads": int8_but_heads,
    "int8-static": int8_static,
}
"""Name -> way, in the order in which equals are preferred."""


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
        plans.append(_distance(a["modes"][rows, chosen], b["modes"][rows, chosen]))
        same.append(chosen == b["confidence"].argmax(1))
    return Parity(errors, _error(plans), float(np.concatenate(same).mean()), sum(len(s) for s in same))


def last_products(model: onnx.ModelProto) -> list[str]:
    """Names of the matrix products with constant weights that come last before each output."""
    makers = {output: node for node in model.graph.node for output in node.output}
    constants = {i.name for i in model.graph.initializer}
    found, front, seen = list[str](), [o.name for o in model.graph.output], set[str]()
    while front:
        node = makers.get(front.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in _PRODUCTS and constants & set(node.input):
            found.append(node.name)
        else:
            front.extend(node.input)
    return sorted(found)


def _dynamic(model: onnx.ModelProto, excluded: list[str]) -> onnx.ModelProto:
    with _files(model) as (source, target):
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=_PRODUCTS,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
            extra_options={"MatMulConstBOnly": True},
        )
        return _with_metadata(onnx.load(str(target)), model)


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
