"""Small steps for tests of the worker, in real processes and with a real store.

`train`, `compile_model` and `evaluate` stand before the real gate, register, sign and promote.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from msgspec import Struct
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge import compile as compiler
from jobs.documents import Compiled, Driven, Evaluated, Tally, Trained
from jobs.naming import GRAPH, open_models
from jobs.step import Step, Work
from model.policy import PLAN_STEP_S, Observation
from model.rig import THREE_CAMERAS
from registry.errors import Retry
from simulation.scenarios import CONDITIONS


class Out(Struct, frozen=True):
    """What each of these steps makes."""

    value: int
    verdict: str = "pass"
    reasons: list[str] = []
    pid: int = 0


def count(work: Work) -> Out:
    """One more than the sum of what it reads; notes that it ran."""
    note(work, "count")
    work.progress(1, 2, "half")
    return Out(1 + sum(v["value"] for v in work.inputs.values()), pid=os.getpid())


def flaky(work: Work) -> Out:
    """Succeeds the third time."""
    if note(work, "flaky") < 3:
        raise Retry("the disk is busy")
    return Out(7)


def broken(work: Work) -> Out:
    """Never succeeds, unless it is repaired."""
    if (work.scratch / "repaired").exists():
        return Out(9)
    raise ValueError("frame 7 of 'c1' is not finite")


def dies(work: Work) -> Out:
    """Is killed from outside the first time, as by a machine without memory."""
    if note(work, "dies") < 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return Out(3)


def refuses(work: Work) -> Out:
    """A verdict."""
    note(work, "refuses")
    return Out(0, "fail", ["worse in fog"])


def sleeps(work: Work) -> Out:
    """Takes long; says who it is first."""
    (work.scratch / "sleeper").write_text(str(os.getpid()))
    time.sleep(60)
    return Out(0)


def note(work: Work, name: str) -> int:
    """Write down that a step ran; how often it has."""
    path: Path = work.scratch / f"{name}.notes"
    with path.open("a") as file:
        file.write("x")
    return len(path.read_text())


def train(work: Work) -> Trained:
    """A run in MLflow and a file: what the real step leaves behind, without learning."""
    run = open_models(work).run(work.fingerprint, work.request.time_ns)
    open_models(work).log(run.id, time_ns=work.request.time_ns, params={"recipe": work.request.recipe})
    return Trained(work.store.put(b"weights of " + work.fingerprint.encode()).sha256, run.id, [], 0, "")


def compile_model(work: Work) -> Compiled:
    """A policy that goes straight on, compiled as any other."""
    source, path = work.scratch / "source.onnx", work.scratch / GRAPH
    source.write_bytes(straight_on())
    seen = compiler.feeds(noise(8), THREE_CAMERAS, 16)
    made = compiler.compile_model(source, seen, path, ways=(), runs=5)
    details = msgspec.to_builtins(replace(made, path=Path()), enc_hook=str)
    sha256 = work.store.put_file(path).sha256
    return Compiled(sha256, path.stat().st_size, "onnxruntime", 0.0, 1.0, 2.0, 20.0, "modelled", details)


def evaluate(work: Work) -> Evaluated:
    """Figures of a drive."""
    tallies = {name: Tally(10.0, 0.4, {"lateral": 12}, 1.0, 24) for name in CONDITIONS}
    return Evaluated(Driven(work.inputs["compile"]["graph"], tallies), None, {}, {})


LIGHT: Mapping[str, Sequence[Step]] = {
    "light": (
        Step("train", "tests.job_steps:train", own_process=True),
        Step("compile", "tests.job_steps:compile_model", ("train",), own_process=True),
        Step("evaluate", "tests.job_steps:evaluate", ("compile",), own_process=True),
        Step("gate", "jobs.gate:gate", ("evaluate", "compile")),
        Step(
            "register",
            "jobs.register:register",
            ("train", "compile", "evaluate", "gate"),
            ends=True,
            own_process=True,
        ),
        Step("sign", "jobs.sign:sign", ("train", "compile", "evaluate", "register"), own_process=True),
        Step("promote", "jobs.register:promote", ("register", "sign"), ends=True, own_process=True),
    )
}
"""A job that registers and releases for real."""


def noise(count: int) -> Observation:
    """What cameras of a broken vehicle see."""
    rng = np.random.default_rng(0)
    zero = np.zeros(count, np.float32)
    images = rng.integers(0, 256, (count, 3, 48, 96, 3), dtype=np.uint8)
    return Observation(images, rng.uniform(0, 9, count).astype(np.float32), zero, np.zeros(count, np.int64))


def straight_on() -> bytes:
    """ONNX of a policy that keeps its speed and steers nowhere, at 3 m/s at least."""
    ahead = np.zeros((1, 1, 8, 2), np.float32)
    ahead[0, 0, :, 0] = PLAN_STEP_S * np.arange(1, 9)
    arrays: dict[str, NDArray[Any]] = {
        "ahead": ahead,
        "shape": np.array([-1, 1, 1, 1], np.int64),
        "least": np.array(3.0, np.float32),
        "half": np.array(0.5, np.float32),
        "zero": np.array(0.0, np.float32),
        "one": np.array(1.0, np.float32),
        "pair": np.array([-1, 1], np.int64),
        "axes": np.array([1, 2], np.int64),
        "all": np.array([1, 2, 3, 4], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Max", ["speed", "least"], ["going"]),
        node("Reshape", ["going", "shape"], ["speeds"]),
        node("Mul", ["speeds", "ahead"], ["modes"]),
        node("Abs", ["modes"], ["size"]),
        node("Add", ["size", "half"], ["scale"]),
        # Every input has a part in it, so that none is optimised away.
        node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        node("ReduceMean", ["pixels", "all"], ["grey"], keepdims=0),
        node("ReduceMean", ["rays"], ["ray"], keepdims=0),
        node("Cast", ["command"], ["wish"], to=TensorProto.FLOAT),
        node("Sum", ["grey", "ray", "wish", "yaw_rate"], ["feeling"]),
        node("Reshape", ["feeling", "pair"], ["embedding"]),
        node("Mul", ["embedding", "zero"], ["nothing"]),
        node("Add", ["nothing", "one"], ["confidence"]),
    ]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", "C", 48, 96, 3]),
        helper.make_tensor_value_info("rays", TensorProto.FLOAT, ["C", "P", 6]),
        helper.make_tensor_value_info("speed", TensorProto.FLOAT, ["B"]),
        helper.make_tensor_value_info("yaw_rate", TensorProto.FLOAT, ["B"]),
        helper.make_tensor_value_info("command", TensorProto.INT64, ["B"]),
    ]
    shapes = {"modes": [1, 8, 2], "confidence": [1], "scale": [1, 8, 2], "embedding": [1]}
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", *s]) for n, s in shapes.items()]
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "straight_on", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"patch_px": "16"})
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
