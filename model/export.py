"""A checkpoint as ONNX: one file that any runtime drives with, for any number of vehicles and cameras."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.checkpoint import Checkpoint
from model.network import Network, Output
from model.rig import Rig

INPUTS = ("images", "rays", "speed", "yaw_rate", "command")
OUTPUTS = ("modes", "confidence", "scale", "embedding")
OPSET = 17
_DYNAMIC = {
    "images": {0: "vehicles", 1: "cameras"},
    "rays": {0: "cameras"},
    **{name: {0: "vehicles"} for name in (*INPUTS[2:], *OUTPUTS)},
}
LARGEST_ERROR = 1e-3
"""In units of the outputs (m, probability); float32 kernels differ by about 1e-5."""


class ExportMismatch(RuntimeError):
    """The exported graph does not compute what the checkpoint computes: it must not be shipped."""


class _Graph(nn.Module):
    """What is traced: `Network.plan`, normalisation of pixels and of confidences included."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor, rays: Tensor, speed: Tensor, yaw_rate: Tensor, command: Tensor) -> Output:
        return self.net.plan(images, rays, speed, yaw_rate, command)


def export(checkpoint: Checkpoint, rig: Rig, path: Path) -> float:
    """Writes the ONNX graph, without heads, and returns the largest absolute difference from torch, measured with ONNX
    Runtime on other batch sizes and camera counts than it was traced with. Image size and patches per camera
    are the rig's. Raises ExportMismatch, and then leaves no file."""
    net = checkpoint.without_heads().build()
    model = _trace(net, rig)
    error = parity(model.SerializeToString(), net, rig)
    if not error <= LARGEST_ERROR:
        raise ExportMismatch(f"exported graph differs from torch by {error:.2e}, allowed {LARGEST_ERROR}")
    partial = path.with_name(path.name + ".partial")
    onnx.save(model, str(partial))
    partial.replace(path)
    return error


def _trace(net: Network, rig: Rig) -> onnx.ModelProto:
    """By torch's first exporter: its graph is as fast, and takes 1 s where the newer one takes 14. Whether it is
    right is not taken on trust: `export` compares it with torch."""
    example = tuple(torch.from_numpy(a) for a in example_inputs(net, rig, vehicles=3, cameras=4, seed=0))
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        written = Path(folder) / "traced.onnx"
        torch.onnx.export(
            _Graph(net).eval(),
            example,
            written,
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_axes=_DYNAMIC,
            opset_version=OPSET,
            dynamo=False,
        )
        model: onnx.ModelProto = onnx.load(str(written))
    model.metadata_props.add(key="patch_px", value=str(net.config.patch_px))
    return model


def example_inputs(
    net: Network, rig: Rig, vehicles: int, cameras: int, seed: int
) -> tuple[NDArray[np.generic], ...]:
    """Random inputs in the order of INPUTS for a rig that has `cameras` of this rig's cameras, repeated."""
    rng = np.random.default_rng(seed)
    camera = rig.cameras[0]
    rays = np.resize(rig.rays(net.config.patch_px), (cameras, *rig.rays(net.config.patch_px).shape[1:]))
    size = (vehicles, cameras, camera.height_px, camera.width_px, 3)
    return (
        rng.integers(0, 256, size, dtype=np.uint8),
        rays,
        rng.uniform(0, 15, vehicles).astype(np.float32),
        rng.normal(0, 0.2, vehicles).astype(np.float32),
        rng.integers(0, 4, vehicles, dtype=np.int64),
    )


def parity(graph: bytes, net: Network, rig: Rig) -> float:
    """Largest absolute difference between ONNX Runtime and torch over several batch and camera counts."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    worst = 0.0
    for seed, (vehicles, cameras) in enumerate(((1, 1), (1, len(rig.cameras)), (5, len(rig.cameras)), (2, 6))):
        arrays = example_inputs(net, rig, vehicles, cameras, seed)
        got = session.run(list(OUTPUTS), dict(zip(INPUTS, arrays, strict=True)))
        with torch.inference_mode():
            expected = net.plan(*(torch.from_numpy(a) for a in arrays))
        worst = max(worst, *(float(np.abs(g - e.numpy()).max()) for g, e in zip(got, expected, strict=True)))
    return worst
