"""Who takes part in an encounter: road users on lanes and paths around B vehicles, moved together.

Each vehicle has one cast at a time, that of the next place on its road (encounters.py); it comes on when the place
is near, and leaves when the place is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.policy import FOLLOW, LEFT, RIGHT, STRAIGHT
from simulation.arrays import Bools, Floats, Ints, chance
from simulation.dynamics import FRONT_M, REAR_M
from simulation.encounters import CAST, DOOR_M, GIVE_WAY_LINE, LOOKS, SIZE_M, Behaviour, Encounter, Role
from simulation.layouts import PATH_POINTS, SPACING_M, shape
from simulation.metrics import NEVER_S
from simulation.places import HALF_WIDTH_M, Places, extents, track
from simulation.roads import Roads
from simulation.scenarios import Scene
from simulation.traffic import FAR_M, Lines, idm, stopping

COMES_ON_M = 95.0
"""A cast comes on when its place is so near."""
ANNOUNCED_M = 50.0
"""Navigation speaks so far before a junction."""
CONTACT_S = (0.0, 0.3, 0.6, 0.9, 1.2, 1.6, 2.0, 2.5, 3.0)
"""Instants at which contacts are looked for."""
ABSENT = -1
DRIFT_FROM_M, DRIFT_OUT_M, DRIFT_MPS = 75.0, -0.3, 2.2
"""When and where to an oncoming car drifts, against the middle of the vehicle's lane, and how fast sideways."""
OVERTAKE_FROM_M, OVERTAKE_OUT_M = 26.0, -2.0
"""How far behind, and where beside the vehicle, one overtakes."""
DOOR_OPENS_S, DOOR_TAKES_S = 2.8, 0.6
RED_NEEDED_S = 6.0
"""Who crosses on the vehicle's red wants so much of it left."""
WAITS_BEFORE_M = 6.0
"""Who waits for a light stands so far before the vehicle's lane."""


@dataclass(frozen=True, slots=True)
class Ego:
    """The vehicles as their surroundings see them, [B] each: s and d of the rear axle, and speed."""

    s: Floats
    d: Floats
    v: Floats


@dataclass(frozen=True, slots=True)
class Bodies:
    """What takes up road around B vehicles, [B, CAST + 1]; the last is a closed stretch of lane."""

    s: Floats
    d: Floats
    half_s: Floats
    half_d: Floats
    v: Floats
    """Along the road; oncoming is negative."""
    there: Bools


class Cast:
    """The casts of B vehicles; where a scene has no encounter, nobody ever comes on."""

    def __init__(self, scenes: Sequence[Scene], roads: Roads, lines: Lines, places: int = CAST) -> None:
        """`places`: how many one cast has room for."""
        count = len(scenes)
        self.scenes, self.roads, self.lines = scenes, roads, lines
        self.places = Places(scenes)
        self.side = np.array([float(scene.region.side) for scene in scenes])
        self.lane_m = np.array([scene.lane_width_m for scene in scenes])
        self.lane_d = np.array([scene.lane_d_m for scene in scenes])
        self.limit = np.array([scene.limit_mps for scene in scenes])
        self.seed = lines.seed
        self.number = np.full(count, -1 << 40)
        self.line_s = np.full(count, FAR_M)
        self.encounters: list[Encounter | None] = [None] * count
        self.closed = np.full((count, 2), FAR_M)
        self.passing_m, self.pull_m = np.zeros(count), np.zeros(count)
        self.must_give_way = np.zeros(count, bool)
        self.command = np.full(count, FOLLOW, np.int64)
        self.done_s = np.zeros(count)
        """Where the junction of `command` is behind the vehicle."""
        shape = (count, places)
        self.behaviour = np.full(shape, ABSENT)
        self.look = np.zeros(shape, np.int64)
        self.size = np.zeros((*shape, 2))
        self.at = np.zeros(shape)
        self.wish = np.zeros(shape)
        self.v, self.a, self.p = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.s, self.d, self.turned = np.full(shape, FAR_M), np.zeros(shape), np.zeros(shape)
        self.out = np.zeros(shape)
        self.started = np.zeros(shape, bool)
        self.opened = np.zeros(shape)
        self.on_path = np.zeros(shape, bool)
        self.points = np.zeros((*shape, PATH_POINTS, 5))
        self.zone = np.full((*shape, 4), np.inf)
        """Of each path: Track.enters_m, leaves_m, from_s, to_s."""
        self._index = np.indices(shape)

    def plays(self, *behaviours: Behaviour) -> Bools:
        """Who behaves so, [B, CAST]."""
        out: Bools = self.behaviour == behaviours[0]
        for other in behaviours[1:]:
            out = out | (self.behaviour == other)
        return np.asarray(out)

    @property
    def names(self) -> tuple[str, ...]:
        """What happens around each vehicle, "" where nothing does."""
        on = self.line_s < FAR_M / 2
        return tuple(e.name if e and here else "" for e, here in zip(self.encounters, on, strict=True))

    @property
    def visible(self) -> Bools:
        """Who is there to be seen, [B, CAST]."""
        on = (self.p >= 0) & (self.p <= (PATH_POINTS - 2) * SPACING_M)
        return np.asarray((self.behaviour != ABSENT) & (on | ~self.on_path))

    def step(self, dt_s: float, time_s: float, ego: Ego) -> None:
        """Moves everyone by `dt_s`, after changing casts where that is due."""
        number, line_s = self.places.current(ego.s)
        for row in np.flatnonzero((number != self.number) & (line_s - ego.s < COMES_ON_M)):
            self._come_on(int(row), int(number[row]), float(line_s[row]), ego)
        over = (number != self.number) & (line_s - ego.s >= COMES_ON_M)
        self.behaviour[over], self.line_s[over], self.closed[over] = ABSENT, FAR_M, FAR_M
        self.passing_m[over], self.pull_m[over], self.must_give_way[over] = 0.0, 0.0, False
        if (self.behaviour != ABSENT).any():
            self._decide(dt_s, time_s, ego)
            self._move(dt_s)

    def poses(self) -> tuple[Floats, Floats, Floats]:
        """World x, y and heading of everyone, [B, CAST]."""
        x, y, heading = self.roads.pose(self.s, self.d)
        on = self._on_path(self.p)
        own = [np.where(self.on_path, on[..., i], z) for i, z in enumerate((x, y, heading + self.turned))]
        return own[0], own[1], own[2]

    def bodies(self) -> Bodies:
        """What everyone, and a closed stretch, takes up."""
        half_s, half_d = extents(self.size[..., 0], self.size[..., 1], self.turned)
        reach = self.opened * DOOR_M
        d = self.d + self.side[:, None] * reach / 2
        wide = self.lane_m - 0.35
        middle_d = self.lane_d - self.side * (self.lane_m - wide) / 2
        return Bodies(
            s=_with(self.s, self.closed.mean(1)),
            d=_with(d, middle_d),
            half_s=_with(half_s, (self.closed[:, 1] - self.closed[:, 0]) / 2),
            half_d=_with(half_d + reach / 2, wide / 2),
            v=_with(self.v * np.cos(self.turned), np.zeros(len(d))),
            there=np.concatenate([self.visible, self.closed[:, :1] < FAR_M / 2], 1),
        )

    def contacts(self, ego: Ego) -> tuple[Floats, Floats]:
        """When the vehicle will touch whom on a path, if both go on evenly along lane and path: seconds, NEVER_S
        where not within CONTACT_S, and the gap in m to where that is; both [B, CAST]."""
        when, where = np.full(self.p.shape, NEVER_S), np.full(self.p.shape, FAR_M)
        candidates = self.on_path & self.visible
        if not candidates.any():
            return when, where
        for time_s in CONTACT_S[::-1]:
            s, d, turned = self._later(time_s)
            half_s, half_d = extents(self.size[..., 0], self.size[..., 1], turned)
            gap = s - half_s - (ego.s + FRONT_M)[:, None]
            overlap = np.abs(d - ego.d[:, None]) < half_d + HALF_WIDTH_M
            reach = gap - (ego.v * time_s)[:, None]
            touch = candidates & overlap & (reach < 0.2) & (reach > -(2 * half_s + FRONT_M + REAR_M))
            when, where = np.where(touch, time_s, when), np.where(touch, gap, where)
        return when, where

    def _later(self, time_s: float) -> tuple[Floats, Floats, Floats]:
        """s, d and heading against the road of who is on a path, `time_s` from now."""
        on = self._on_path(self.p + self.v * time_s)
        return on[..., 3], on[..., 4], on[..., 2] - self.roads.pose(on[..., 3], on[..., 4])[2]

    def _come_on(self, row: int, number: int, line_s: float, ego: Ego) -> None:
        scene = self.scenes[row]
        slot = int(self.places.slot[row, number % int(self.places.count[row])])
        encounter = scene.encounters[slot]
        assert encounter is not None, "a place has an encounter"
        self.number[row], self.line_s[row], self.encounters[row] = number, line_s, encounter
        closed = encounter.closed_m
        self.closed[row] = (line_s + closed[0], line_s + closed[1]) if closed else FAR_M
        self.passing_m[row], self.pull_m[row] = encounter.passing_m, encounter.pull_m
        self.must_give_way[row] = encounter.line == GIVE_WAY_LINE
        self._route(row, slot, encounter)
        self.behaviour[row] = ABSENT
        for column, role in enumerate(encounter.roles):
            draw = chance(self.seed[row], number, 400, column, np.arange(3))
            if draw[0] < role.chance:
                # Who share a path share a speed, so that none drives through another.
                pace = float(chance(self.seed[row], number, 401, len(role.path), ord(role.path[0])))
                self._enter(row, column, role, _between(role.at, draw[1]), _between(role.speed_mps, pace), ego)

    def _route(self, row: int, slot: int, encounter: Encounter) -> None:
        turn = float(self.scenes[row].turn_rad[slot])
        here = shape(encounter.layout, turn * self.side[row], self.lane_m[row])
        self.command[row] = FOLLOW if here is None else STRAIGHT if not turn else LEFT if turn > 0 else RIGHT
        bend = sum(length for length, _ in here.pieces) or here.middle_m if here else 0.0
        self.done_s[row] = self.line_s[row] + bend

    def commands(self, ego: Ego) -> Ints:
        """What navigation says now, [B]."""
        ahead = self.line_s - ego.s - FRONT_M
        return np.where((ahead < ANNOUNCED_M) & (ego.s < self.done_s), self.command, FOLLOW)

    def _enter(self, row: int, column: int, role: Role, at: float, pace: float, ego: Ego) -> None:
        cell, line_s, side = (row, column), self.line_s[row], self.side[row]
        self.behaviour[cell], self.look[cell] = role.behaviour, LOOKS.index(role.look)
        self.size[cell], self.at[cell], self.wish[cell], self.v[cell] = SIZE_M[role.look], at, pace, pace
        self.a[cell], self.started[cell], self.opened[cell] = 0.0, False, 0.0
        self.out[cell] = role.out_lanes * self.lane_m[row] + role.out_m
        self.d[cell], self.turned[cell] = self.lane_d[row] - side * self.out[cell], 0.0
        self.on_path[cell] = role.path != "lane"
        arrival_s = max(line_s - ego.s[row] - FRONT_M, 0.0) / max(ego.v[row], 5.0)
        if self.on_path[cell]:
            self._take_path(cell, role, arrival_s)
            return
        behind = {
            Behaviour.STAND: line_s + at,
            Behaviour.DOOR: line_s + at,
            Behaviour.RIDE: ego.s[row] + at,
            Behaviour.CHASE: ego.s[row] - 40.0,
            Behaviour.RUSH: ego.s[row] - at,
        }
        self.s[cell] = behind.get(role.behaviour, line_s + pace * (arrival_s + at))
        self.turned[cell] = np.pi if role.behaviour in (Behaviour.MEET, Behaviour.DRIFT) else 0.0
        if role.behaviour is Behaviour.CHASE:
            self.v[cell] = ego.v[row]

    def _take_path(self, cell: tuple[int, int], role: Role, arrival_s: float) -> None:
        row = cell[0]
        encounter = self.encounters[row]
        assert encounter is not None, "only a cast has paths"
        found = track(self.scenes[row], self.roads, row, encounter, role, float(self.line_s[row]))
        self.points[cell] = found.points
        self.zone[cell] = found.enters_m, found.leaves_m, found.from_s, found.to_s
        enters = found.enters_m if np.isfinite(found.enters_m) else PATH_POINTS / 2
        way_s = max(found.from_s - self.line_s[row], 0.0) / 5.0 if np.isfinite(found.from_s) else 0.0
        self.p[cell] = {
            Behaviour.CROSS: enters - self.v[cell] * (arrival_s + way_s + self.at[cell]),
            Behaviour.ON_RED: enters - WAITS_BEFORE_M,
        }.get(role.behaviour, 0.0)
        if role.behaviour in (Behaviour.WALK, Behaviour.ON_RED):
            self.v[cell] = 0.0

    def _decide(self, dt_s: float, time_s: float, ego: Ego) -> None:
        """Speeds, lateral places and doors of the next instant."""
        front = ego.s + FRONT_M
        accel = np.clip((self.wish - self.v) / 0.5, -3.0, 2.0)
        self._start(time_s, front, ego)
        waits = self.plays(Behaviour.WALK, Behaviour.ON_RED) & ~self.started
        accel = np.where(self._blocked(front, ego), np.minimum(accel, self._to_the_zone()), accel)
        accel = np.where(
            self._faced(front, ego), np.minimum(accel, stopping(self.v, self._ahead(front) - 5.0)), accel
        )
        accel = np.where(self.plays(Behaviour.CHASE, Behaviour.RUSH), self._pursue(ego), accel)
        still = waits | self.plays(Behaviour.STAND, Behaviour.DOOR)
        self.a = np.where(still, 0.0, accel)
        self.v = np.where(still, 0.0, np.maximum(self.v + self.a * dt_s, 0.0))
        self._sideways(dt_s, front, ego)
        near = self.plays(Behaviour.DOOR) & (self._ahead(front) / np.maximum(ego.v, 2.0)[:, None] < DOOR_OPENS_S)
        self.opened = np.where(near, np.minimum(self.opened + dt_s / DOOR_TAKES_S, 1.0), self.opened)

    def _start(self, time_s: float, front: Floats, ego: Ego) -> None:
        """Who waits sets out: people when the vehicle is near, cars when it has red."""
        gap = (self.line_s - front)[:, None]
        soon = gap / np.maximum(ego.v, 1.0)[:, None] < self.at
        slow = (ego.v < 2.5)[:, None] & (gap < 12.0)
        walks = self.plays(Behaviour.WALK) & (soon | slow) & (gap > -1.0)
        red_for, red_left = self.lines.red_s(self.places.line(self.number), time_s)
        goes = self.plays(Behaviour.ON_RED) & (red_for[:, None] > self.at) & (red_left > RED_NEEDED_S)[:, None]
        self.started |= walks | goes

    def _to_the_zone(self) -> Floats:
        return stopping(self.v, self.zone[..., 0] - self.p - 1.0)

    def _blocked(self, front: Floats, ego: Ego) -> Bools:
        """Whether the vehicle stands or drives where a path leads through, before its user gets there."""
        ahead = self.on_path & (self.p < self.zone[..., 0])
        inside = (front[:, None] > self.zone[..., 2] - 0.5) & ((ego.s - REAR_M)[:, None] < self.zone[..., 3])
        return np.asarray(ahead & inside)

    def _ahead(self, front: Floats) -> Floats:
        """From the front bumper to the near end of everyone on the lane, m."""
        return np.asarray(self.s - self.size[..., 0] / 2 - front[:, None])

    def _faced(self, front: Floats, ego: Ego) -> Bools:
        """Whether an oncoming driver has the vehicle in the way."""
        beside = np.abs(ego.d[:, None] - self.d) < HALF_WIDTH_M + self.size[..., 1] / 2 + 0.2
        return np.asarray(self.plays(Behaviour.MEET, Behaviour.DRIFT) & beside & (self._ahead(front) > -1.0))

    def _pursue(self, ego: Ego) -> Floats:
        """Those behind: they do not drive into the vehicle before them."""
        gap = (ego.s - REAR_M)[:, None] - self.s - self.size[..., 0] / 2
        beside = np.abs(ego.d[:, None] - self.d) > HALF_WIDTH_M + self.size[..., 1] / 2 + 0.1
        gap = np.where(beside | (gap < -1.0), FAR_M, gap)
        rush = self.plays(Behaviour.RUSH)
        cap = self.roads.at(self.roads.speed_cap, self.s)
        wish = np.minimum(np.where(rush, self.wish, 1.4 * self.limit[:, None]), 1.2 * cap)
        headway = np.where(rush, 0.8, self.at)
        return np.maximum(idm(self.v, wish, gap, ego.v[:, None], headway), -7.0)

    def _sideways(self, dt_s: float, front: Floats, ego: Ego) -> None:
        """Lateral movement of those who drift or overtake."""
        ahead = self._ahead(front)
        meets_s = ahead / np.maximum(self.v + ego.v[:, None], 0.5)
        drifter = self.plays(Behaviour.DRIFT)
        self.started |= drifter & ((meets_s < self.at) | (self.v < 2.5))
        drifts = drifter & (ahead < DRIFT_FROM_M) & ~self.started
        own = np.where(self.plays(Behaviour.RUSH), 0.0, self.out)
        behind = ego.s[:, None] - self.s
        beside = self.plays(Behaviour.RUSH) & (behind < OVERTAKE_FROM_M) & (behind > -14.0)
        wanted = np.where(drifts, DRIFT_OUT_M, np.where(beside, OVERTAKE_OUT_M, own))
        target = self.lane_d[:, None] - self.side[:, None] * wanted
        moves = self.plays(Behaviour.DRIFT, Behaviour.RUSH)
        self.d += np.where(moves, np.clip(target - self.d, -DRIFT_MPS * dt_s, DRIFT_MPS * dt_s), 0.0)

    def _move(self, dt_s: float) -> None:
        metres = self.v * dt_s
        self.p = np.where(self.on_path, self.p + metres, 0.0)
        forth = np.where(self.plays(Behaviour.MEET, Behaviour.DRIFT), -1.0, 1.0)
        s, d, turned = self._later(0.0)
        self.s = np.where(self.on_path, s, self.s + forth * metres)
        self.d = np.where(self.on_path, d, self.d)
        self.turned = np.where(self.on_path, turned, self.turned)

    def _on_path(self, p: Floats) -> Floats:
        """Rows of `points` at places along the paths, interpolated, [B, CAST, 5]."""
        place = np.clip(p / SPACING_M, 0.0, PATH_POINTS - 1.001)
        low = place.astype(np.int64)
        rows, columns = self._index
        before, after = self.points[rows, columns, low], self.points[rows, columns, low + 1]
        return np.asarray(before + (after - before) * (place - low)[..., None])


def _between(span: tuple[float, float], share: float) -> float:
    return span[0] + (span[1] - span[0]) * float(share)


def _with(cells: Floats, last: Floats) -> Floats:
    return np.concatenate([cells, last[:, None]], 1)


def nobody(scenes: Sequence[Scene]) -> bool:
    """Whether no scene has an encounter, nor weather that changes how to drive."""
    return not any(any(scene.encounters) or scene.rain or scene.snow for scene in scenes)
