"""Worlds: deterministic, independent of their batch, and clean under the expert."""

from __future__ import annotations

import numpy as np
import pytest

from model.policy import PLAN_PERIOD_S, PLAN_POINTS, PLAN_STEP_S
from model.rig import THREE_CAMERAS
from simulation.episode import Supervised
from simulation.roads import PERIOD_M
from simulation.scenarios import BASE, CONDITIONS, UNSEEN, Scene, scenes
from simulation.world import World


def _mixed(count: int = 7, seed: int = 2) -> list[Scene]:
    return scenes(dict.fromkeys(CONDITIONS, 1.0), count, seed, "train")


def _straight(count: int, speed_mps: float) -> np.ndarray:
    plan = np.zeros((count, PLAN_POINTS, 2), np.float32)
    plan[:, :, 0] = speed_mps * PLAN_STEP_S * np.arange(1, PLAN_POINTS + 1)
    return plan


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    def run(seed: int) -> tuple[bytes, bytes]:
        with World(_mixed(), THREE_CAMERAS, seed) as world:
            for _ in range(15):
                world.step(world.expert().trajectory)
            return world.observe().images.tobytes(), world.status().x_m.tobytes()

    assert run(0) == run(0)
    assert run(0)[1] != run(1)[1]


def test_a_scene_unfolds_alike_in_any_batch() -> None:
    batch = _mixed()
    together, alone = World(batch, None), World(batch[4:5], None)
    for _ in range(60):
        together.step(together.expert().trajectory)
        alone.step(alone.expert().trajectory)
    assert together.status().x_m[4] == alone.status().x_m[0]
    np.testing.assert_array_equal(together.traffic.car_s[4], alone.traffic.car_s[0])


def test_images_of_a_vehicle_do_not_depend_on_its_batch() -> None:
    batch = _mixed()
    with World(batch, THREE_CAMERAS) as together, World(batch[2:4], THREE_CAMERAS) as pair:
        np.testing.assert_array_equal(together.observe().images[2:4], pair.observe().images)


@pytest.mark.parametrize("condition", list(CONDITIONS))
def test_expert_needs_no_safety_driver(condition: str) -> None:
    world = World(scenes({condition: 1}, 8, 17, "heldout"), None)
    supervised = Supervised(world)
    events = [event for _ in range(150) for event in supervised.step(world.expert().trajectory).disengagements]
    assert events == []
    assert world.travelled_m.mean() > 100, "the expert must get somewhere"
    assert world.travelled_m.min() > 30


def test_expert_obeys_every_rule_somewhere() -> None:
    world = World(scenes(dict.fromkeys(CONDITIONS, 1.0), 28, 1, "train"), None)
    rules: set[int] = set()
    for _ in range(150):
        rules.update(world.expert().rule.tolist())
        world.step(world.expert().trajectory)
    assert rules == set(range(7))


def test_worlds_go_on_beyond_their_period() -> None:
    world = World(scenes({BASE: 1}, 4, 3, "train"), None)
    for _ in range(900):
        world.step(world.expert().trajectory)
    assert world.travelled_m.max() > PERIOD_M
    gap = world.traffic.car_s[:, 2:] - world.s[:, None]
    assert ((gap > -40) & (gap < 300)).all(), "oncoming cars come back"
    assert (np.abs(world.d - world.lane_d) < 0.5).all()


def test_splits_share_no_scene_and_shares_follow_the_mix() -> None:
    train, held = _mixed(70), scenes(dict.fromkeys(CONDITIONS, 1.0), 70, 2, "heldout")
    assert not {s.seed for s in train} & {s.seed for s in held}
    names = [scene.condition.name for scene in train]
    assert {name: names.count(name) for name in CONDITIONS} == dict.fromkeys(CONDITIONS, 10)
    mixed = scenes({BASE: 0.77, "night": 0.23}, 10, 0, "fleet")
    assert sum(scene.condition.name == "night" for scene in mixed) == 2


def test_nothing_unseen_is_in_base() -> None:
    for name in UNSEEN:
        assert name != BASE
    for scene in scenes({BASE: 1}, 40, 5, "train"):
        assert scene.region.side == 1
        assert scene.region.stop_sign == "octagon"
        assert scene.fog_per_m == 0
        assert scene.darkness == 0
        assert scene.condition.pedestrians == 0
        assert scene.condition.cut_ins == 0
    world = World(scenes({BASE: 1}, 16, 5, "train"), None)
    for _ in range(100):
        world.step(world.expert().trajectory)
        tags = world.status().tags
        assert not any(tags[name].any() for name in ("pedestrian", "cut_in", "triangle", "night", "fog"))


def test_tags_name_what_is_near() -> None:
    seen: dict[str, set[str]] = {name: set() for name in CONDITIONS}
    world = World(scenes(dict.fromkeys(CONDITIONS, 1.0), 35, 1, "train"), None)
    for _ in range(190):
        world.step(world.expert().trajectory)
        for tag, where in world.status().tags.items():
            for row in np.flatnonzero(where):
                seen[world.scenes[row].condition.name].add(tag)
    assert "pedestrian" in seen["pedestrians"]
    assert "cut_in" in seen["cut_in"]
    assert "triangle" in seen["triangle"]
    assert "left_hand" in seen["left_hand"]
    assert "triangle" not in seen["left_hand"]
    assert {"sign", "light", "lead", "oncoming"} <= seen["base"]


def test_left_hand_traffic_keeps_left() -> None:
    world = World(scenes({"left_hand": 1}, 3, 1, "train"), None)
    assert (world.lane_d > 0).all()
    assert (world.traffic.car_d[:, 2:] < 0).all(), "oncoming cars are on the other side"


def test_plan_of_known_motion_is_followed() -> None:
    world = World(scenes({BASE: 1}, 2, 3, "train"), None)
    world.motion.speed[:] = 5.0
    world.motion.curvature[:] = 0.0
    before = world.travelled_m.copy()
    world.step(_straight(2, 5.0))
    np.testing.assert_allclose(world.travelled_m - before, 5.0 * PLAN_PERIOD_S, rtol=1e-6)


def test_trajectories_of_wrong_shape_or_value_are_named() -> None:
    world = World(scenes({BASE: 1}, 3, 3, "train"), None)
    with pytest.raises(ValueError, match=r"\(2, 8, 2\).*\(3, 8, 2\)"):
        world.step(_straight(2, 5.0))
    plan = _straight(3, 5.0)
    plan[1, 4, 0] = np.nan
    with pytest.raises(ValueError, match=r"vehicles \[1\]"):
        world.step(plan)


def test_bad_requests_say_what_exists() -> None:
    with pytest.raises(ValueError, match=r"unknown scenario .hail.; known: base, left_hand"):
        scenes({"hail": 1}, 2, 0, "train")
    with pytest.raises(ValueError, match="at least one scene"):
        World([], None)
    with pytest.raises(ValueError, match="weights"):
        scenes({BASE: 0}, 2, 0, "train")
    with pytest.raises(RuntimeError, match="without a rig"):
        World(scenes({BASE: 1}, 1, 0, "train"), None).observe()
