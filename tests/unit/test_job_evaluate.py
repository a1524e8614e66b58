"""Closed-loop evaluation, small: the same driving however it is cut, and never twice."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edge.runtimes.onnx import OnnxPolicy
from jobs.context import Budget
from jobs.errors import StepFailed
from jobs.evaluate.closed_loop import Shard, ShardResult, drive_all, drive_shard, plan_shards, tallies, tally
from jobs.step import no_progress
from model.rig import THREE_CAMERAS
from registry.store import Store
from simulation.scenarios import BASE, CONDITIONS
from tests.job_steps import straight_on


def test_shards_cover_every_condition_and_vehicle_once() -> None:
    shards = plan_shards("g", Budget(vehicles=10, base_factor=2.5, shard_vehicles=4), "code")
    for name in CONDITIONS:
        own = [s for s in shards if s.condition == name]
        seen = [v for s in own for v in range(s.first, s.first + s.vehicles)]
        assert seen == list(range(25 if name == BASE else 10))
    assert len({s.document for s in shards}) == len(shards)
    other = plan_shards("g", Budget(vehicles=10, base_factor=2.5, shard_vehicles=4), "other code")
    assert not {s.document for s in shards} & {s.document for s in other}


def test_tallies_by_hand() -> None:
    two = ShardResult([1.0, 2.0], [0.1, 0.1], [{"lateral": 2}, {}])
    found = tally([two, ShardResult([1.0], [0.1], [{"stuck": 1}])])
    assert (found.causes, found.vehicles) == ({"lateral": 2, "stuck": 1}, 3)
    assert found.km == pytest.approx(4.0)
    assert found.hours == pytest.approx(0.3)
    # 3 events over 4 km: 0.75, 1.5, 0.75 were expected, 2, 0, 1 came.
    assert found.dispersion == pytest.approx((1.25**2 / 0.75 + 1.5 + 0.25**2 / 0.75) / 2)


def test_driving_does_not_depend_on_how_it_is_cut(tmp_path: Path) -> None:
    policy = OnnxPolicy(straight_on(), THREE_CAMERAS)
    whole = drive_shard(policy, Shard("g", "fog", 0, 3, 8.0, 1, ""))
    parts = [drive_shard(policy, Shard("g", "fog", first, 1, 8.0, 1, "")) for first in range(3)]
    assert whole.km == pytest.approx([k for p in parts for k in p.km], rel=1e-5)
    assert whole.causes == [c for p in parts for c in p.causes]
    assert 0.01 < sum(whole.km) < 0.5
    assert sum(sum(c.values()) for c in whole.causes) >= 1  # the road bends, it does not


def test_what_was_driven_is_not_driven_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    graph = store.put(straight_on()).sha256
    shards = [Shard(graph, name, 0, 2, 2.0, 1, "code") for name in ("base", "night", "fog")]
    seen: list[tuple[int, int, str]] = []
    url = str(tmp_path / "store")
    first = drive_all(url, shards, tmp_path, 2, lambda *what: seen.append(what))
    assert [s[:2] for s in seen] == [(1, 3), (2, 3), (3, 3)]
    assert set(tallies(first, graph)) == {"base", "night", "fog"}
    written = {d: store.read(d).version for d in store.documents("evaluations")}
    more = [*shards, Shard(graph, "fog", 2, 1, 2.0, 1, "code")]
    again = drive_all(url, more, tmp_path, 2, no_progress)
    assert {s: again[s] for s in shards} == first
    assert len(store.documents("evaluations")) == len(written) + 1
    policy = OnnxPolicy(straight_on(), THREE_CAMERAS)
    assert again[more[-1]].km == pytest.approx(drive_shard(policy, more[-1]).km, rel=1e-5)


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    graph = store.put(b"no graph").sha256
    shard = Shard(graph, "base", 0, 1, 2.0, 1, "")
    two = [shard, msgspec.structs.replace(shard, first=1)]
    with pytest.raises(StepFailed, match="ONNX Runtime cannot load it"):
        drive_all(str(tmp_path / "store"), two, tmp_path, 2, no_progress)
