"""The ONNX graph computes what the checkpoint computes, for any number of vehicles and cameras."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import model.export as export_module
from model.export import INPUTS, OUTPUTS, ExportMismatch, export
from model.open_loop import observation
from model.recipes import quick
from model.rig import THREE_CAMERAS, Rig
from model.torch_policy import TorchPolicy
from model.training import initial
from tests.unit.model_samples import some_samples

CHECKPOINT = initial(quick().network, 0)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    assert export(CHECKPOINT, THREE_CAMERAS, path) < 1e-4
    return path


@pytest.mark.parametrize("cameras", [1, 2, 3])
@pytest.mark.parametrize("vehicles", [1, 17])
def test_onnx_runtime_drives_as_torch_does(graph: Path, cameras: int, vehicles: int) -> None:
    rig = Rig("part", THREE_CAMERAS.cameras[:cameras])
    samples = some_samples(vehicles)
    samples = replace(samples, images=np.ascontiguousarray(samples.images[:, :cameras]))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    rays = rig.rays(CHECKPOINT.network.patch_px)
    inputs = (samples.images, rays, samples.speed_mps, samples.yaw_rate_radps, samples.command)
    got = session.run(list(OUTPUTS), dict(zip(INPUTS, inputs, strict=True)))
    plan = TorchPolicy(CHECKPOINT, rig).plan(observation(samples))
    for ours, theirs in zip(got, (plan.modes, plan.confidence, plan.scale_m, plan.embedding), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_one_file_without_external_data(graph: Path) -> None:
    assert [path.name for path in graph.parent.iterdir()] == ["model.onnx"]


def test_a_graph_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "parity", lambda *_: float("nan"))
    with pytest.raises(ExportMismatch, match="nan"):
        export(CHECKPOINT, THREE_CAMERAS, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
