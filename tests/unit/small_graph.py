"""A small ONNX graph with the signature of an exported policy, and inputs for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.compile import feeds
from edge.work import Feeds
from model.policy import Observation
from model.rig import Camera, Rig

PATCH_PX = 16
RIG = Rig("two", tuple(Camera(n, 32, 16, 1.2, 1.0, 0.0, 1.5) for n in ("left", "front")))
MODES, WIDTH = 3, 64
PIXELS = 2 * 16 * 32 * 3


def small_graph(seed: int = 0, gain: float = 1.0, metadata: bool = True) -> onnx.ModelProto:
    """images -> products -> modes, confidence, scale, embedding. `gain` scales the trajectory head."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (rng.normal(0, scale / np.sqrt(shape[0]), shape)).astype(np.float32)

    arrays = {
        "w_image": weights(PIXELS, WIDTH),
        "w_rays": weights(6, WIDTH),
        "w_hidden": weights(WIDTH, WIDTH),
        "w_modes": weights(WIDTH, MODES * 16, scale=gain),
        "w_confidence": weights(WIDTH, MODES),
        "byte": np.array(255.0, np.float32),
        "flat": np.array([-1, PIXELS], np.int64),
        "column": np.array([-1, 1], np.int64),
        "as_modes": np.array([-1, MODES, 8, 2], np.int64),
        "half": np.array(0.5, np.float32),
        "all_but_last": np.array([0, 1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["images"], ["pixels"], "cast", to=TensorProto.FLOAT),
        node("Div", ["pixels", "byte"], ["scaled"], "div"),
        node("Reshape", ["scaled", "flat"], ["flat_image"], "flatten"),
        node("MatMul", ["flat_image", "w_image"], ["seen"], "see"),
        node("ReduceMean", ["rays", "all_but_last"], ["mean_ray"], "mean", keepdims=0),
        node("MatMul", ["mean_ray", "w_rays"], ["from_rays"], "look"),
        node("Add", ["seen", "from_rays"], ["both"], "add"),
        node("Reshape", ["speed", "column"], ["speed_column"], "speed_column"),
        node("Reshape", ["yaw_rate", "column"], ["yaw_column"], "yaw_column"),
        node("Cast", ["command"], ["command_float"], "cast_command", to=TensorProto.FLOAT),
        node("Reshape", ["command_float", "column"], ["command_column"], "command_column"),
        node("Sum", ["both", "speed_column", "yaw_column", "command_column"], ["state"], "sum"),
        node("Tanh", ["state"], ["bounded"], "bound"),
        node("MatMul", ["bounded", "w_hidden"], ["hidden"], "think"),
        node("Tanh", ["hidden"], ["embedding"], "embed"),
        node("MatMul", ["embedding", "w_modes"], ["flat_modes"], "draw"),
        node("Reshape", ["flat_modes", "as_modes"], ["modes"], "modes"),
        node("MatMul", ["embedding", "w_confidence"], ["logits"], "judge"),
        node("Softmax", ["logits"], ["confidence"], "softmax", axis=-1),
        node("Abs", ["modes"], ["size"], "abs"),
        node("Add", ["size", "half"], ["scale"], "scale"),
    ]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", 2, 16, 32, 3]),
        helper.make_tensor_value_info("rays", TensorProto.FLOAT, [2, 2, 6]),
        helper.make_tensor_value_info("speed", TensorProto.FLOAT, ["B"]),
        helper.make_tensor_value_info("yaw_rate", TensorProto.FLOAT, ["B"]),
        helper.make_tensor_value_info("command", TensorProto.INT64, ["B"]),
    ]
    shapes = {"modes": [MODES, 8, 2], "confidence": [MODES], "scale": [MODES, 8, 2], "embedding": [WIDTH]}
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", *s]) for n, s in shapes.items()]
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "policy", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if metadata:
        helper.set_model_props(model, {"patch_px": str(PATCH_PX)})
    return model


def some_feeds(count: int = 16, seed: int = 0) -> list[Feeds]:
    rng = np.random.default_rng(seed)
    observation = Observation(
        rng.integers(0, 256, (count, 2, 16, 32, 3), dtype=np.uint8),
        rng.uniform(0, 1, count).astype(np.float32),
        rng.normal(0, 0.1, count).astype(np.float32),
        rng.integers(0, 4, count),
    )
    return feeds(observation, RIG, PATCH_PX)


def save(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, str(path))
    return path
