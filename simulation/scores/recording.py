"""Traces of what drives in the simulated world: who was where, as the world itself knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.rig import Rig
from simulation.arrays import Bools, Floats, Ints
from simulation.scenarios import Scene
from simulation.scores.trace import CAR, PEDESTRIAN, STEP_S, VEHICLE, Body, Ego, Events, Others, Place, Trace
from simulation.traffic import CAR_LENGTH_M, CAR_WIDTH_M, CARS, FAR_M, PEOPLE
from simulation.world import PHYSICS_S, World

PERSON_M = 0.6
"""Side of a pedestrian's box."""


@dataclass(frozen=True, slots=True)
class Instant:
    """What changes in a world of B vehicles from one physics step to the next."""

    motion: Floats
    """[6, B], in the order of Ego's columns."""
    s: Floats
    """[B], road coordinate of the rear axle: where the box's is sought."""
    others_s: Floats
    """[B, K], road coordinates; K are the cars, then the people."""
    others_d: Floats
    others_v: Floats
    """Along the road."""
    spawns: Ints
    """[B, K]."""
    broken: Bools
    """[2, B]: passed a red light, missed a stop, in this step."""


class RecordedWorld(World):
    """A world that keeps an Instant of each physics step, the beginning included."""

    def __init__(self, scenes: Sequence[Scene], rig: Rig | None, seed: int = 0) -> None:
        super().__init__(scenes, rig, seed)
        self.instants = [self._instant(np.zeros((2, len(self)), bool))]

    def _physics(self, accel: Floats, curvature: Floats) -> None:
        before = np.stack([self.ran_red, self.missed_stop])
        super()._physics(accel, curvature)
        self.instants.append(self._instant(np.stack([self.ran_red, self.missed_stop]) & ~before))

    def _instant(self, broken: Bools) -> Instant:
        m, t = self.motion, self.traffic
        return Instant(
            np.stack([m.x, m.y, m.heading, m.speed, m.accel, m.yaw_rate]),
            self.s.copy(),
            np.concatenate([t.car_s, t.person_s], 1),
            np.concatenate([t.car_d, t.person_d], 1),
            np.concatenate([t.car_v, np.zeros_like(t.person_v)], 1),
            np.concatenate([t.spawns, t.person_spawns], 1),
            broken,
        )


def trace_of(world: RecordedWorld, route_m: Floats, body: Body = CAR) -> Trace:
    """What the world's vehicles did so far, [B, T]. `route_m` [B]: the lengths of their routes. Raises ValueError
    before the first step."""
    motion = _column(world.instants, "motion", 2)
    broken = _column(world.instants, "broken", 2)
    never = np.zeros_like(broken[0])
    return Trace(
        Ego(*motion),
        _others(world),
        _place(world, motion, body),
        Events(broken[0], broken[1], never, never),
        route_m,
        body,
    )


def _column(instants: Sequence[Instant], name: str, axis: int = 1) -> NDArray[Any]:
    return np.stack([getattr(instant, name) for instant in instants], axis)


def _others(world: RecordedWorld) -> Others:
    """Motion across the road is told by how the places change: the world keeps none."""
    s, d, v = (_column(world.instants, f"others_{name}") for name in "sdv")
    track = _column(world.instants, "spawns")
    rate = np.zeros_like(d)
    rate[:, 1:] = np.where(track[:, 1:] == track[:, :-1], np.diff(d, axis=1) / STEP_S, 0.0)
    course = np.arctan2(rate, v)
    x, y, along = (c.reshape(s.shape) for c in world.roads.pose(s.reshape(len(s), -1), d.reshape(len(s), -1)))
    person = np.arange(CARS + PEOPLE) >= CARS

    def sized(car: float, walker: float) -> Floats:
        return np.broadcast_to(np.where(person, walker, car), s.shape)

    return Others(
        present=s < FAR_M / 2,
        track=track,
        kind=np.broadcast_to(np.where(person, PEDESTRIAN, VEHICLE), s.shape),
        x_m=x,
        y_m=y,
        heading_rad=along + course,
        speed_mps=np.hypot(v, rate),
        length_m=sized(CAR_LENGTH_M, PERSON_M),
        width_m=sized(CAR_WIDTH_M, PERSON_M),
        s_m=s,
        d_m=d - world.lane_d[:, None, None],
        course_rad=course,
    )


def _place(world: RecordedWorld, motion: Floats, body: Body) -> Place:
    x, y, heading = motion[:3]
    guess = _column(world.instants, "s")
    s, d = world.roads.project(*_point(x, y, heading, body.centre_m, 0.0), guess)
    corners = np.stack(
        [
            world.roads.project(*_point(x, y, heading, along, aside), guess)[1]
            for along in (body.front_m, -body.rear_m)
            for aside in (body.width_m / 2, -body.width_m / 2)
        ]
    )
    lane = world.traffic.lane_m[:, None]
    own_side = world.traffic.side[:, None] * d < 0
    return Place(
        s_m=s,
        d_m=d - world.lane_d[:, None],
        course_rad=world.roads.heading_error(s, heading),
        overhang_m=np.abs(corners).max(0) - lane,
        several_lanes=(corners.min(0) < 0) & (corners.max(0) > 0),
        wrong_way=~own_side | (np.abs(d) > lane),
        junction=np.zeros(s.shape, bool),
        limit_mps=np.broadcast_to(world.limit[:, None], s.shape),
    )


def _point(x: Floats, y: Floats, heading: Floats, along: float, aside: float) -> tuple[Floats, Floats]:
    c, s = np.cos(heading), np.sin(heading)
    return x + along * c - aside * s, y + along * s + aside * c


assert PHYSICS_S == STEP_S, "traces are made of physics steps"
