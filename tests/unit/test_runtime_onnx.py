"""A policy by ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge.runtimes.onnx import BadModel, OnnxPolicy
from model.policy import Observation, Policy
from model.rig import THREE_CAMERAS, Rig
from tests.unit.vehicle_policy import straight_on

ROOT = Path(__file__).resolve().parents[2]
ONE_CAMERA = Rig("one", THREE_CAMERAS.cameras[:1])


def observation(vehicles: int, cameras: int) -> Observation:
    images = np.full((vehicles, cameras, 48, 96, 3), 7, np.uint8)
    speed = np.arange(vehicles, dtype=np.float32) + 1
    return Observation(images, speed, np.zeros(vehicles, np.float32), np.zeros(vehicles, np.int64))


@pytest.mark.parametrize(("rig", "vehicles"), [(THREE_CAMERAS, 1), (THREE_CAMERAS, 5), (ONE_CAMERA, 2)])
def test_plans_for_any_number_of_vehicles_and_cameras(rig: Rig, vehicles: int) -> None:
    policy: Policy = OnnxPolicy(straight_on(), rig)
    plan = policy.plan(observation(vehicles, len(rig.cameras)))
    assert plan.modes.shape == (vehicles, 2, 8, 2) and plan.embedding.shape == (vehicles, 3)
    assert plan.best[:, -1, 0] == pytest.approx(2.4 * (np.arange(vehicles) + 1))
    assert plan.best_scale_m == pytest.approx(np.full((vehicles, 8, 2), 0.5))
    assert plan.embedding[0] == pytest.approx([7, 7, 7])


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(straight_on())
    assert OnnxPolicy(path, THREE_CAMERAS).patch_px == 16


def test_a_graph_without_metadata_tells_by_its_rays() -> None:
    assert OnnxPolicy(straight_on(patch_px=None), THREE_CAMERAS).patch_px == 16


def test_one_thread_and_no_torch() -> None:
    code = (
        "import sys, edge.runtimes.onnx, edge.drive_log, edge.sources.world, edge.agent.main;"
        "bad = {'torch', 'mlflow', 'faust', 'simulation', 'jobs', 'fleet'} & set(sys.modules); print(bad);"
        "sys.exit(bool(bad))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    options = OnnxPolicy(straight_on(), THREE_CAMERAS)._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


@pytest.mark.parametrize("data", [b"", b"no model", straight_on()[:200], straight_on()[:-300]])
def test_bytes_that_are_no_model(data: bytes) -> None:
    with pytest.raises(BadModel, match="cannot load it"):
        OnnxPolicy(data, THREE_CAMERAS)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="no such file"):
        OnnxPolicy(tmp_path / "none.onnx", THREE_CAMERAS)


def test_a_model_that_is_no_policy() -> None:
    model = onnx.load_from_string(straight_on())
    model.graph.output.pop()
    with pytest.raises(BadModel, match="a policy takes"):
        OnnxPolicy(model.SerializeToString(), THREE_CAMERAS)


def test_a_model_with_other_plans() -> None:
    with pytest.raises(BadModel, match="must give"):
        OnnxPolicy(straight_on(points=6), THREE_CAMERAS)


def test_a_model_for_another_rig() -> None:
    with pytest.raises(BadModel, match="does not run on rig 'three-96x48'"):
        OnnxPolicy(straight_on(patches=72), THREE_CAMERAS)
    with pytest.raises(BadModel, match="do not tile"):
        OnnxPolicy(straight_on(patch_px=20), THREE_CAMERAS)


def test_a_nonsensical_patch_size() -> None:
    model = onnx.load_from_string(straight_on(patch_px=None))
    onnx.helper.set_model_props(model, {"patch_px": "-3"})
    with pytest.raises(BadModel, match="patch_px is '-3'"):
        OnnxPolicy(model.SerializeToString(), THREE_CAMERAS)


def test_a_reversed_image_is_taken_as_it_is_seen() -> None:
    seen = observation(1, 3)
    flipped = replace(seen, images=seen.images[:, :, ::-1])
    assert OnnxPolicy(straight_on(), THREE_CAMERAS).plan(flipped).embedding[0] == pytest.approx([7, 7, 7])
