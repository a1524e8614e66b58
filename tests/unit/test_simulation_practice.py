"""Practice: plans are worth what driving them brings, the expert's own most of all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from model.policy import PLAN_POINTS, Observation, Plan
from model.rig import Camera, Rig
from simulation.practice import PLANS, WORTH, Meeting, meet, stops, worth_of
from simulation.scenarios import STOP_LINE, scenes
from simulation.scores.recording import RecordedWorld
from simulation.scores.trace import joined
from simulation.world import World
from tests.unit.score_samples import drive, event, steady

EYE = Rig("eye", (Camera("front", 32, 32, 1.5, 1.6, 0.0, 1.5),))
TIMES_S = 0.3 * np.arange(1, PLAN_POINTS + 1)


class Straight:
    """Goes straight on at the speed it has."""

    def plan(self, observation: Observation) -> Plan:
        count = len(observation.images)
        modes = np.zeros((count, 1, PLAN_POINTS, 2), np.float32)
        modes[:, 0, :, 0] = observation.speed_mps[:, None] * TIMES_S
        return Plan(modes, np.ones((count, 1), np.float32), modes + 1, np.zeros((count, 4), np.float32))


@pytest.fixture(scope="module")
def met() -> Meeting:
    return meet(Straight(), scenes({"base": 1.0}, 6, 4, "train"), EYE, 6.0, 3, every=10)


def experts(met: Meeting) -> NDArray[np.float32]:
    """The expert's plan at each frame, [N, T, 2]."""
    world, done, out = World(met.scenes, None, met.seed), 0, []
    for at in met.at:
        for command in met.commands[done:at]:
            world.obey(command)
        done = at
        out.append(world.expert().trajectory)
    return np.concatenate(out)


def test_frames_are_taken_where_it_was_asked_and_are_what_the_vehicles_saw(met: Meeting) -> None:
    assert met.at == (0, 10, 20)
    assert len(met.observation.images) == 18
    assert met.commands.shape == (30, 2, 6)
    world = World(met.scenes, EYE, met.seed)
    for command in met.commands[:10]:
        world.obey(command)
    seen = world.observe()
    world.close()
    np.testing.assert_array_equal(met.observation.images[6:12], seen.images)
    np.testing.assert_array_equal(met.observation.speed_mps[6:12], seen.speed_mps)


def test_the_experts_plan_is_worth_most_and_folly_little(met: Meeting) -> None:
    expert = experts(met)
    off_road, reckless, standing = (expert.copy() for _ in range(3))
    off_road[..., 1] += 1.5 * TIMES_S**2
    reckless[..., 0], reckless[..., 1] = 14.0 * TIMES_S, 0.0
    standing[:] = 0.0
    worth = met.rewards(np.stack([expert, off_road, reckless, standing], 1))
    assert worth.shape == (18, 4)
    assert ((worth >= 0) & (worth <= 1)).all()
    own, others = worth[:, 0].mean(), worth[:, 1:].mean(0)
    assert own > 0.8
    assert (others < own - 0.15).all()
    assert others[0] < 0.4


def test_the_worth_of_a_plan_does_not_depend_on_its_group(met: Meeting) -> None:
    rng = np.random.default_rng(2)
    plans = experts(met)[:, None] * rng.uniform(0.5, 1.5, (18, 3, 1, 1)).astype(np.float32)
    whole = met.rewards(plans)
    np.testing.assert_array_equal(met.rewards(plans[:, 1:2])[:, 0], whole[:, 1])
    np.testing.assert_array_equal(met.rewards(plans), whole)


def test_a_plan_over_a_stop_line_is_worth_nothing() -> None:
    stop = replace(scenes({"base": 1.0}, 1, 4, "train")[0], limit_mps=11.0)
    stop = replace(stop, line_kind=np.full_like(stop.line_kind, STOP_LINE))
    world = RecordedWorld([stop], None, 1)
    driven = []
    for _ in range(200):
        _, line_s, _ = world.lines.next(world.front_s)
        if line_s[0] - world.front_s[0] < 9.0:
            break
        world.step(world.expert().trajectory)
        driven.append(world.commanded)
    meeting = Meeting((stop,), 1, np.array(driven), (len(driven),), Observation(*(np.zeros(1) for _ in range(4))))  # type: ignore[arg-type]
    through = np.zeros((1, 1, PLAN_POINTS, 2), np.float32)
    through[..., 0] = 6.0 * TIMES_S
    both = np.concatenate([through, world.expert().trajectory[:, None]], 1)
    worth = meeting.rewards(both)
    assert worth[0, 0] == 0.0
    assert worth[0, 1] > 0.8


def test_stop_signs_and_lights_are_gates() -> None:
    assert stops(drive())[0] == 1.0
    assert stops(event(drive(), "missed_stop", 5))[0] == 0.0
    assert {name for name, term in WORTH.items() if term.weight == 0} == {
        "no_collision",
        "drivable",
        "lights",
        "stops",
    }
    assert PLANS == 12


@pytest.mark.parametrize(
    ("speed", "expert_speed", "worth"), [(1.9, 10.0, 0.0), (5.0, 10.0, 9.5 / 12), (0.0, 1.0, 1.0)]
)
def test_standing_where_the_expert_drives_is_worth_nothing(
    speed: float, expert_speed: float, worth: float
) -> None:
    both = joined([drive(steady(speed)), drive(steady(expert_speed))])
    assert worth_of(both, 1, 1)[0, 0] == pytest.approx(worth)


class Remembers(Straight):
    """Sees the instant before too."""

    history = 2


def test_what_was_seen_before_comes_along() -> None:
    met = meet(Remembers(), scenes({"base": 1.0}, 2, 4, "train"), EYE, 0.6, 3, every=2)
    images, past = met.observation.stacked(2)
    assert images.shape[:2] == (4, 2)
    assert not images[:2, 1].any()
    assert np.isnan(past[:2]).all()
    assert images[2:, 1].any()
    assert (past[2:, 0, 0] > 1.0).all()


def test_too_short_a_drive_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        meet(Straight(), scenes({"base": 1.0}, 1, 4, "train"), EYE, 0.05, 3)
