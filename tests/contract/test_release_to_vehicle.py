"""What the build side compiles, bundles and signs is what a vehicle fetches, unpacks and drives with."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from edge.agent.bundles import MODEL, BadBundle, unpack
from edge.agent.tuf_source import TufSource, Unavailable
from edge.bundle import build_bundle
from edge.compile import compile_model
from edge.quantize import open_session
from edge.runtimes.onnx import OnnxPolicy
from model.policy import Observation
from registry.releases import Published, ReleaseCard, Releases
from tests.unit.small_graph import RIG, save, small_graph, some_feeds

HARDWARE = "cpu-x86-64"


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    releases = Releases(tmp_path / "repository", tmp_path / "keys")
    releases.create(time.time_ns())
    return releases


@pytest.fixture
def vehicle(releases: Releases, tmp_path: Path) -> TufSource:
    return TufSource(tmp_path / "vehicle", (tmp_path / "repository").as_uri(), releases.trusted_root())


def release(releases: Releases, tmp_path: Path, seed: int) -> Published:
    source = save(small_graph(seed), tmp_path / f"checkpoint-{seed}.onnx")
    compiled = compile_model(source, some_feeds(), tmp_path / f"model-{seed}.onnx", runs=5)
    path = tmp_path / f"bundle-{seed}.zip"
    build_bundle(compiled, path, model_version=f"driver-{seed}", rig=asdict(RIG))
    card = ReleaseCard(f"{seed:064x}", HARDWARE, f"driver-{seed}", watts=compiled.watts.value)
    return releases.publish(path, card, time.time_ns())


def test_a_vehicle_drives_with_what_was_compiled(releases: Releases, vehicle: TufSource, tmp_path: Path) -> None:
    published = release(releases, tmp_path, 1)
    manifest, _ = unpack(vehicle.fetch(published.release, HARDWARE), tmp_path / "slot", HARDWARE)
    assert manifest.model_version == "driver-1"
    inputs = some_feeds(1)[0]
    observation = Observation(inputs["images"], inputs["speed"], inputs["yaw_rate"], inputs["command"])  # type: ignore[arg-type]
    plan = OnnxPolicy(tmp_path / "slot" / MODEL, RIG).plan(observation)
    expected = open_session(small_graph(1)).run(["modes"], dict(inputs))[0]
    assert np.abs(plan.modes - expected).max() < 0.25


def test_a_vehicle_follows_release_after_release(releases: Releases, vehicle: TufSource, tmp_path: Path) -> None:
    for seed in (1, 2):
        published = release(releases, tmp_path, seed)
        assert unpack(vehicle.fetch(published.release, HARDWARE), tmp_path / f"slot-{seed}", HARDWARE)
    assert published.release.version == 2


def test_a_vehicle_takes_no_release_for_other_hardware_and_no_changed_bytes(
    releases: Releases, vehicle: TufSource, tmp_path: Path
) -> None:
    published = release(releases, tmp_path, 1)
    with pytest.raises(BadBundle, match="hardware"):
        vehicle.fetch(published.release, "orin-agx-64")
    (kept,) = releases.targets.rglob("*.zip")
    kept.write_bytes(b"evil" + kept.read_bytes()[4:])
    with pytest.raises(Unavailable):
        vehicle.fetch(published.release, HARDWARE)
