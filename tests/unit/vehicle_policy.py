"""A policy as an ONNX graph, made without torch: it plans to go straight on at the speed it is told."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MODES, POINTS, EMBEDDING = 2, 8, 3


def straight_on(patch_px: int | None = 16, patches: int = 18, points: int = POINTS) -> bytes:
    """modes = speed x time along x; scale 0.5; confidence .25, .75; embedding = mean colour of all cameras."""
    ahead = np.zeros((1, MODES, points, 2), np.float32)
    ahead[0, :, :, 0] = np.arange(1, points + 1) * 0.3
    constants: dict[str, np.ndarray] = {
        "ahead": ahead,
        "shape": np.array([-1, 1, 1, 1], np.int64),
        "half": np.full((1, MODES, points, 2), 0.5, np.float32),
        "shares": np.array([[0.25, 0.75]], np.float32),
        "zero": np.array(0, np.float32),
        "flat": np.array([-1, 1], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["speed", "shape"], ["v"]),
        helper.make_node("Mul", ["v", "ahead"], ["modes"]),
        helper.make_node("Mul", ["v", "zero"], ["v0"]),
        helper.make_node("Add", ["v0", "half"], ["scale"]),
        helper.make_node("Reshape", ["v0", "flat"], ["v00"]),
        helper.make_node("Add", ["v00", "shares"], ["confidence"]),
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["embedding"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("ReduceSum", ["rays"], ["unused_rays"]),
        helper.make_node("ReduceSum", ["yaw_rate"], ["unused_yaw"]),
        helper.make_node("Identity", ["command"], ["unused_command"]),
    ]
    real, whole = TensorProto.FLOAT, TensorProto.INT64
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", "C", "H", "W", 3]),
        helper.make_tensor_value_info("rays", real, ["C", patches, 6]),
        helper.make_tensor_value_info("speed", real, ["B"]),
        helper.make_tensor_value_info("yaw_rate", real, ["B"]),
        helper.make_tensor_value_info("command", whole, ["B"]),
    ]
    outputs = [
        helper.make_tensor_value_info("modes", real, ["B", MODES, points, 2]),
        helper.make_tensor_value_info("confidence", real, ["B", MODES]),
        helper.make_tensor_value_info("scale", real, ["B", MODES, points, 2]),
        helper.make_tensor_value_info("embedding", real, ["B", EMBEDDING]),
    ]
    kept = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "straight_on", inputs, outputs, kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if patch_px is not None:
        helper.set_model_props(model, {"patch_px": str(patch_px)})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
