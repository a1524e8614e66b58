"""Laws of roads, chance and planning, whatever the numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.policy import PLAN_POINTS, PLAN_STEP_S
from simulation.arrays import chance, wrap
from simulation.dynamics import (
    MAX_BRAKING,
    MAX_CURVATURE,
    MAX_LATERAL_ACCEL,
    MAX_YAW_RATE,
    Motion,
    advance,
    control,
)
from simulation.meshes import Frames, boxes, join, plates, polygon
from simulation.roads import HARMONICS, PERIOD_M, Roads
from simulation.scenarios import CONDITIONS, scenes

SEEDS = st.integers(0, 2**62)


def _roads(seed: int, count: int = 3) -> Roads:
    rng = np.random.default_rng(seed)
    steepest = [0.30, 0.25, 0.25, 0.22, 0.12, 0.08]
    return Roads(rng.uniform(0, 1, (count, 6)) * steepest, rng.uniform(0, 7, (count, len(HARMONICS))))


@given(SEEDS, st.floats(-2000, 9000), st.floats(-5, 5))
@settings(max_examples=40, deadline=None)
def test_frenet_coordinates_survive_the_round_trip(seed: int, s: float, d: float) -> None:
    roads = _roads(seed)
    there, aside = np.full(3, s), np.full(3, d)
    x, y, _ = roads.pose(there, aside)
    s_again, d_again = roads.project(x, y, there + 1.5)
    np.testing.assert_allclose(s_again, there, atol=0.02)
    np.testing.assert_allclose(d_again, aside, atol=0.02)


@given(SEEDS, st.floats(0, PERIOD_M), st.integers(-3, 9))
@settings(max_examples=30, deadline=None)
def test_a_road_repeats_shifted(seed: int, s: float, turns: int) -> None:
    roads = _roads(seed)
    x, y, heading = roads.pose(np.full(3, s), np.zeros(3))
    x2, y2, heading2 = roads.pose(np.full(3, s + turns * PERIOD_M), np.zeros(3))
    np.testing.assert_allclose(x2 - x, turns * roads.drift[:, 0], atol=1e-3)
    np.testing.assert_allclose(y2 - y, turns * roads.drift[:, 1], atol=1e-3)
    np.testing.assert_allclose(heading2, heading, atol=1e-6)


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_no_road_turns_back_on_itself(seed: int) -> None:
    assert (np.abs(_roads(seed).heading) < np.pi / 2).all()


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_comfortable_speed_never_needs_hard_braking(seed: int) -> None:
    cap = _roads(seed).speed_cap
    braking = (cap[:, :-1] ** 2 - cap[:, 1:] ** 2) / 2 / 0.5
    assert braking.max() < 1.1 + 1e-6


@given(SEEDS, st.integers(-(2**40), 2**40))
@settings(max_examples=50, deadline=None)
def test_chance_depends_on_its_arguments_only_and_is_uniform(seed: int, counter: int) -> None:
    draws = chance(seed, counter, np.arange(4000))
    np.testing.assert_array_equal(draws, chance(np.full(4000, seed), counter, np.arange(4000)))
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.03
    assert not np.array_equal(draws, chance(seed, counter + 1, np.arange(4000)))


@given(st.floats(-50, 50))
def test_wrap_keeps_the_direction(angle: float) -> None:
    wrapped = float(wrap(np.array(angle)))
    assert -np.pi <= wrapped <= np.pi
    np.testing.assert_allclose([np.cos(wrapped), np.sin(wrapped)], [np.cos(angle), np.sin(angle)], atol=1e-9)


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_no_plan_moves_a_vehicle_beyond_its_limits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    plan = rng.normal(0, 20, (4, PLAN_POINTS, 2)).astype(np.float32)
    zero = np.zeros(4)
    motion = Motion(zero, zero, zero, rng.uniform(0, 15, 4), zero, zero)
    for _ in range(12):
        before = motion.speed.copy()
        metres = advance(motion, *control(plan, motion.speed, motion.curvature), 0.1)
        assert (motion.speed >= 0).all()
        assert (metres >= 0).all()
        assert (before - motion.speed <= MAX_BRAKING * 0.1 + 1e-9).all()
        assert (np.abs(motion.curvature) <= MAX_CURVATURE + 1e-9).all()
        mean = (before + motion.speed) / 2
        assert (np.abs(mean * motion.curvature) <= MAX_YAW_RATE + 1e-6).all()
        assert (mean**2 * np.abs(motion.curvature) <= MAX_LATERAL_ACCEL + 1e-6).all()


@given(st.floats(0, 14), st.floats(-1, 1))
def test_an_arc_driven_evenly_is_tracked(speed: float, turn: float) -> None:
    curvature = turn * 0.05
    length = speed * PLAN_STEP_S * np.arange(1, PLAN_POINTS + 1)
    bend = np.maximum(abs(curvature), 1e-9) * np.sign(curvature or 1.0)
    plan = np.stack([np.sin(bend * length) / bend, (1 - np.cos(bend * length)) / bend], -1)[None].astype(
        np.float32
    )
    accel, steered = control(plan, np.array([speed]), np.array([curvature]))
    np.testing.assert_allclose(accel, 0.0, atol=0.05)
    np.testing.assert_allclose(steered, curvature, atol=2e-3)


@given(st.dictionaries(st.sampled_from(list(CONDITIONS)), st.floats(0.01, 9), min_size=1), st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_scenes_come_in_the_number_asked_for(mix: dict[str, float], count: int) -> None:
    names = [scene.condition.name for scene in scenes(mix, count, 3, "fleet")]
    assert len(names) == count
    total = sum(mix.values())
    for name, weight in mix.items():
        assert abs(names.count(name) - count * weight / total) < 1


@given(st.integers(1, 90), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_parts_of_a_mesh_are_all_of_it(count: int, most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, heading, code = rng.uniform(-50, 50, (4, count)).round(1)
    at = Frames(x, y, heading, np.abs(code).round())
    mesh = join([boxes(at, [0, 0, 0], [1, 2, 3], (90, 80, 70)), plates(at, [0, 0, 4], polygon(8, 1.0), (9, 9, 9))])
    parts = mesh.parts(most)
    assert max(map(len, parts)) <= most
    assert sorted(np.concatenate(parts)) == list(range(len(mesh.tile)))
    records, quads = mesh.vertices(parts)
    corners = records["position"][np.concatenate(quads)]
    rows = np.concatenate(parts)
    np.testing.assert_array_equal(corners[..., :3], mesh.corners[rows].astype(np.float32))
    colours = records["colour"][np.concatenate(quads)]
    np.testing.assert_array_equal(colours, np.repeat(mesh.colour[rows].round()[:, None], 4, 1))
    # Each part has its corners to itself, one after the other.
    assert sorted(np.concatenate([np.unique(part) for part in quads])) == list(range(len(records)))
    for part in quads:
        own = np.unique(part)
        assert np.ptp(own) + 1 == len(own) == len({record.tobytes() for record in records[own]})
