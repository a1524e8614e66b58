"""Each cause of a disengagement, provoked by a driver who deserves it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from model.policy import PLAN_PERIOD_S, PLAN_POINTS, PLAN_STEP_S, Observation, Plan
from model.rig import THREE_CAMERAS
from simulation import episode
from simulation.episode import Disengagement, Outcome, Perturbation, Supervised, drive, record_expert
from simulation.expert import Obstacles, plan
from simulation.scenarios import BASE, scenes
from simulation.traffic import FAR_M
from simulation.world import World

Driver = Callable[[World], NDArray[np.float32]]
STEPS = np.arange(1, PLAN_POINTS + 1)


def _constant(speed_mps: float) -> Driver:
    def driver(world: World) -> NDArray[np.float32]:
        out = np.zeros((len(world), PLAN_POINTS, 2), np.float32)
        out[:, :, 0] = speed_mps * PLAN_STEP_S * STEPS
        return out

    return driver


def _blind_to(*fields: str) -> Driver:
    """The expert, who does not see some things."""

    def driver(world: World) -> NDArray[np.float32]:
        o = world.obstacles()
        kept = {name: getattr(o, name) for name in Obstacles.__dataclass_fields__}
        kept |= {name: np.full(len(world), FAR_M) for name in fields}
        return plan(world.roads, world.driver(), Obstacles(**kept)).trajectory

    return driver


def _causes(driver: Driver, condition: str = BASE, seconds: float = 40, count: int = 12) -> Counter[str]:
    world = World(scenes({condition: 1}, count, 21, "heldout"), None)
    supervised = Supervised(world)
    out: Counter[str] = Counter()
    for _ in range(round(seconds / PLAN_PERIOD_S)):
        out.update(event.cause for event in supervised.step(driver(world)).disengagements)
    return out


def test_standing_still_is_stuck() -> None:
    causes = _causes(_constant(0.0), seconds=20)
    assert set(causes) == {"stuck"}
    assert causes["stuck"] >= 8


def test_creeping_does_not_evade_stuck() -> None:
    def creep(world: World) -> NDArray[np.float32]:
        trajectory = world.expert().trajectory
        reach = np.linalg.norm(trajectory[:, -1], axis=-1)
        share = np.minimum(1.2 * PLAN_STEP_S * PLAN_POINTS / np.maximum(reach, 1e-3), 1.0)
        return np.asarray(trajectory * share[:, None, None], np.float32)

    assert _causes(creep, seconds=30)["stuck"] >= 8


def test_straight_on_a_curve_is_lateral() -> None:
    causes = _causes(_constant(7.0), seconds=15)
    assert causes["lateral"] >= 8


def test_ignoring_signs_misses_stops() -> None:
    causes = _causes(_blind_to("sign_gap"))
    assert causes["stop_sign"] >= 5
    assert not causes["red_light"]


def test_ignoring_lights_runs_red() -> None:
    causes = _causes(_blind_to("light_gap"), seconds=60, count=24)
    assert causes["red_light"] >= 2
    assert not causes["stop_sign"]


def test_ignoring_the_lead_collides() -> None:
    assert _causes(_blind_to("lead_gap"), seconds=60)["collision"] >= 3


def test_ignoring_cut_ins_collides() -> None:
    assert _causes(_blind_to("cut_in_gap"), "cut_in")["collision"] >= 5


def test_ignoring_people_is_caught_before_they_are_hit() -> None:
    causes = _causes(_blind_to("person_gap"), "pedestrians")
    assert causes["pedestrian"] >= 5
    assert not causes["collision"]


def test_safety_driver_takes_over_recovers_and_gives_back() -> None:
    world = World(scenes({BASE: 1}, 6, 21, "heldout"), None)
    supervised = Supervised(world)
    outcomes: list[Outcome] = [supervised.step(_constant(7.0)(world)) for _ in range(100)]
    event = next(e for o in outcomes for e in o.disengagements)
    engaged = np.array([o.engaged[event.vehicle] for o in outcomes])
    after = round(event.time_s / PLAN_PERIOD_S)
    manual = int(np.argmax(engaged[after:]))
    assert engaged[: after - 1].all()
    assert manual * PLAN_PERIOD_S >= episode.RECOVERY_LEAST_S
    assert manual * PLAN_PERIOD_S <= episode.RECOVERY_MOST_S + PLAN_PERIOD_S
    for outcome in outcomes:
        assert (outcome.metres[~outcome.engaged] == 0).all()
        np.testing.assert_array_equal(outcome.seconds, np.where(outcome.engaged, PLAN_PERIOD_S, 0.0))


class _Slow:
    """A policy that always plans 3 m/s straight ahead."""

    def plan(self, observation: Observation) -> Plan:
        count = len(observation.speed_mps)
        modes = np.zeros((count, 1, PLAN_POINTS, 2), np.float32)
        modes[:, 0, :, 0] = 3.0 * PLAN_STEP_S * STEPS
        return Plan(modes, np.ones((count, 1), np.float32), np.ones_like(modes), np.zeros((count, 2), np.float32))


def test_drive_counts_exposure_by_condition_over_batches() -> None:
    mixed = scenes({BASE: 1, "night": 1}, 6, 4, "heldout")
    shares: list[float] = []
    seen: list[int] = []
    result = drive(
        _Slow(), mixed, THREE_CAMERAS, 6.0, 0, batch=4, progress=shares.append,
        on_frame=lambda world, observation, plan, outcome: seen.append(len(world)),
    )  # fmt: skip
    pooled = result.pooled()
    assert set(result.by_condition) == {BASE, "night"}
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    assert seen == [4] * 30 + [2] * 30
    assert pooled.count == len(result.disengagements)
    assert 0 < pooled.hours <= 6 * 6 / 3600
    assert pooled.km == pytest.approx(sum(e.km for e in result.by_condition.values()))
    assert all(0 <= e.vehicle < 6 for e in result.disengagements)


def test_gravest_cause_names_the_event() -> None:
    assert episode.CAUSES[0] == "collision"
    assert set(episode.CAUSES) == {
        "lateral", "collision", "pedestrian", "stop_sign", "red_light", "stuck",
        "right_of_way", "cyclist", "emergency",
    }  # fmt: skip
    assert Disengagement(0, "stuck", 1.0).cause in episode.CAUSES


def test_recording_is_the_expert_from_disturbed_states() -> None:
    chosen = scenes({BASE: 1}, 4, 4, "train")
    recorded = record_expert(chosen, THREE_CAMERAS, 4.0, 0, batch=3)
    clean = record_expert(chosen, THREE_CAMERAS, 4.0, 0, batch=3, perturb=None)
    assert recorded.images.shape == (80, 3, 48, 96, 3)
    assert sorted(set(recorded.vehicle.tolist())) == [0, 1, 2, 3]
    for row in range(4):
        own = recorded.time_s[recorded.vehicle == row]
        np.testing.assert_allclose(np.diff(own), PLAN_PERIOD_S)
    assert len(recorded.condition) == 80
    assert np.isfinite(recorded.target).all()
    aside = np.abs(recorded.target[recorded.time_s == 0, -1, 1] - clean.target[clean.time_s == 0, -1, 1])
    assert aside.max() > 0.3, "starts beside the lane's middle are steered back"
    assert (recorded.speed_mps[:3] != clean.speed_mps[:3]).all()
    again = record_expert(chosen, THREE_CAMERAS, 4.0, 0, batch=3)
    np.testing.assert_array_equal(recorded.images, again.images)
    np.testing.assert_array_equal(recorded.target, again.target)


def test_strong_disturbance_moves_further_than_a_weak_one() -> None:
    chosen = scenes({BASE: 1}, 4, 4, "train")

    def spread(curvature: float) -> float:
        still = Perturbation(0.0, 0.0, (1.0, 1.0), share=1.0, curvature_per_m=curvature, speed=(1.0, 1.0))
        return float(np.abs(record_expert(chosen, THREE_CAMERAS, 5.0, 0, perturb=still).target[..., 1]).mean())

    assert spread(0.03) > spread(0.0)
