"""Laws of scores, whatever was driven: where they lie, what they do not depend on, and which way they go."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simulation.arrays import Floats
from simulation.scores import boxes, carla, comfort, nuplan, pdm, rater, rss
from simulation.scores.boxes import Boxes
from simulation.scores.collisions import collisions, contacts
from simulation.scores.suites import Resampling, mean
from simulation.scores.terms import Scored, Term, combined
from simulation.scores.time_to_collision import foreseen, times_s
from simulation.scores.trace import STATIC, STEP_S, Body, Ego, Events, Others, Place, Trace, apply, joined
from simulation.scores.tracking import State, follow

SEEDS = st.integers(0, 2**32)
few = settings(max_examples=30, deadline=None)


def trace(seed: int, drives: int = 4, steps: int = 41, places: int = 3) -> Trace:
    """Drives through thick traffic, with something broken in most of them."""
    rng = np.random.default_rng(seed)
    shape, slots = (drives, steps), (drives, steps, places)
    t = STEP_S * np.arange(steps)
    speed = rng.uniform(0, 12, (drives, 1)) + np.cumsum(rng.normal(0, 0.2, shape), 1)
    speed *= rng.uniform(size=(drives, 1)) < 0.9
    yaw_rate = rng.uniform(-0.3, 0.3, (drives, 1)) + np.zeros(shape)
    heading = rng.uniform(-3, 3, (drives, 1)) + yaw_rate * t
    x = rng.uniform(-5, 5, (drives, 1)) + np.cumsum(speed * np.cos(heading), 1) * STEP_S
    y = rng.uniform(-5, 5, (drives, 1)) + np.cumsum(speed * np.sin(heading), 1) * STEP_S
    ego = Ego(x, y, heading, speed, np.gradient(speed, STEP_S, axis=1), yaw_rate)

    def each(low: float, high: float) -> Floats:
        return rng.uniform(low, high, (drives, 1, places)) + np.zeros(slots)

    other_speed = each(-2, 12) * (rng.uniform(size=(drives, 1, places)) < 0.7)
    other_heading = each(-3, 3)
    other_x = each(-20, 20) + other_speed * np.cos(other_heading) * t[:, None]
    other_y = each(-20, 20) + other_speed * np.sin(other_heading) * t[:, None]
    others = Others(
        rng.uniform(size=(drives, 1, places)) + np.zeros(slots) < 0.8,
        (np.arange(steps)[:, None] > rng.integers(0, 80, (drives, 1, places))).astype(np.int64),
        rng.integers(0, 4, (drives, 1, places)) + np.zeros(slots, np.int64),
        *(other_x, other_y, other_heading, other_speed, each(0.5, 6), each(0.5, 2.5)),
        *(each(-40, 40) + other_speed * t[:, None], each(-4, 4), each(-3, 3)),
    )

    def flag(share: float) -> np.ndarray:
        return np.asarray(rng.uniform(size=shape) < share * rng.integers(0, 2, (drives, 1)))

    place = Place(
        np.cumsum(speed, 1) * STEP_S,
        rng.normal(0, 0.5, (drives, 1)) + np.zeros(shape),
        rng.normal(0, 0.1, shape),
        rng.normal(-1.5, 0.6, (drives, 1)) + np.zeros(shape),
        *(flag(0.5), flag(0.3), flag(0.3)),
        np.full(shape, 9.0),
    )
    events = Events(flag(0.01), flag(0.01), flag(0.01), flag(0.01))
    return Trace(ego, others, place, events, rng.uniform(10, 60, drives))


def scores(drive: Trace, expert: Trace) -> dict[str, Scored]:
    return {
        "pdms": pdm.pdms(drive, expert),
        "epdms": pdm.epdms(drive, expert),
        "nuplan": nuplan.closed_loop(drive, expert),
        "carla": carla.routes(drive),
        "rss": Scored(rss.shares(drive), np.zeros(len(drive))),
    }


def assert_same(first: dict[str, Scored], second: dict[str, Scored]) -> None:
    for name, scored in first.items():
        np.testing.assert_allclose(scored.score, second[name].score, atol=1e-6, err_msg=name)
        for term, values in scored.terms.items():
            np.testing.assert_allclose(values, second[name].terms[term], atol=1e-6, err_msg=f"{name}.{term}")


def moved(drive: Trace, x: float, y: float, turn: float) -> Trace:
    """The whole world elsewhere, seen from elsewhere."""

    def elsewhere(record: Ego | Others) -> dict[str, Any]:
        c, s = np.cos(turn), np.sin(turn)
        return {
            "x_m": record.x_m * c - record.y_m * s + x,
            "y_m": record.x_m * s + record.y_m * c + y,
            "heading_rad": record.heading_rad + turn,
        }

    return replace(
        drive,
        ego=replace(drive.ego, **elsewhere(drive.ego)),
        others=replace(drive.others, **elsewhere(drive.others)),
    )


@given(SEEDS)
@few
def test_scores_and_terms_are_in_range(seed: int) -> None:
    for scored in scores(trace(seed), trace(seed + 1)).values():
        for values in (scored.score, *scored.terms.values()):
            assert ((values >= 0) & (values <= 1) | np.isnan(values)).all()
        assert np.isfinite(scored.score).all()


@given(SEEDS, st.floats(-1000, 1000), st.floats(-1000, 1000), st.floats(-7, 7))
@few
def test_where_the_world_is_does_not_matter(seed: int, x: float, y: float, turn: float) -> None:
    drive, expert = trace(seed), trace(seed + 1)
    assert_same(scores(drive, expert), scores(moved(drive, x, y, turn), moved(expert, -y, x, -turn)))


@given(SEEDS)
@few
def test_the_order_of_road_users_does_not_matter(seed: int) -> None:
    drive, expert = trace(seed), trace(seed + 1)
    order = np.random.default_rng(seed).permutation(3)
    shuffled = replace(drive, others=apply(drive.others, lambda c: c[..., order]))
    assert_same(scores(drive, expert), scores(shuffled, expert))


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_drives_are_scored_each_by_itself(seed: int) -> None:
    parts = [(trace(seed + i, 1), trace(seed + 9 + i, 1)) for i in range(3)]
    together = scores(joined([d for d, _ in parts]), joined([e for _, e in parts]))
    for i, (drive, expert) in enumerate(parts):
        for name, scored in scores(drive, expert).items():
            np.testing.assert_allclose(scored.score, together[name].score[i : i + 1], err_msg=name)


@given(SEEDS)
@few
def test_the_absent_do_not_matter(seed: int) -> None:
    drive, expert = trace(seed), trace(seed + 1)
    gone = ~drive.others.present
    hidden = {f.name: getattr(drive.others, f.name) for f in fields(Others)}
    for name in ("x_m", "y_m", "heading_rad", "speed_mps", "s_m", "d_m", "course_rad", "length_m", "width_m"):
        hidden[name] = np.where(gone, np.nan, hidden[name])
    assert_same(scores(drive, expert), scores(replace(drive, others=Others(**hidden)), expert))


@given(SEEDS)
@few
def test_one_more_road_user_makes_nothing_better(seed: int) -> None:
    drive = trace(seed)
    alone = replace(drive, others=apply(drive.others, lambda c: c[..., :2]))
    for worse, better in ((pdm.no_collision(drive), pdm.no_collision(alone)), (times_s(drive), times_s(alone))):
        assert (worse <= better).all()
    assert (foreseen(drive) >= foreseen(alone)).all()
    assert (nuplan.no_collision(drive) <= nuplan.no_collision(alone)).all()
    assert (carla.routes(drive).score <= carla.routes(alone).score).all()


@given(SEEDS)
@few
def test_objects_are_hit_more_lightly_than_road_users(seed: int) -> None:
    drive = trace(seed)
    things = replace(drive, others=replace(drive.others, kind=np.full_like(drive.others.kind, STATIC)))
    moving = replace(things, others=replace(things.others, kind=np.zeros_like(drive.others.kind)))
    hit = contacts(drive).any((1, 2))
    assert (pdm.no_collision(things)[~hit] == 1).all()
    fast = np.abs(drive.ego.speed_mps).min(1) > 0.05
    # What stands is never to blame for being hit; what drives may be.
    assert (pdm.no_collision(things)[fast & hit] == 0.5).all()
    assert (pdm.no_collision(moving)[~hit] == 1).all()


@given(SEEDS, st.sampled_from(["pdms", "epdms", "nuplan"]), st.floats(0, 1))
@few
def test_each_term_counts_upwards(seed: int, name: str, better: float) -> None:
    table: dict[str, Term] = {"pdms": pdm.PDMS, "epdms": pdm.EPDMS, "nuplan": nuplan.NUPLAN}[name]
    rng = np.random.default_rng(seed)
    terms = {term: rng.uniform(0, 1, 3) for term in table}
    before = combined(table, terms).score
    for term in table:
        after = combined(table, terms | {term: terms[term] + better * (1 - terms[term])}).score
        assert (after >= before - 1e-12).all()
    assert (combined(table, {term: np.ones(3) for term in table}).score == 1).all()


@given(SEEDS)
@few
def test_forgiving_never_costs(seed: int) -> None:
    drive, expert = trace(seed), trace(seed + 1)
    own = {name: term.of(drive) for name, term in pdm.EPDMS.items()}
    progress = pdm.epdms(drive, expert).terms["progress"]
    plain = combined(pdm.EPDMS, own | {"progress": progress}).score
    assert (pdm.epdms(drive, expert).score >= plain - 1e-12).all()


@given(st.floats(0, 1), st.dictionaries(st.sampled_from(list(carla.PENALTY)), st.integers(0, 5)))
def test_infractions_only_cost(completed: float, counts: dict[str, int]) -> None:
    score = float(carla.driving_score(np.array(completed), counts))
    assert 0 <= score <= completed
    for name in carla.PENALTY:
        more = float(carla.driving_score(np.array(completed), counts | {name: counts.get(name, 0) + 1}))
        assert more <= score


poses = st.tuples(st.floats(-30, 30), st.floats(-30, 30), st.floats(-4, 4))
sizes = st.tuples(st.floats(0.1, 4), st.floats(0.1, 2))


def box(x: float, y: float, heading: float, half_length: float, half_width: float) -> Boxes:
    return Boxes(*(np.array([v]) for v in (x, y, heading, half_length, half_width)))


def around(
    point: tuple[float, float], share: tuple[float, float], heading: float, size: tuple[float, float]
) -> Boxes:
    """A box that has `point` at these shares of its half extents."""
    along, aside = share[0] * size[0], share[1] * size[1]
    x = point[0] - along * np.cos(heading) + aside * np.sin(heading)
    return box(x, point[1] - along * np.sin(heading) - aside * np.cos(heading), heading, *size)


shares = st.tuples(st.floats(-0.999, 0.999), st.floats(-0.999, 0.999))


@given(
    st.tuples(st.floats(-9, 9), st.floats(-9, 9)), shares, shares, st.floats(-4, 4), st.floats(-4, 4), sizes, sizes
)
def test_boxes_around_one_point_touch(
    point: tuple[float, float],
    first: tuple[float, float],
    second: tuple[float, float],
    turn: float,
    other_turn: float,
    size: tuple[float, float],
    other_size: tuple[float, float],
) -> None:
    assert boxes.touch(around(point, first, turn, size), around(point, second, other_turn, other_size))[0]


@given(st.floats(-4, 4), st.floats(0.01, 5), st.floats(-9, 9), st.floats(-4, 4), st.floats(-4, 4), sizes, sizes)
def test_boxes_on_two_sides_of_a_line_do_not(
    line: float,
    gap: float,
    slide: float,
    turn: float,
    other_turn: float,
    size: tuple[float, float],
    other_size: tuple[float, float],
) -> None:
    def reach(heading: float, extent: tuple[float, float]) -> float:
        return float(abs(np.cos(heading - line)) * extent[0] + abs(np.sin(heading - line)) * extent[1])

    away = gap + reach(turn, size) + reach(other_turn, other_size)
    x, y = away * np.cos(line) - slide * np.sin(line), away * np.sin(line) + slide * np.cos(line)
    assert not boxes.touch(box(0, 0, turn, *size), box(x, y, other_turn, *other_size))[0]


@given(poses, poses, sizes, sizes, st.tuples(st.floats(-20, 20), st.floats(-20, 20)))
@settings(max_examples=100, deadline=None)
def test_boxes_meet_when_they_touch_first(
    pose: tuple[float, float, float],
    other: tuple[float, float, float],
    size: tuple[float, float],
    other_size: tuple[float, float],
    velocity: tuple[float, float],
) -> None:
    a, b = box(*pose, *size), box(*other, *other_size)
    vx, vy = (np.array([v]) for v in velocity)
    meeting = float(boxes.meeting_s(a, b, vx, vy)[0])
    when = np.linspace(0, min(meeting, 10.0), 50, endpoint=False)[1:]
    later = Boxes(b.x_m + vx * when, b.y_m + vy * when, b.heading_rad, b.half_length_m, b.half_width_m)
    if meeting > 1e-6:
        assert not boxes.touch(a, later).any()
    if np.isfinite(meeting):
        # Just after, within rounding: a hair's breadth of growth covers it.
        then = replace(b, x_m=b.x_m + vx * meeting, y_m=b.y_m + vy * meeting, half_width_m=b.half_width_m + 1e-6)
        assert boxes.touch(a, replace(then, half_length_m=b.half_length_m + 1e-6))[0]


@given(SEEDS, st.integers(1, 20))
@few
def test_comfort_does_not_depend_on_when_or_where(seed: int, turns: int) -> None:
    ego = trace(seed).ego
    elsewhere = replace(ego, heading_rad=ego.heading_rad + turns, x_m=ego.x_m * -3, y_m=ego.y_m + 7)
    mirrored = replace(ego, heading_rad=-ego.heading_rad, yaw_rate_radps=-ego.yaw_rate_radps)
    for other in (elsewhere, mirrored):
        np.testing.assert_array_equal(comfort.comfortable(ego), comfort.comfortable(other))
    assert comfort.steady(ego, ego).all()


@given(SEEDS, st.floats(1, 3))
@few
def test_wider_bounds_are_kept_more_often(seed: int, wider: float) -> None:
    ego = trace(seed, drives=12).ego
    wide = {f.name: tuple(v * wider for v in getattr(comfort.BOUNDS, f.name)) for f in fields(comfort.Bounds)}
    loose = comfort.comfortable(ego, comfort.Bounds(**wide))
    assert (loose >= comfort.comfortable(ego)).all()


@given(st.floats(0, 40), st.floats(0, 40), st.floats(0, 5))
def test_safe_distances_grow_with_speed(own: float, other: float, more: float) -> None:
    assert rss.following_m(own + more, other) >= rss.following_m(own, other)
    assert rss.following_m(own, other + more) <= rss.following_m(own, other)
    assert rss.following_m(own, other, 2.0) >= rss.following_m(own, other)
    assert rss.opposing_m(own + more, other) >= rss.opposing_m(own, other)
    assert rss.opposing_m(own, other + more) >= rss.opposing_m(own, other)
    assert rss.lateral_m(own - 2 + more, other - 2) >= rss.lateral_m(own - 2, other - 2)
    assert rss.lateral_m(own - 2, other - 2 + more) >= rss.lateral_m(own - 2, other - 2)


@given(st.floats(0, 20), st.floats(0, 20))
@settings(deadline=None)
def test_whoever_keeps_the_safe_distance_and_responds_does_not_hit(rear: float, front: float) -> None:
    """The distance's own promise: the front one brakes as hard as it may, the rear one speeds up for its response
    time and brakes as little as it may."""
    gap, v, w, dt = float(rss.following_m(rear, front)) + 0.05, rear, front, 0.001
    for step in range(30_000):
        v = max(v + dt * (rss.RSS.accel if step * dt < 1.0 else -rss.RSS.braking_least), 0.0)
        w = max(w - dt * rss.RSS.braking_most, 0.0)
        gap += (w - v) * dt
        assert gap > 0
        if v == 0 and step * dt > 1.0:
            break


@given(SEEDS)
@few
def test_violations_are_dangers(seed: int) -> None:
    found = rss.violations(trace(seed))
    assert (found.danger >= (found.longitudinal | found.lateral)).all()


@given(SEEDS, st.floats(-4, 4))
@few
def test_the_trackers_motion_turns_with_its_plan(seed: int, turn: float) -> None:
    plan = trace(seed, places=1).ego
    planned = np.stack([plan.x_m, plan.y_m, plan.heading_rad], -1)
    x, y, heading, speed, accel, _ = (getattr(plan, field.name)[:, 0] for field in fields(Ego))
    start = State(x, y, heading, speed, accel, np.zeros(4))
    driven = follow(planned, start, Body())
    c, s = np.cos(turn), np.sin(turn)
    turned = np.stack([c * plan.x_m - s * plan.y_m + 5, s * plan.x_m + c * plan.y_m, plan.heading_rad + turn], -1)
    there = replace(start, x_m=turned[:, 0, 0], y_m=turned[:, 0, 1], heading_rad=turned[:, 0, 2])
    other = follow(turned, there, Body())
    np.testing.assert_allclose(other.x_m, c * driven.x_m - s * driven.y_m + 5, atol=1e-6)
    np.testing.assert_allclose(other.speed_mps, driven.speed_mps, atol=1e-6)
    np.testing.assert_allclose(other.heading_rad, driven.heading_rad + turn, atol=1e-6)


@given(st.floats(1, 15), st.floats(-0.05, 0.05))
@few
def test_the_tracker_stays_near_what_can_be_driven(speed: float, curvature: float) -> None:
    way = speed * STEP_S * np.arange(41)
    angle = curvature * way
    bend = curvature if abs(curvature) > 1e-9 else 1e-9
    planned = np.stack([np.sin(bend * way) / bend, (1 - np.cos(bend * way)) / bend, angle], -1)[None]
    zero = np.zeros(1)
    wheel = np.arctan(Body().wheelbase_m * np.array([curvature]))
    driven = follow(planned, State(zero, zero, zero, zero + speed, zero, wheel))
    off = np.hypot(driven.x_m[0] - planned[0, :, 0], driven.y_m[0] - planned[0, :, 1])
    assert off.max() < 0.5 + 0.05 * speed


@given(SEEDS)
@few
def test_rater_feedback_is_in_range_and_turns_with_the_plans(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rated = np.cumsum(rng.normal(0.5, 1, (5, 3, 20, 2)), 2)
    plans = rated[:, [0, 1]] + rng.normal(0, 1.5, (5, 2, 20, 2))
    confidence, ratings = rng.dirichlet(np.ones(2), 5), rng.uniform(0, 10, (5, 3))
    speed = rng.uniform(0, 15, 5)
    found = rater.rater_feedback(plans, confidence, rated, ratings, speed)
    assert ((found >= 0) & (found <= 10 + 1e-9)).all()
    turned = np.array([[0.6, -0.8], [0.8, 0.6]])
    other = rater.rater_feedback(plans @ turned.T, confidence, rated @ turned.T, ratings, speed)
    np.testing.assert_allclose(other, found, atol=1e-9)
    better = rater.rater_feedback(plans, confidence, rated, np.minimum(ratings + 1, 10), speed)
    assert (better >= found - 1e-9).all()
    order = rng.permutation(3)
    again = rater.rater_feedback(plans, confidence, rated[:, order], ratings[:, order], speed)
    np.testing.assert_allclose(again, found)


@given(SEEDS, st.integers(1, 4), st.integers(1, 30))
@few
def test_a_mean_lies_in_its_interval_and_moves_with_its_values(seed: int, seeds: int, episodes: int) -> None:
    values = np.random.default_rng(seed).uniform(0, 1, (seeds, episodes))
    how = Resampling(seed=seed, resamples=200)
    found, shifted = mean(values, how), mean(values / 2 + 0.25, how)
    assert found.value is not None and shifted.value is not None
    assert abs(shifted.value - found.value / 2 - 0.25) < 1e-9
    if found.low is None or found.high is None or shifted.low is None:
        assert (seeds, episodes) == (1, 1)
        return
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9 or episodes * seeds < 12
    assert abs(shifted.low - found.low / 2 - 0.25) < 1e-9


@given(SEEDS)
@few
def test_collisions_are_contacts_and_each_counts_once(seed: int) -> None:
    drive = trace(seed)
    crash, touching = collisions(drive), contacts(drive)
    assert touching[crash.drive, crash.step].any(1).all()
    assert len(crash.drive) <= 2 * drive.others.present.any(1).sum()
    assert (len(crash.drive) > 0) == touching.any()
