"""Why the expert drives as it does: the rule of the Highway Code, what calls for it, and where to look.

`Explanation`s are of model/grammar.py. What is looked at are balls in the vehicle frame, whatever the cameras: a
point x forward, y left, z up in m, and a radius.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.grammar import CAUSES, NONE, Explanation, distance_word, encoded
from model.labels import LOOKS
from model.policy import PLAN_POINTS, PLAN_STEP_S
from simulation import hazards
from simulation.arrays import Bools, Floats, Ints, in_frame
from simulation.cast import Bodies, Cast
from simulation.dynamics import FRONT_M
from simulation.encounters import LOOKS as WHO
from simulation.encounters import Behaviour, Look
from simulation.expert import ExpertPlan
from simulation.meshes import HEADS
from simulation.priority import CAREFUL_S, Priority
from simulation.traffic import CUT_IN, FAR_M, LEAD
from simulation.world import World

Kind = Literal["car", "person", "cast", "closed", "sign", "light", "bend", "weather"]
STANDING_MPS, STAYS_M = 0.5, 1.0
"""Who is slower and will be moved less by the plan's end stands."""
SLOWING_MPS2, SPEEDING_MPS2 = -0.5, 0.4
BEHIND_RAD, AHEAD_RAD = 2.3, 0.5
"""Bearings, from the middle of the vehicle, beyond and within which something is behind or ahead."""
MIDDLE_M = 1.4
TAILED_M = 20.0
BEND_SEEN_M = 45.0
AT_LINE_M = 8.0
"""Who stands so near before a light waits for it."""
HIGH_M: Mapping[Look, float] = {
    "car": 0.8, "van": 1.2, "ambulance": 1.3, "cyclist": 0.9, "person": 0.9, "door": 0.8,
}  # fmt: skip
"""Height of the middle of who takes part, and the radius of the ball around it."""


class Thing(NamedTuple):
    """Something in a world that a rule may be about: `number` is its column in the arrays of its kind, or that
    of its line."""

    kind: Kind
    number: int = 0


class Found(NamedTuple):
    """A cause of model.grammar, what it consists of, and which of its citations applies."""

    cause: str
    things: tuple[Thing, ...] = ()
    cite: int = 0


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one vehicle does what it does."""

    said: Explanation
    things: tuple[Thing, ...]
    """What would have to be away for the rule not to apply; nearest first."""
    look: NDArray[np.float32]
    """[LOOKS, 4], where these are: balls in the vehicle frame; NaN where there are fewer."""


def reasons(world: World) -> list[Reason]:
    """Of every vehicle, as the expert drives it from here."""
    now, plan = _Instant(world), world.expert()
    actions = _actions(plan, world.motion.speed)
    found = [_FINDERS[int(rule)](now, row) for row, rule in enumerate(plan.rule)]
    return [_reason(now, row, action, f) for row, (action, f) in enumerate(zip(actions, found, strict=True))]


def words(world: World) -> NDArray[np.int64]:
    """The label of that name, [B, len(SLOTS)]."""
    return np.array([encoded(reason.said) for reason in reasons(world)], np.int64)


def look(world: World) -> NDArray[np.float32]:
    """The label of that name, [B, LOOKS, 4]."""
    return np.stack([reason.look for reason in reasons(world)])


class _Instant:
    """What is read of a world more than once, worked out where it is needed."""

    def __init__(self, world: World) -> None:
        self.world = world

    @property
    def cast(self) -> Cast:
        assert self.world.cast is not None, "only a cast gives these rules"
        return self.world.cast

    @property
    def priority(self) -> Priority:
        assert self.world.priority is not None, "only a cast gives these rules"
        return self.world.priority

    @cached_property
    def poses(self) -> tuple[Floats, Floats, Floats]:
        return self.cast.poses()

    @cached_property
    def cars(self) -> tuple[Floats, Floats, Floats]:
        traffic = self.world.traffic
        return self.world.roads.pose(traffic.car_s, traffic.car_d)

    @cached_property
    def people(self) -> tuple[Floats, Floats, Floats]:
        traffic = self.world.traffic
        return self.world.roads.pose(traffic.person_s, traffic.person_d)

    @cached_property
    def bodies(self) -> Bodies:
        return self.cast.bodies()

    @cached_property
    def track(self) -> tuple[Floats, Bools, Bools]:
        return self.priority.on_track(self.world.ego(), self.bodies)

    @cached_property
    def conflict(self) -> Bools:
        return self.priority.in_conflict(self.world.ego(), CAREFUL_S)

    @cached_property
    def crossing_gap(self) -> Floats:
        return self.cast.contacts(self.world.ego())[1]

    @cached_property
    def line(self) -> tuple[Ints, Floats, Ints]:
        return self.world.lines.next(self.world.front_s)

    @cached_property
    def bend_s(self) -> Floats:
        """Where the road ahead bends most, [B]."""
        ahead = self.world.front_s[:, None] + np.arange(0.0, BEND_SEEN_M, 1.5)
        sharpest = np.abs(self.world.roads.at(self.world.roads.curvature, ahead)).argmax(1)
        return np.asarray(ahead[np.arange(len(ahead)), sharpest])

    def wet(self, row: int) -> bool:
        return self.world.priority is not None and bool(self.world.priority.wet[row])


def _keep_lane(now: _Instant, row: int) -> Found:
    if not now.wet(row):
        return Found("clear")
    return Found("snow" if now.world.scenes[row].snow > 0 else "wet", (Thing("weather"),))


def _lead(now: _Instant, row: int) -> Found:
    return Found("lead", (Thing("car", LEAD),), int(now.wet(row)))


def _cut_in(now: _Instant, row: int) -> Found:
    return Found("cut_in", (Thing("car", CUT_IN),))


def _stop_sign(now: _Instant, row: int) -> Found:
    return Found("stop_sign", (Thing("sign", int(now.line[0][row])),))


def _light(now: _Instant, row: int) -> Found:
    world, (number, line_s, _) = now.world, now.line
    waits = world.motion.speed[row] < STANDING_MPS and line_s[row] - world.front_s[row] < AT_LINE_M
    return Found("light", (Thing("light", int(number[row])),), int(waits))


def _walker(now: _Instant, row: int) -> Found:
    traffic, front = now.world.traffic, now.world.front_s[row]
    gap = np.where(traffic.person_matters()[row], traffic.person_s[row] - front, FAR_M)
    return Found("walker", (Thing("person", int(np.where(gap > -0.5, gap, FAR_M).argmin())),))


def _give_way(now: _Instant, row: int) -> Found:
    encounter = now.cast.encounters[row]
    ring = encounter is not None and encounter.layout == "ring"
    return Found("ring" if ring else "junction", _cast(now.conflict[row]))


def _crossing(now: _Instant, row: int) -> Found:
    walks = now.conflict[row] & now.cast.plays(Behaviour.WALK)[row]
    on = walks & now.cast.started[row]
    return Found("crosses", _cast(on)) if on.any() else Found("waits", _cast(walks))


def _obstructed(now: _Instant, row: int) -> Found:
    gap, ahead, _ = now.track
    gaps = np.where(ahead[row], gap[row], FAR_M)
    crossing, body = now.crossing_gap[row], int(gaps.argmin())
    if crossing.min() < gaps[body]:
        return Found("blocked", _cast(np.arange(len(crossing)) == crossing.argmin()))
    if body == len(crossing):
        return Found("blocked", (Thing("closed"),))
    drives = now.bodies.v[row, body] > STANDING_MPS
    return Found("lead" if drives else "blocked", (Thing("cast", body),), int(drives and now.wet(row)))


def _oncoming(now: _Instant, row: int) -> Found:
    gap, _, meets = now.track
    return Found("oncoming", (Thing("cast", int(np.where(meets[row], gap[row], FAR_M).argmin())),))


def _wait_to_pass(now: _Instant, row: int) -> Found:
    return _passed(now, row, passing=False)


def _pass(now: _Instant, row: int) -> Found:
    return _passed(now, row, passing=True)


def _passed(now: _Instant, row: int, passing: bool) -> Found:
    cast = now.cast
    for behaviour, cause in ((Behaviour.RIDE, "cyclist"), (Behaviour.DOOR, "door")):
        if cast.plays(behaviour)[row].any():
            return Found(cause, _cast(cast.plays(behaviour)[row]))
    return Found("works", (Thing("closed"),), int(passing))


def _emergency(now: _Instant, row: int) -> Found:
    return Found("emergency", _cast(now.cast.plays(Behaviour.RUSH)[row]))


def _tailgated(now: _Instant, row: int) -> Found:
    near = now.world.s[row] - now.cast.s[row] < TAILED_M
    return Found("tailgater", _cast(now.cast.plays(Behaviour.CHASE)[row] & near))


def _cast(who: Bools) -> tuple[Thing, ...]:
    return tuple(Thing("cast", int(column)) for column in np.flatnonzero(who))


_FINDERS: Mapping[int, Callable[[_Instant, int], Found]] = {
    hazards.KEEP_LANE: _keep_lane,
    hazards.CURVE: lambda now, row: Found("bend", (Thing("bend"),)),
    hazards.FOLLOW_LEAD: _lead,
    hazards.CUT_IN: _cut_in,
    hazards.STOP_SIGN: _stop_sign,
    hazards.RED_LIGHT: _light,
    hazards.PEDESTRIAN: _walker,
    hazards.GIVE_WAY: _give_way,
    hazards.CROSSING: _crossing,
    hazards.OBSTRUCTED: _obstructed,
    hazards.ONCOMING: _oncoming,
    hazards.HOLD: _wait_to_pass,
    hazards.PASS: _pass,
    hazards.LET_PASS: _emergency,
    hazards.TAILGATED: _tailgated,
}


def _reason(now: _Instant, row: int, action: str, found: Found) -> Reason:
    balls = [ball for thing in found.things for ball in _BALLS[thing.kind](now, row, thing.number)]
    seen = sorted((_in_vehicle_frame(now.world, row, ball) for ball in balls), key=_away_m)[:LOOKS]
    look = np.full((LOOKS, 4), np.nan, np.float32)
    look[: len(seen)] = np.array(seen, np.float32).reshape(-1, 4)
    cause = CAUSES[found.cause]
    place, distance = (_place(seen[0]), distance_word(_away_m(seen[0]))) if cause.placed else (NONE, NONE)
    number, duty, quantity = cause.cites[found.cite]
    said = Explanation(action, found.cause, place, distance, str(number), str(duty), quantity)
    return Reason(said, found.things, look)


def _actions(plan: ExpertPlan, speed: Floats) -> list[str]:
    """What each plan comes to, of model.grammar.ACTIONS."""
    steps_m = np.linalg.norm(np.diff(plan.trajectory, axis=1, prepend=0.0), axis=2)
    way_m, horizon_s = steps_m.sum(1), PLAN_POINTS * PLAN_STEP_S
    accel = 2 * (way_m - speed * horizon_s) / horizon_s**2
    cases = (
        ("wait", (speed < STANDING_MPS) & (way_m < STAYS_M)),
        ("stop", steps_m[:, -1] / PLAN_STEP_S < STANDING_MPS),
        ("aside", plan.rule == hazards.LET_PASS),
        ("pass", plan.rule == hazards.PASS),
        ("slow", accel < SLOWING_MPS2),
        ("go", accel > SPEEDING_MPS2),
    )
    first = np.stack([where for _, where in cases] + [np.ones(len(speed), bool)]).argmax(0)
    names = [*(name for name, _ in cases), "hold"]
    return [names[i] for i in first]


class _Ball(NamedTuple):
    x: float
    y: float
    z: float
    radius: float


def _car_ball(now: _Instant, row: int, number: int) -> list[_Ball]:
    x, y, _ = now.cars
    return [_Ball(float(x[row, number]), float(y[row, number]), HIGH_M["car"], HIGH_M["car"])]


def _person_ball(now: _Instant, row: int, number: int) -> list[_Ball]:
    x, y, _ = now.people
    return [_Ball(float(x[row, number]), float(y[row, number]), HIGH_M["person"], HIGH_M["person"])]


def _cast_ball(now: _Instant, row: int, number: int) -> list[_Ball]:
    x, y, _ = now.poses
    high = HIGH_M[WHO[now.cast.look[row, number]]]
    return [_Ball(float(x[row, number]), float(y[row, number]), high, high)]


def _closed_ball(now: _Instant, row: int, number: int) -> list[_Ball]:
    """Where the closed stretch is nearest ahead."""
    begin, end = now.cast.closed[row]
    s = float(np.clip(now.world.front_s[row] + 2.0, begin, end))
    return [_on_road(now.world, row, s, float(now.world.lane_d[row]), 0.8, 1.4)]


def _sign_ball(now: _Instant, row: int, number: int) -> list[_Ball]:
    world, scene = now.world, now.world.scenes[row]
    beside = scene.lane_d_m - scene.region.side * (scene.lane_width_m / 2 + 1.0)
    low = scene.region.stop_sign == "paddle"
    return [_on_road(world, row, float(now.line[1][row]) + 1.0, beside, *((1.75, 0.42) if low else (2.5, 0.8)))]


def _light_ball(now: _Instant, row: int, number: int) -> list[_Ball]:
    scene, line_s = now.world.scenes[row], float(now.line[1][row])
    kerb = -scene.region.side * (scene.lane_width_m / 2 + 1.1)
    return [_on_road(now.world, row, line_s + on, scene.lane_d_m + at * kerb, z, 1.4) for on, at, z in HEADS]


def _bend_ball(now: _Instant, row: int, number: int) -> list[_Ball]:
    return [_on_road(now.world, row, float(now.bend_s[row]), float(now.world.lane_d[row]), 0.0, 2.5)]


_BALLS: Mapping[Kind, Callable[[_Instant, int, int], list[_Ball]]] = {
    "car": _car_ball,
    "person": _person_ball,
    "cast": _cast_ball,
    "closed": _closed_ball,
    "sign": _sign_ball,
    "light": _light_ball,
    "bend": _bend_ball,
    "weather": lambda now, row, number: [],
}


def _on_road(world: World, row: int, s: float, d: float, z: float, radius: float) -> _Ball:
    x, y, heading = (float(value[0]) for value in world.roads.middle(row, np.array([s])))
    return _Ball(x - d * float(np.sin(heading)), y + d * float(np.cos(heading)), z, radius)


def _in_vehicle_frame(world: World, row: int, ball: _Ball) -> _Ball:
    motion = world.motion
    x, y = in_frame(ball.x - motion.x[row], ball.y - motion.y[row], motion.heading[row])
    return _Ball(float(x), float(y), ball.z, ball.radius)


def _away_m(ball: _Ball) -> float:
    """From the middle of the front bumper, over the ground."""
    return float(np.hypot(ball.x - FRONT_M, ball.y))


def _place(ball: _Ball) -> str:
    bearing = float(np.arctan2(ball.y, ball.x - MIDDLE_M))
    if abs(bearing) < AHEAD_RAD:
        return "ahead"
    return "behind" if abs(bearing) > BEHIND_RAD else "left" if bearing > 0 else "right"
