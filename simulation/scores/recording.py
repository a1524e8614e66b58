"""Traces of what drives in the simulated world: who was where, as the world itself knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.rig import Rig
from simulation.arrays import Bools, Floats
from simulation.layouts import shape
from simulation.roads import PERIOD_M
from simulation.scenarios import LIGHT_LINE, STOP_LINE, Scene
from simulation.scenery import CROSSING_M
from simulation.scores.crowd import Crowd, crowd_of
from simulation.scores.trace import CAR, STEP_S, Body, Ego, Events, Others, Place, Trace
from simulation.world import PHYSICS_S, State, World

TIMEOUT_S = 90.0
"""A scenario that is not over so long after it came on is not finished in its time."""
ROOM_M = 2.0
"""How much further than elsewhere one may drive at each side of a junction: its corners are rounded off."""
EVENTS = ("ran_red", "missed_stop", "no_yield", "timeout")


@dataclass(frozen=True, slots=True)
class Instant:
    """What changes in a world of B vehicles from one physics step to the next."""

    motion: Floats
    """[6, B], in the order of Ego's columns."""
    s: Floats
    """[B], road coordinate of the rear axle: where the box's is sought."""
    allowed: Floats
    """[2, B], least and greatest d at which the vehicle may drive: passing something opens the other lane."""
    crowd: Crowd
    broken: Bools
    """[4, B]: EVENTS of this step."""


class RecordedWorld(World):
    """A world that keeps an Instant of each physics step, the beginning included. Its leads can be touched."""

    spares_lead = False

    def __init__(self, scenes: Sequence[Scene], rig: Rig | None, seed: int = 0) -> None:
        super().__init__(scenes, rig, seed)
        self._begin()

    def restore(self, state: State) -> None:
        """See World.restore; what is recorded begins anew."""
        super().restore(state)
        self._begin()

    def _begin(self) -> None:
        count = len(self)
        self._on_since = np.full(count, self.time_s)
        self._number = self.cast.number.copy() if self.cast else np.zeros(count, np.int64)
        self._held_up = np.zeros(count, bool)
        self.instants = [self._instant(np.zeros((len(EVENTS), count), bool))]

    def _physics(self, accel: Floats, curvature: Floats) -> None:
        before = np.stack([self.ran_red, self.missed_stop])
        super()._physics(accel, curvature)
        broken = np.stack([self.ran_red, self.missed_stop]) & ~before
        late = np.stack([self._newly_held_up(), self._newly_late()])
        self.instants.append(self._instant(np.concatenate([broken, late])))

    def _newly_held_up(self) -> Bools:
        now = self.priority.holds_up if self.priority else self._held_up
        fresh, self._held_up = now & ~self._held_up, now
        return np.asarray(fresh)

    def _newly_late(self) -> Bools:
        """Whether the present scenario's time ran out in this step."""
        if not self.cast:
            return np.zeros(len(self), bool)
        self._on_since = np.where(self.cast.number != self._number, self.time_s, self._on_since)
        self._number = self.cast.number.copy()
        on = np.array([name != "" for name in self.cast.names])
        left = TIMEOUT_S - (self.time_s - self._on_since)
        return np.asarray(on & (np.abs(left + PHYSICS_S / 2 - 1e-6) < PHYSICS_S / 2))

    def _instant(self, broken: Bools) -> Instant:
        m, p = self.motion, self.priority
        return Instant(
            np.stack([m.x, m.y, m.heading, m.speed, m.accel, m.yaw_rate]),
            self.s.copy(),
            np.stack([p.low, p.high] if p else [self.lane_d, self.lane_d]),
            crowd_of(self.traffic, self.cast),
            broken,
        )


def trace_of(world: RecordedWorld, route_m: Floats, body: Body = CAR) -> Trace:
    """What the world's vehicles did so far, [B, T]. `route_m` [B]: the lengths of their routes. Raises ValueError
    before the first step."""
    motion = _column(world.instants, "motion", 2)
    return Trace(
        Ego(*motion),
        _others(world),
        _place(world, motion, body),
        Events(*_column(world.instants, "broken", 2)),
        route_m,
        body,
    )


def _column(instants: Sequence[Instant], name: str, axis: int = 1) -> NDArray[Any]:
    return np.stack([getattr(instant, name) for instant in instants], axis)


def _others(world: RecordedWorld) -> Others:
    """Motion across the road is told by how the places change: the world keeps none. Who is on a path moves along
    its own heading."""
    crowds = [instant.crowd for instant in world.instants]
    c = Crowd(*(np.stack([getattr(crowd, f.name) for crowd in crowds], 1) for f in fields(Crowd)))
    rate = np.zeros_like(c.d)
    same = (c.track[:, 1:] == c.track[:, :-1]) & (c.width_m[:, 1:] == c.width_m[:, :-1])
    # A box that widens is an opening door: its middle moves, its car does not.
    rate[:, 1:] = np.where(same, np.diff(c.d, axis=1) / STEP_S, 0.0)
    x, y, along = (z.reshape(c.s.shape) for z in world.roads.pose(_flat(c.s), _flat(c.d)))
    drifts = np.arctan2(rate, c.v)
    return Others(
        present=c.present,
        track=c.track,
        kind=c.kind,
        x_m=np.where(c.on_path, c.x, x),
        y_m=np.where(c.on_path, c.y, y),
        heading_rad=np.where(c.on_path, c.heading, along + drifts),
        speed_mps=np.where(c.on_path, c.v, np.hypot(c.v, rate)),
        length_m=c.length_m,
        width_m=c.width_m,
        s_m=c.s,
        d_m=c.d - world.lane_d[:, None, None],
        course_rad=np.where(c.on_path, c.heading - along, drifts),
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
    low, high = _column(world.instants, "allowed", 2)
    junction = in_junction(world.scenes, s)
    return Place(
        s_m=s,
        d_m=d - world.lane_d[:, None],
        course_rad=world.roads.heading_error(s, heading),
        overhang_m=np.abs(corners).max(0) - lane - np.where(junction, ROOM_M, 0.0),
        several_lanes=(corners.min(0) < 0) & (corners.max(0) > 0),
        wrong_way=np.abs(d - np.clip(d, low, high)) > lane / 2,
        junction=junction,
        limit_mps=np.broadcast_to(world.limit[:, None], s.shape),
    )


def in_junction(scenes: Sequence[Scene], s: Floats) -> Bools:
    """Whether other roads join or cross at `s` [B, T] of each scene's road."""
    out = np.zeros(s.shape, bool)
    for row, scene in enumerate(scenes):
        for begin, end in _junctions(scene):
            out[row] |= np.mod(s[row] - begin, PERIOD_M) < end - begin
    return out


def _junctions(scene: Scene) -> list[tuple[float, float]]:
    """From where to where on one period of its road other roads join or cross."""
    out = []
    for slot, line_s in enumerate(scene.line_s_m):
        encounter, turn = scene.encounters[slot], float(scene.turn_rad[slot]) * scene.region.side
        here = shape(encounter.layout, turn, scene.lane_width_m) if encounter else None
        if here and here.pieces:
            begin, end = here.from_m, here.from_m + sum(length for length, _ in here.pieces)
        elif here:
            begin, end = 0.0, 2 * here.middle_m
        elif scene.line_kind[slot] in (STOP_LINE, LIGHT_LINE):
            begin, end = CROSSING_M
        else:
            continue
        out.append((float(line_s) + begin, float(line_s) + end))
    return out


def _flat(column: Floats) -> Floats:
    return column.reshape(len(column), -1)


def _point(x: Floats, y: Floats, heading: Floats, along: float, aside: float) -> tuple[Floats, Floats]:
    c, s = np.cos(heading), np.sin(heading)
    return x + along * c - aside * s, y + along * s + aside * c


assert PHYSICS_S == STEP_S, "traces are made of physics steps"
