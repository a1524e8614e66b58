"""A checkpoint as ONNX: one file that any runtime drives with, for any number of vehicles and cameras."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.checkpoint import Checkpoint
from model.config import NetworkConfig
from model.heads import each
from model.network import Network
from model.rig import Rig

INPUTS = ("images", "rays", "speed", "yaw_rate", "command")
PAST = "past"
"""A further input, of networks with a history."""
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
    """What is traced: `Network.plan`, normalisation of pixels and of confidences included, then what heads
    tell."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if not self.net.heads:
            return self.net.plan(*inputs)
        out, _, found = self.net.study(*inputs)
        told = (head.told(found[name]) for name, head in each(self.net.heads))
        return (out.modes, out.confidence.softmax(-1), out.scale_m, out.embedding, *told)


def export(
    checkpoint: Checkpoint, rig: Rig, path: Path, *, heads: Collection[str] = (), depth: int | None = None
) -> float:
    """Writes the ONNX graph and returns the largest absolute difference from torch, measured with ONNX
    Runtime on other batch sizes and camera counts than it was traced with. Image size and patches per camera
    are the rig's. Of the heads only those named are in it, each as one more output; of the latent blocks only the
    first `depth`. Raises ExportMismatch, and then leaves no file, and BadConfig for a depth that is no exit."""
    driving = checkpoint.without_heads(but=heads)
    net = (driving.shallower(depth) if depth else driving).build()
    model = _trace(net, rig)
    error = parity(model.SerializeToString(), net, rig)
    if not error <= LARGEST_ERROR:
        raise ExportMismatch(f"exported graph differs from torch by {error:.2e}, allowed {LARGEST_ERROR}")
    partial = path.with_name(path.name + ".partial")
    onnx.save(model, str(partial))
    partial.replace(path)
    return error


def inputs_of(net: Network) -> tuple[str, ...]:
    """Names of the graph's inputs."""
    return (*INPUTS, PAST) if net.config.history > 1 else INPUTS


def outputs_of(net: Network) -> tuple[str, ...]:
    """Names of the graph's outputs."""
    return (*OUTPUTS, *net.heads)


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
            input_names=inputs_of(net),
            output_names=outputs_of(net),
            dynamic_axes=_dynamic(net),
            opset_version=OPSET,
            dynamo=False,
        )
        model: onnx.ModelProto = onnx.load(str(written))
    model.metadata_props.add(key="patch_px", value=str(net.config.patch_px))
    for name in ("history", "gaps"):
        if getattr(net.config, name) != getattr(NetworkConfig(), name):
            model.metadata_props.add(key=name, value=str(getattr(net.config, name)))
    return model


def _dynamic(net: Network) -> dict[str, dict[int, str]]:
    further = {name: {0: "vehicles"} for name in (*inputs_of(net), *outputs_of(net)) if name not in _DYNAMIC}
    views = {"images": {0: "vehicles", 1: "views"}} if net.config.history > 1 else {}
    return _DYNAMIC | further | views


def example_inputs(
    net: Network, rig: Rig, vehicles: int, cameras: int, seed: int
) -> tuple[NDArray[np.generic], ...]:
    """Random inputs in the order of `inputs_of` for a rig that has `cameras` of this rig's cameras, repeated.
    Where the network may have gaps, they have some."""
    rng = np.random.default_rng(seed)
    camera, earlier = rig.cameras[0], net.config.history - 1
    rays = np.resize(rig.rays(net.config.patch_px), (cameras, *rig.rays(net.config.patch_px).shape[1:]))
    size = (vehicles, cameras * (1 + earlier), camera.height_px, camera.width_px, 3)
    images = rng.integers(0, 256, size, dtype=np.uint8)
    speed, yaw_rate = rng.uniform(0, 15, vehicles), rng.normal(0, 0.2, vehicles)
    command = rng.integers(0, 4, vehicles, dtype=np.int64)
    if not net.config.gaps:
        return images, rays, speed.astype(np.float32), yaw_rate.astype(np.float32), command
    images[rng.random(size[:2]) < 0.2] = 0
    past = rng.uniform(0, 15, (vehicles, earlier, 2))
    for signal in (speed, yaw_rate, past):
        signal[rng.random(signal.shape) < 0.2] = np.nan
    told = (speed.astype(np.float32), yaw_rate.astype(np.float32), command, past.astype(np.float32))
    return (images, rays, *(told if earlier else told[:3]))


def parity(graph: bytes, net: Network, rig: Rig) -> float:
    """Largest absolute difference between ONNX Runtime and torch over several batch and camera counts."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    worst = 0.0
    for seed, (vehicles, cameras) in enumerate(((1, 1), (1, len(rig.cameras)), (5, len(rig.cameras)), (2, 6))):
        arrays = example_inputs(net, rig, vehicles, cameras, seed)
        got = session.run(list(outputs_of(net)), dict(zip(inputs_of(net), arrays, strict=True)))
        with torch.inference_mode():
            expected = _Graph(net)(*(torch.from_numpy(a) for a in arrays))
        worst = max(worst, *(float(np.abs(g - e.numpy()).max()) for g, e in zip(got, expected, strict=True)))
    return worst
