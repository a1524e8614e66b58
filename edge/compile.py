"""From an ONNX checkpoint to the graph that a vehicle runs: fold, quantise, compare, time, decide.

TensorRT engines are not built here: that needs the vehicle's own GPU and driver. The report says so.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from edge.budget import TARGETS, Budget, Figure, Precision, measured_watts, modelled_watts
from edge.give_back import give_back
from edge.meters import find_meter
from edge.quantize import WAYS, Parity, fold, open_session, outputs_of, parity, weighted
from edge.work import Feeds, count_work
from model.policy import Observation
from model.rig import Rig

TRAJECTORY_BOUND_M = 0.25
"""int8 may move no waypoint of the driven plan further than this on any sample: a third of the room that a 1.9 m
wide car has on either side in a 3.5 m lane."""
FOLD_BOUND = 1e-3
"""Folding reorders sums; what is more is a fault, in units of the outputs."""
SEARCH_BOUND = 0.2
"""Share of the bound that a graph may use on the few samples that it is made from: the largest displacement over
thousands of unseen ones is several times as far (docs/adr/0011)."""
SEEN_EVERY = 4
"""Every fourth sample calibrates, searches and times; the others judge, and nothing else."""
SLOWER_BY = 1.1
"""Int8 this much slower than fp32 is not worth shipping. Equal kernels came out at 0.94 to 1.04 on a busy
machine."""
AS_FAST = 1.25
"""Within this factor of the fastest, bytes decide. Wide, so that a noisy machine decides alike."""
WARM_UP = 5
"""Inferences before the timed ones."""
TIMINGS = 3
"""Times that all are timed; the quietest counts: other processes only ever add to a latency."""
TENSORRT = "not built by this version; build on the vehicle or a matching host from the same ONNX"


class CannotCompile(ValueError):
    """The checkpoint or the samples cannot make a bundle: says what is wrong."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one inference of batch 1 on one thread, ms."""

    p50_ms: float
    p99_ms: float
    runs: int
    relative: float = 1.0
    """Median of its time over fp32's of the same round: what else the machine does meets both."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A graph that could be shipped."""

    kind: str
    parity: Parity
    latency: Latency
    bytes: int
    kept: tuple[str, ...] = ()
    """Nodes that were given back to floating point so that the bound holds."""


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
    """Why this one, why not each of the others, and what could not be built."""
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
    runs: int = 200,
) -> Compiled:
    """Write the best graph for a vehicle to `path`.

    `samples`: real inputs of batch 1 (`feeds`), at least 8, of all conditions: a quarter of them calibrates and
    times, the rest judges. Int8 is taken only where no waypoint moves by more than `bound_m` on any sample that
    it was not made from; fp32 where no way is. Raises CannotCompile.
    """
    if hardware not in TARGETS:
        raise CannotCompile(f"hardware {hardware!r} is not declared; edge/budget.py knows {sorted(TARGETS)}")
    if len(samples) < 8:
        raise CannotCompile(f"{len(samples)} samples; calibration and parity need at least 8 real ones")
    seen, unseen = samples[::SEEN_EVERY], [s for n, s in enumerate(samples) if n % SEEN_EVERY]
    model = _load(source)
    onnx.helper.set_model_props(model, {"patch_px": str(_patch_px(model, source)), **_props(model)})
    fp32 = _folded(model, seen)
    made, failures = _quantised(fp32, seen, ways, SEARCH_BOUND * bound_m)
    graphs = {"fp32": fp32} | {kind: graph for kind, (graph, _) in made.items()}
    sessions = {kind: open_session(graph) for kind, graph in graphs.items()}
    timings = [_time(sessions, seen, runs) for _ in range(TIMINGS)]
    latencies = min(timings, key=lambda timed: timed["fp32"].p99_ms)
    original = outputs_of(open_session(model), unseen)
    candidates = {
        kind: Candidate(
            kind,
            parity(original, outputs_of(session, unseen)),
            latencies[kind],
            graphs[kind].ByteSize(),
            tuple(sorted(made[kind][1])) if kind in made else (),
        )
        for kind, session in sessions.items()
    }
    kind, reasons = decide(candidates, bound_m)
    onnx.save(graphs[kind], str(path))
    rate_hz = (budget or Budget()).rate_hz
    watts, target = _power(fp32, seen[0], sessions[kind], kind=kind, hardware=hardware, rate_hz=rate_hz)
    runtime = f"onnxruntime {onnxruntime.__version__}"
    abi = f"{platform.machine()}-{platform.system().lower()}, CPUExecutionProvider"
    notes = (*reasons, *failures, f"tensorrt: {TENSORRT}")
    return Compiled(path, kind, hardware, runtime, abi, candidates, notes, watts, target)


def decide(candidates: Mapping[str, Candidate], bound_m: float) -> tuple[str, tuple[str, ...]]:
    """The kind to ship, and of each why or why not. Pure.

    Of those that hold the bound and are no slower than fp32, and of these those as fast as the fastest, the one
    with the fewest bytes. All measured times are compared with room for noise.
    """
    refused: dict[str, str] = {}
    for kind, candidate in candidates.items():
        largest, relative = candidate.parity.plan_m.largest, candidate.latency.relative
        if kind != "fp32" and not largest <= bound_m:
            refused[kind] = f"moves a waypoint by {largest:.3f} m; at most {bound_m} m"
        elif relative > SLOWER_BY and not _computes_as_fp32(kind):
            refused[kind] = f"takes {relative:.2f} times as long as fp32; at most {SLOWER_BY}"
    fastest = min((k for k in candidates if k not in refused), key=lambda k: candidates[k].latency.relative)
    for kind in candidates.keys() - refused.keys():
        times = candidates[kind].latency.relative / candidates[fastest].latency.relative
        if times > AS_FAST and not (_computes_as_fp32(kind) and _computes_as_fp32(fastest)):
            refused[kind] = f"takes {times:.2f} times as long as {fastest}"
    chosen = min((k for k in candidates if k not in refused), key=lambda k: candidates[k].bytes)
    for kind in candidates.keys() - refused.keys() - {chosen}:
        refused[kind] = f"{candidates[kind].bytes} bytes and no faster than {chosen} of {candidates[chosen].bytes}"
    why_not = (f"{kind}: {refused[kind]}" for kind in candidates if kind in refused)
    return chosen, (_praise(candidates[chosen], candidates["fp32"]), *why_not)


def _computes_as_fp32(kind: str) -> bool:
    """Whether its graph, once opened, is fp32's: what is measured between them is noise, and has no say."""
    return kind == "fp32" or (kind in WAYS and WAYS[kind].precision == "fp32")


def _praise(chosen: Candidate, fp32: Candidate) -> str:
    """What speaks for the graph that ships."""
    if chosen.kind == fp32.kind:
        return f"{chosen.kind}: ships; {chosen.latency.p50_ms:.2f} ms, {chosen.bytes} bytes"
    error = chosen.parity.plan_m
    kept = f"; {len(chosen.kept)} nodes kept in fp32" if chosen.kept else ""
    return (
        f"{chosen.kind}: ships; moves a waypoint by at most {error.largest:.3f} m (p99 {error.p99:.3f} m) on "
        f"{chosen.parity.samples} unseen samples; {chosen.latency.p50_ms:.2f} ms where fp32 takes "
        f"{fp32.latency.p50_ms:.2f} ms; {chosen.bytes} bytes instead of {fp32.bytes}{kept}"
    )


def feeds(observation: Observation, rig: Rig, patch_px: int, history: int = 1) -> list[Feeds]:
    """Graph inputs of batch 1 for each of the B vehicles of an observation, of so many instants. Raises BadRig."""
    rays = rig.rays(patch_px)
    images, past = observation.stacked(history)
    further = {"past": past} if history > 1 else {}
    return [
        {
            "images": images[n : n + 1],
            "rays": rays,
            "speed": observation.speed_mps[n : n + 1].astype(np.float32),
            "yaw_rate": observation.yaw_rate_radps[n : n + 1].astype(np.float32),
            "command": observation.command[n : n + 1].astype(np.int64),
            **{name: array[n : n + 1] for name, array in further.items()},
        }
        for n in range(len(observation.images))
    ]


def patch_px(source: Path) -> int:
    """The patch size of a graph: what its metadata says, else what its input shapes imply. Raises
    CannotCompile."""
    return _patch_px(_load(source), source)


def history(source: Path) -> int:
    """How many instants a graph sees, by its metadata. Raises CannotCompile."""
    text = _props(_load(source)).get("history", "1")
    if not text.isdigit() or not int(text):
        raise CannotCompile(f"{source}: its metadata says history {text!r}, which is no number of instants")
    return int(text)


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


def _folded(model: onnx.ModelProto, samples: Sequence[Feeds]) -> onnx.ModelProto:
    """The graph in floating point, proven to compute what it did."""
    folded = fold(model)
    change = parity(outputs_of(open_session(model), samples), outputs_of(open_session(folded), samples))
    worst = max(e.largest for e in change.outputs.values())
    if not worst <= FOLD_BOUND:
        raise CannotCompile(f"folding changed an output by {worst}; at most {FOLD_BOUND}")
    return folded


_Made = dict[str, tuple[onnx.ModelProto, frozenset[str]]]
"""Kind -> graph and the nodes that it keeps in floating point."""


def _quantised(
    fp32: onnx.ModelProto, seen: Sequence[Feeds], ways: Sequence[str], bound_m: float
) -> tuple[_Made, list[str]]:
    """A graph of each way, and what could not be made. A way is searched for a graph that holds the bound only
    where it could still win: one that is larger than a graph that holds, and no faster, stays whole."""
    made: _Made = {}
    failures: list[str] = []
    smallest = float("inf")
    reference = open_session(fp32)
    original = outputs_of(reference, seen)

    def error_m(graph: onnx.ModelProto) -> float:
        return parity(original, outputs_of(open_session(graph), seen)).plan_m.largest

    for name in ways:
        try:
            whole = WAYS[name].build(fp32, seen, frozenset())
            made[name] = whole, frozenset()
            if whole.ByteSize() >= smallest and not _quicker(open_session(whole), reference, seen):
                continue
            found = give_back(partial(WAYS[name].build, fp32, seen), weighted(fp32), error_m, bound_m)
            made[name] = found or made[name]
            smallest = min(smallest, found[0].ByteSize()) if found else smallest
        except Exception as error:  # whatever a quantiser stumbles over, fp32 still ships
            made.pop(name, None)
            failures.append(f"{name}: could not be made: {type(error).__name__}: {error}"[:500])
    return made, failures


def _quicker(
    session: onnxruntime.InferenceSession, reference: onnxruntime.InferenceSession, samples: Sequence[Feeds]
) -> bool:
    """Whether its speed could outweigh bytes."""
    taken = _time({"reference": reference, "this": session}, samples, 40)
    return AS_FAST * taken["this"].relative < 1


def _time(
    sessions: Mapping[str, onnxruntime.InferenceSession], samples: Sequence[Feeds], runs: int
) -> dict[str, Latency]:
    """Latency of each session, `relative` to the first. They take turns, in an order that rotates, so that a busy
    moment of the machine meets all alike."""
    kinds = list(sessions)
    taken_ms = np.zeros((len(kinds), WARM_UP + runs))
    for run in range(WARM_UP + runs):
        inputs = dict(samples[run % len(samples)])
        for at in np.roll(np.arange(len(kinds)), run):
            start_ns = time.perf_counter_ns()
            sessions[kinds[at]].run(None, inputs)
            taken_ms[at, run] = (time.perf_counter_ns() - start_ns) / 1e6
    warm_ms = taken_ms[:, WARM_UP:]
    p50_ms, p99_ms = np.quantile(warm_ms, [0.5, 0.99], axis=1)
    relative = np.median(warm_ms / warm_ms[0], axis=1)
    return {
        kind: Latency(float(p50_ms[n]), float(p99_ms[n]), runs, float(relative[n])) for n, kind in enumerate(kinds)
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
    precision: Precision = WAYS[kind].precision if kind in WAYS else "fp32"
    target = TARGETS[hardware]
    return modelled_watts(count_work(graph, sample), target, precision, rate_hz), target.origin
