"""From an ONNX checkpoint to the graph that a vehicle runs: fold, quantise, compare, time, decide.

TensorRT engines are not built here: that needs the vehicle's own GPU and driver. The report says so.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from edge.budget import TARGETS, Budget, Figure, Precision, measured_watts, modelled_watts
from edge.meters import find_meter
from edge.quantize import WAYS, Parity, fold, open_session, outputs_of, parity
from edge.work import Feeds, count_work
from model.policy import Observation
from model.rig import Rig

TRAJECTORY_BOUND_M = 0.25
"""int8 may move no waypoint of the driven plan further than this on any sample: a third of the room that a 1.9 m
wide car has on either side in a 3.5 m lane."""
FOLD_BOUND = 1e-3
"""Folding reorders sums; what is more is a fault, in units of the outputs."""
SLOWER_BY = 1.5
"""A candidate this much slower than another is passed over. Wide, so that a noisy machine decides alike."""
TENSORRT = "not built by this version; build on the vehicle or a matching host from the same ONNX"


class CannotCompile(ValueError):
    """The checkpoint or the samples cannot make a bundle: says what is wrong."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one inference of batch 1 on one thread, ms."""

    p50_ms: float
    p99_ms: float
    runs: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A graph that could be shipped."""

    kind: str
    parity: Parity
    latency: Latency
    bytes: int


@dataclass(frozen=True, slots=True)
class Compiled:
    """The graph that is shipped, and why."""

    path: Path
    kind: str
    """"fp32" or a key of quantize.WAYS."""
    hardware: str
    runtime: str
    abi: str
    candidates: dict[str, Candidate]
    reasons: tuple[str, ...]
    """Why each of the others was not taken, and what could not be built."""
    watts: Figure
    target: str
    """The origin of a modelled figure; the meter of a measured one."""

    @property
    def chosen(self) -> Candidate:
        """The candidate that is shipped."""
        return self.candidates[self.kind]


def compile_model(
    source: Path,
    samples: Sequence[Feeds],
    path: Path,
    *,
    hardware: str = "cpu-x86-64",
    budget: Budget | None = None,
    bound_m: float = TRAJECTORY_BOUND_M,
    ways: Sequence[str] = tuple(WAYS),
    runs: int = 100,
) -> Compiled:
    """Write the best graph for a vehicle to `path`.

    `samples`: real inputs of batch 1 (`feeds`), at least 8: they calibrate, judge and time. Int8 is taken only
    where no waypoint moves by more than `bound_m`; fp32 where no way is. Raises CannotCompile.
    """
    if hardware not in TARGETS:
        raise CannotCompile(f"hardware {hardware!r} is not declared; edge/budget.py knows {sorted(TARGETS)}")
    if len(samples) < 8:
        raise CannotCompile(f"{len(samples)} samples; calibration and parity need at least 8 real ones")
    model = _load(source)
    onnx.helper.set_model_props(model, {"patch_px": str(_patch_px(model, source)), **_props(model)})
    graphs, original, reasons = _graphs(model, samples, ways)
    sessions = {kind: open_session(graph) for kind, graph in graphs.items()}
    latencies = _time(sessions, samples, runs)
    candidates = {
        kind: Candidate(
            kind, parity(original, outputs_of(sessions[kind], samples)), latencies[kind], graph.ByteSize()
        )
        for kind, graph in graphs.items()
    }
    kind, refused = decide(candidates, bound_m)
    onnx.save(graphs[kind], str(path))
    rate_hz = (budget or Budget()).rate_hz
    watts, target = _power(
        graphs["fp32"], samples[0], sessions[kind], kind=kind, hardware=hardware, rate_hz=rate_hz
    )
    runtime = f"onnxruntime {onnxruntime.__version__}"
    abi = f"{platform.machine()}-{platform.system().lower()}, CPUExecutionProvider"
    notes = (*reasons, *refused, f"tensorrt: {TENSORRT}")
    return Compiled(path, kind, hardware, runtime, abi, candidates, notes, watts, target)


def decide(candidates: Mapping[str, Candidate], bound_m: float) -> tuple[str, tuple[str, ...]]:
    """The kind to ship and why not the others. Pure. Of what holds the bound: int8 before fp32, as ordered.

    Only where there are several ways of int8 does time have a say: nothing is taken that is clearly slower than
    another. One way is judged by its parity alone, so that equal graphs end alike on any machine, however busy.
    """
    reasons, sound, timed = [], ["fp32"], len(candidates) > 2
    for kind in (k for k in candidates if k != "fp32"):
        largest = candidates[kind].parity.plan_m.largest
        if largest <= bound_m:
            sound.append(kind)
        else:
            reasons.append(f"{kind}: moves a waypoint by {largest:.3f} m; at most {bound_m} m")
    fastest = min(candidates[k].latency.p50_ms for k in sound)
    quick = []
    for kind in sound:
        p50_ms = candidates[kind].latency.p50_ms
        if not timed or p50_ms <= SLOWER_BY * fastest:
            quick.append(kind)
        else:
            reasons.append(f"{kind}: {p50_ms:.2f} ms, where another takes {fastest:.2f} ms")
    chosen = next((k for k in quick if k != "fp32"), "fp32")
    why = "is as fast" if timed else "holds the bound"
    reasons += [f"{k}: {chosen} {why} and comes before it" for k in quick if k != chosen]
    return chosen, tuple(reasons)


def feeds(observation: Observation, rig: Rig, patch_px: int) -> list[Feeds]:
    """Graph inputs of batch 1 for each of the B vehicles of an observation. Raises BadRig."""
    rays = rig.rays(patch_px)
    return [
        {
            "images": observation.images[n : n + 1],
            "rays": rays,
            "speed": observation.speed_mps[n : n + 1].astype(np.float32),
            "yaw_rate": observation.yaw_rate_radps[n : n + 1].astype(np.float32),
            "command": observation.command[n : n + 1].astype(np.int64),
        }
        for n in range(len(observation.images))
    ]


def patch_px(source: Path) -> int:
    """The patch size of a graph: what its metadata says, else what its input shapes imply. Raises
    CannotCompile."""
    return _patch_px(_load(source), source)


def _patch_px(model: onnx.ModelProto, source: Path) -> int:
    for prop in model.metadata_props:
        if prop.key == "patch_px":
            return int(prop.value)
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    try:
        (_, _, height, width, _), (_, patches, _) = shapes["images"], shapes["rays"]
        size = math.isqrt(height * width // patches)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise CannotCompile(f"{source} does not say its patch size: metadata_props needs patch_px") from error
    if size < 1 or size * size * patches != height * width:
        raise CannotCompile(f"{source}: {patches} square patches do not tile {width}x{height} px")
    return size


def _load(source: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(source))
        onnx.checker.check_model(model)
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise CannotCompile(f"{source} is not a usable ONNX file: {error}") from error
    except Exception as error:  # protobuf has its own DecodeError
        if type(error).__name__ != "DecodeError":
            raise
        raise CannotCompile(f"{source} is not an ONNX file: {error}") from error
    return model


def _props(model: onnx.ModelProto) -> dict[str, str]:
    return {p.key: p.value for p in model.metadata_props}


def _graphs(
    model: onnx.ModelProto, samples: Sequence[Feeds], ways: Sequence[str]
) -> tuple[dict[str, onnx.ModelProto], list[dict[str, NDArray[np.generic]]], list[str]]:
    """The graphs by kind, the unchanged graph's outputs, and what could not be made."""
    original = outputs_of(open_session(model), samples)
    graphs, reasons = {"fp32": fold(model)}, []
    folded = parity(original, outputs_of(open_session(graphs["fp32"]), samples))
    worst = max(e.largest for e in folded.outputs.values())
    if not worst <= FOLD_BOUND:
        raise CannotCompile(f"folding changed an output by {worst}; at most {FOLD_BOUND}")
    for way in ways:
        try:
            graphs[way] = WAYS[way](graphs["fp32"], samples)
            open_session(graphs[way])
        except Exception as error:  # whatever a quantiser stumbles over, fp32 still ships
            graphs.pop(way, None)
            reasons.append(f"{way}: could not be made: {type(error).__name__}: {error}"[:500])
    return graphs, original, reasons


def _time(
    sessions: Mapping[str, onnxruntime.InferenceSession], samples: Sequence[Feeds], runs: int
) -> dict[str, Latency]:
    """Latency of each session; they take turns, so that a busy moment of the machine meets all alike."""
    taken_ms: dict[str, list[float]] = {kind: [] for kind in sessions}
    for run in range(-5, runs):
        inputs = dict(samples[run % len(samples)])
        for kind, session in sessions.items():
            start_ns = time.perf_counter_ns()
            session.run(None, inputs)
            if run >= 0:
                taken_ms[kind].append((time.perf_counter_ns() - start_ns) / 1e6)
    return {
        kind: Latency(float(np.quantile(ms, 0.5)), float(np.quantile(ms, 0.99)), runs)
        for kind, ms in taken_ms.items()
    }


def _power(
    graph: onnx.ModelProto,
    sample: Feeds,
    session: onnxruntime.InferenceSession,
    *,
    kind: str,
    hardware: str,
    rate_hz: float,
) -> tuple[Figure, str]:
    """Measured where this machine is of the hardware's kind and has a meter, else modelled."""
    here = hardware == "cpu-x86-64" and platform.machine() == "x86_64"
    if here and (meter := find_meter(gpu=False)):
        return measured_watts(meter, lambda: session.run(None, dict(sample)), rate_hz), meter.name
    precision: Precision = "fp32" if kind == "fp32" else "int8"
    target = TARGETS[hardware]
    return modelled_watts(count_work(graph, sample), target, precision, rate_hz), target.origin
