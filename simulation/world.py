"""The world: B vehicles, each alone in its own scene, moved together by NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from model.policy import FOLLOW, PLAN_PERIOD_S, PLAN_POINTS, Observation
from model.rig import Rig
from simulation import expert
from simulation.arrays import Bools, Floats, Ints, chance
from simulation.cameras import Cameras
from simulation.cast import Cast, Ego
from simulation.dynamics import FRONT_M, REAR_M, Motion, advance, control
from simulation.encounters import Behaviour
from simulation.expert import Driver, ExpertPlan, Obstacles, present
from simulation.log_cast import cast_of
from simulation.logs import BEFORE_M, GRID_S
from simulation.metrics import NEVER_S, time_to_collision
from simulation.places import HALF_WIDTH_M, Places
from simulation.priority import STRICT_S, Priority
from simulation.roads import Roads
from simulation.scenarios import LIGHT_LINE, STOP_LINE, Scene
from simulation.traffic import (
    CAR_LENGTH_M,
    CAR_WIDTH_M,
    CUT_IN,
    FAR_M,
    LEAD,
    MERGING,
    ONCOMING,
    RED,
    Lines,
    Traffic,
)

PHYSICS_S = 0.1
"""Physics steps at 10 Hz."""
STOP_ZONE_M = 8.0
"""A stop counts with the bumper this near the line."""
STOPPED_MPS, HALTED_MPS = 0.3, 1.0
"""The expert stands below the first; a policy is said to have missed a stop if it never went below the
second: slower than a walk."""
AMID_M = 60.0
"""No vehicle starts this near before a place where something happens."""
NEAR_M = 40.0
"""Within this distance ahead an object can be told from its pixels at 96 pixels a camera."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is true of B vehicles now, each [B]; the privileged view, not an input of a policy."""

    x_m: Floats
    y_m: Floats
    heading_rad: Floats
    speed_mps: Floats
    accel_mps2: Floats
    yaw_rate_radps: Floats
    steering_rad: Floats
    travelled_m: Floats
    """Driven since the start."""
    lateral_error_m: Floats
    """From the middle of the lane, positive to the left; where one may draw aside or pass something, from the
    nearest place at which one may be."""
    heading_error_rad: Floats
    ttc_s: Floats
    """Time to collision with the car ahead at constant speeds, at most 99."""
    person_ttc_s: Floats
    """The same for a pedestrian on the lane or stepping onto it."""
    missed_stop: Bools
    """Passed a stop sign in the last step without having stood."""
    ran_red: Bools
    """Passed a red light in the last step."""
    took_way: Bools
    """Entered a junction or crossing in the last step before someone with right of way."""
    too_close: Bools
    """Beside a cyclist with too little room."""
    holds_up: Bools
    """Has long kept an emergency vehicle behind."""
    encounter: tuple[str, ...]
    """Name of what happens around each vehicle, "" where nothing does."""
    tags: dict[str, Bools]
    """Object or circumstance -> is it in view: sign, triangle, light, lead, oncoming, pedestrian, cut_in,
    night, fog, left_hand."""


_CHANGES = (
    "time_s",
    "s",
    "d",
    "motion",
    "travelled_m",
    "stopped_at",
    "halted_at",
    "missed_stop",
    "ran_red",
    "took_way",
    "traffic",
    "cast",
    "priority",
)
"""What of a World changes as time goes on."""


@dataclass(frozen=True, slots=True)
class State:
    """How a world is at an instant: only `World.restore` reads it."""

    scenes: tuple[Scene, ...]
    values: dict[str, Any]


class World:
    """B scenes in lock step. Deterministic in (scenes, rig, seed); a scene unfolds alike in any batch.

    Holds one offscreen buffer if `rig` is given: call `close` (or use `with`) when done with it.
    """

    spares_lead = True
    """See Traffic.spares_lead."""

    def __init__(self, scenes: Sequence[Scene], rig: Rig | None, seed: int = 0) -> None:
        """`rig` None gives a world without cameras, for which `observe` raises. Raises ValueError without
        scenes."""
        if not scenes:
            raise ValueError("a world needs at least one scene")
        self.scenes, self.rig, self.seed = tuple(scenes), rig, seed
        self.time_s = 0.0
        self.roads = Roads(
            np.stack([scene.amplitude_rad for scene in scenes]),
            np.stack([scene.phase_rad for scene in scenes]),
            [scene.bends for scene in scenes],
            [scene.log.centre_line(scene.lane_d_m) if scene.log else None for scene in scenes],
        )
        self.lines = Lines(scenes)
        self.limit = np.array([scene.limit_mps for scene in scenes])
        self.lane_d = np.array([scene.lane_d_m for scene in scenes])
        self.noise_seed = self.lines.seed + seed
        self.commanded = np.zeros((2, len(scenes)))
        """Accelerations and curvatures of the last step."""
        self._place_vehicles()
        self.traffic = Traffic(self.scenes, self.roads, self.lines, self.s)
        self.traffic.spares_lead = self.spares_lead
        self.cast = cast_of(self.scenes, self.roads, self.lines)
        self.priority = Priority(self.cast, self.roads, self.lines) if self.cast else None
        self._meet(0.0)
        self.cameras = Cameras(scenes, self.roads, rig) if rig else None
        self._expert: ExpertPlan | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.scenes)

    def close(self) -> None:
        """Gives the cameras' buffer back; afterwards `observe` raises."""
        if self.cameras:
            self.cameras.close()
        self.cameras = None

    def observe(self, rows: Ints | None = None) -> Observation:
        """What the vehicles sense now; where `rows` are named, only these see anything, which is faster. Renders;
        raises RuntimeError without cameras."""
        if self.cameras is None:
            raise RuntimeError("this world has no cameras: it was made without a rig, or is closed")
        images = self.cameras.render(self.motion, self.s, self.time_s, self.lines, self.traffic, self.cast, rows)
        return Observation(
            images=images,
            speed_mps=self.motion.speed.astype(np.float32),
            yaw_rate_radps=self.motion.yaw_rate.astype(np.float32),
            command=self.cast.commands(self.ego()) if self.cast else np.full(len(self), FOLLOW, np.int64),
        )

    def expert(self) -> ExpertPlan:
        """The privileged expert's plan from here; computed once per step."""
        if self._expert is None:
            swerve = self.priority.swerve(self.ego()) if self.priority else None
            self._expert = expert.plan(self.roads, self.driver(), self.obstacles(), swerve)
        return self._expert

    def step(self, trajectory: NDArray[np.float32], period_s: float = PLAN_PERIOD_S) -> None:
        """Follows `trajectory` [B, T, 2] for `period_s`, in whole steps of PHYSICS_S. Raises ValueError for
        another shape or a value that is not finite, naming it."""
        if trajectory.shape != (len(self), PLAN_POINTS, 2):
            raise ValueError(f"trajectory is {trajectory.shape}, must be {(len(self), PLAN_POINTS, 2)}")
        if not np.isfinite(trajectory).all():
            bad = np.flatnonzero(~np.isfinite(trajectory).all((1, 2)))
            raise ValueError(f"trajectory of vehicles {bad[:8].tolist()} is not finite")
        self.obey(np.stack(control(trajectory, self.motion.speed, self.motion.curvature)), period_s)

    def obey(self, command: Floats, period_s: float = PLAN_PERIOD_S) -> None:
        """Drives with these accelerations and curvatures [2, B] for `period_s`. With the commands that another
        world of these scenes had (`commanded`, step by step) this one unfolds as that one did."""
        self.commanded = command
        self.missed_stop[:], self.ran_red[:], self.took_way[:] = False, False, False
        for _ in range(round(period_s / PHYSICS_S)):
            self._physics(*command)
        self._expert = None

    def displace(self, lateral_m: Floats, heading_rad: Floats, speed_factor: Floats) -> None:
        """Puts vehicles beside their present state, [B] each: a recovery state to learn from."""
        self.motion.x = self.motion.x - lateral_m * np.sin(self.motion.heading)
        self.motion.y = self.motion.y + lateral_m * np.cos(self.motion.heading)
        self.motion.heading = self.motion.heading + heading_rad
        self.motion.speed = self.motion.speed * speed_factor
        self._locate()
        self._expert = None

    def edited(self) -> None:
        """To be called by who has changed what is around the vehicles: the expert plans anew."""
        self._expert = None

    def state(self) -> State:
        """A copy of how the world is now."""
        return State(self.scenes, self._copied({name: getattr(self, name) for name in _CHANGES}))

    def restore(self, state: State) -> None:
        """Makes this world what that one, of the same scenes, was; it may have had other cameras or none. Raises
        ValueError for a state of other scenes."""
        if len(state.scenes) != len(self) or any(
            a is not b for a, b in zip(state.scenes, self.scenes, strict=True)
        ):
            raise ValueError("the state is of other scenes than this world")
        for name, value in self._copied(state.values).items():
            setattr(self, name, value)
        self.traffic.spares_lead = self.spares_lead
        self._expert = None

    def driver(self) -> Driver:
        """Where the vehicles are on their roads."""
        return Driver(self.s, self.d, self.heading_error, self.motion.speed, self.limit, self.lane_d)

    def ego(self) -> Ego:
        """The vehicles as others see them."""
        return Ego(self.s, self.d, self.motion.speed)

    def obstacles(self) -> Obstacles:
        """What binds the expert's speed."""
        t, front, v = self.traffic, self.front_s, self.motion.speed
        number, line_s, kind = self.lines.next(front)
        gap = line_s - front
        stop = self.lines.must_stop(number, gap, v, self.time_s, self.stopped_at) & (gap < 80)
        rear = t.car_s - CAR_LENGTH_M / 2 - front[:, None]
        ahead = (rear > -CAR_LENGTH_M) & (rear < 150)
        merging = ahead[:, CUT_IN] & ((t.cut_phase >= MERGING) | t.in_lane(CUT_IN))
        person = np.where(t.person_matters(), t.person_s - front[:, None], FAR_M)
        person = np.where(person > -0.5, person, FAR_M)
        return Obstacles(
            lead_gap=present(rear[:, LEAD], ahead[:, LEAD]),
            lead_v=t.car_v[:, LEAD],
            cut_in_gap=present(rear[:, CUT_IN], merging),
            cut_in_v=t.car_v[:, CUT_IN],
            sign_gap=present(gap, stop & (kind == STOP_LINE)),
            light_gap=present(gap, stop & (kind == LIGHT_LINE)),
            person_gap=person.min(1),
            hazards=self.priority.hazards(self.ego(), self.limit) if self.priority else None,
        )

    def status(self) -> Status:
        """The truth about every vehicle."""
        m = self.motion
        car_ttc, person_ttc = self._times_to_collision()
        low, high = (self.priority.low, self.priority.high) if self.priority else (self.lane_d, self.lane_d)
        nobody = np.zeros(len(self), bool)
        return Status(
            x_m=m.x.copy(),
            y_m=m.y.copy(),
            heading_rad=m.heading.copy(),
            speed_mps=m.speed.copy(),
            accel_mps2=m.accel.copy(),
            yaw_rate_radps=m.yaw_rate,
            steering_rad=m.steering,
            travelled_m=self.travelled_m.copy(),
            lateral_error_m=self.d - np.clip(self.d, low, high),
            heading_error_rad=self.heading_error,
            ttc_s=car_ttc,
            person_ttc_s=person_ttc,
            missed_stop=self.missed_stop.copy(),
            ran_red=self.ran_red.copy(),
            took_way=self.took_way.copy(),
            too_close=self.priority.too_close(self.ego()) if self.priority else nobody,
            holds_up=self.priority.holds_up if self.priority else nobody,
            encounter=self.cast.names if self.cast else ("",) * len(self),
            tags=self._tags(),
        )

    @property
    def front_s(self) -> Floats:
        """Road coordinate of the front bumpers, [B]."""
        return self.s + FRONT_M

    @property
    def heading_error(self) -> Floats:
        """Against the road, [B], rad."""
        return self.roads.heading_error(self.s, self.motion.heading)

    def _place_vehicles(self) -> None:
        """Somewhere on the road at a fitting speed, where no line is too near to be stopped at, nor a place of
        encounter to be met; beyond one there may be the other."""
        count, seed = len(self), self.noise_seed
        self.s, places = chance(seed, 100) * 900.0, Places(self.scenes)
        for _ in range(3):
            _, line_s, _ = self.lines.next(self.s + FRONT_M)
            self.s = np.where(line_s - self.s - FRONT_M < 30.0, line_s - FRONT_M + 1.0, self.s)
            _, place_s = places.current(self.s)
            amid = place_s - self.s < AMID_M
            self.s = np.where(amid, place_s + places.tail_m + 1.0, self.s)
        self.d = self.lane_d.copy()
        x, y, heading = self.roads.pose(self.s, self.d)
        wish = np.minimum(self.limit, self.roads.at(self.roads.speed_cap, self.s))
        curvature = self.roads.at(self.roads.curvature, self.s)
        speed = wish * (0.6 + 0.35 * chance(seed, 101))
        self.motion = Motion(x, y, heading, speed, np.zeros(count), curvature)
        for row, scene in enumerate(self.scenes):
            if scene.log:
                self.motion.put(row, scene.log, 0)
                self.s[row] = BEFORE_M
                self._locate()
        self.travelled_m = np.zeros(count)
        self.stopped_at, self.halted_at = np.full(count, -1), np.full(count, -1)
        self.missed_stop, self.ran_red = np.zeros(count, bool), np.zeros(count, bool)
        self.took_way = np.zeros(count, bool)

    def _copied(self, values: dict[str, Any]) -> dict[str, Any]:
        """What never changes is shared: roads, lines, scenes and their encounters."""
        shared = [
            self.roads,
            self.lines,
            self.scenes,
            *self.scenes,
            values["traffic"].roads,
            values["traffic"].lines,
        ]
        shared += [encounter for scene in self.scenes for encounter in scene.encounters if encounter]
        return deepcopy(values, {id(thing): thing for thing in shared})

    def _locate(self) -> None:
        self.s, self.d = self.roads.project(self.motion.x, self.motion.y, self.s)

    def _physics(self, accel: Floats, curvature: Floats) -> None:
        number, line_s, _ = self.lines.next(self.front_s)
        before = self.front_s
        self.travelled_m = self.travelled_m + self._move(accel, curvature)
        self._locate()
        self.traffic.step(PHYSICS_S, self.time_s, self.s, self.motion.speed)
        self.time_s = round(self.time_s + PHYSICS_S, 3)
        self._meet(PHYSICS_S, before)
        near = line_s - self.front_s < STOP_ZONE_M
        self._judge_line(number, self.front_s >= line_s)
        self.stopped_at = np.where(near & (self.motion.speed < STOPPED_MPS), number, self.stopped_at)
        self.halted_at = np.where(near & (self.motion.speed < HALTED_MPS), number, self.halted_at)

    def _move(self, accel: Floats, curvature: Floats) -> Floats:
        """Drives the vehicles for PHYSICS_S; returns the metres, [B]."""
        return advance(self.motion, accel, curvature, PHYSICS_S)

    def _meet(self, dt_s: float, before: Floats | None = None) -> None:
        """Moves the cast; judges who entered its place, `before` being where the bumpers were."""
        if self.cast is None or self.priority is None:
            return
        ego, line = self.ego(), self.cast.line_s
        self.cast.step(dt_s, self.time_s, ego)
        self.priority.step(dt_s, ego)
        if before is not None:
            crossed = (before < line) & (self.front_s >= line)
            self.took_way |= crossed & self.priority.conflict(ego, STRICT_S)

    def _judge_line(self, number: Ints, crossed: Bools) -> None:
        kind = self.lines.kind_of(number)
        self.missed_stop |= crossed & (kind == STOP_LINE) & (self.halted_at != number)
        self.ran_red |= crossed & (kind == LIGHT_LINE) & (self.lines.colour(number, self.time_s) >= RED)

    def _times_to_collision(self) -> tuple[Floats, Floats]:
        t, v = self.traffic, self.motion.speed
        rear = t.car_s - CAR_LENGTH_M / 2 - self.front_s[:, None]
        beside = np.abs(t.car_d - self.d[:, None]) < CAR_WIDTH_M
        mine = beside & (rear > -CAR_LENGTH_M - FRONT_M - REAR_M)
        cars = np.where(mine, time_to_collision(rear - 0.2, v[:, None], t.car_v), NEVER_S)
        gap = t.person_s - self.front_s[:, None]
        at_risk = t.person_matters() & (gap > -2.0) & (v > 1.0)[:, None]
        people = np.where(at_risk, time_to_collision(gap, v[:, None], 0.0), NEVER_S)
        if self.cast is None:
            return cars.min(1), people.min(1)
        body, walker = self._times_to_bodies(self.cast)
        return np.minimum(cars.min(1), body), np.minimum(people.min(1), walker)

    def _times_to_bodies(self, cast: Cast) -> tuple[Floats, Floats]:
        """Times to collision with the cast's bodies, and with people among them, [B]."""
        bodies, v = cast.bodies(), self.motion.speed[:, None]
        gap = bodies.s - bodies.half_s - self.front_s[:, None]
        beside = np.abs(bodies.d - self.d[:, None]) < bodies.half_d + HALF_WIDTH_M
        # Who comes from behind and touches does so by himself; nobody drives into anyone by standing.
        mine = bodies.there & beside & (gap > -(2 * bodies.half_s + FRONT_M + REAR_M) + 0.3)
        mine[:, :-1] &= ~cast.on_path
        mine &= (v > 0.5) | (bodies.v > -0.5)
        body = np.where(mine, time_to_collision(gap - 0.2, v, bodies.v), NEVER_S).min(1)
        crossing = np.where(v > 0.5, cast.contacts(self.ego())[0], NEVER_S)
        walks = cast.plays(Behaviour.WALK)
        driven = np.where(walks, NEVER_S, crossing).min(1)
        return np.minimum(body, driven), np.where(walks, crossing, NEVER_S).min(1)

    def _tags(self) -> dict[str, Bools]:
        t, front = self.traffic, self.front_s
        _, line_s, kind = self.lines.next(front)
        near = line_s - front < NEAR_M
        triangle = np.array([scene.region.stop_sign == "triangle" for scene in self.scenes])
        car_gap = t.car_s - front[:, None]
        car = (car_gap > 0) & (car_gap < NEAR_M)
        person_gap = t.person_s - front[:, None]
        person = ((person_gap > 0) & (person_gap < NEAR_M)).any(1)
        return {
            "sign": near & (kind == STOP_LINE),
            "triangle": near & (kind == STOP_LINE) & triangle,
            "light": near & (kind == LIGHT_LINE),
            "lead": car[:, LEAD],
            "oncoming": car[:, ONCOMING:].any(1),
            "pedestrian": person,
            "cut_in": car[:, CUT_IN] & (t.cut_phase >= MERGING),
            "night": np.array([scene.darkness > 0 for scene in self.scenes]),
            "fog": np.array([scene.fog_per_m > 0 for scene in self.scenes]),
            "left_hand": np.array([scene.region.side < 0 for scene in self.scenes]),
        }


assert PHYSICS_S == GRID_S, "logs are followed step by step"
