"""The others of a recorded drive as a cast: where the log says, or reacting along the paths that it tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from simulation.arrays import Bools, Floats, in_frame, wrap
from simulation.cast import Cast, Ego, nobody
from simulation.dynamics import FRONT_M, REAR_M
from simulation.encounters import LOOKS, Behaviour
from simulation.logs import GRID_S, Agents, Log
from simulation.places import HALF_WIDTH_M, extents
from simulation.reactive import next_speed
from simulation.roads import STATION_M, Roads
from simulation.scenarios import Scene
from simulation.traffic import FAR_M, Lines

ALONG_RAD = 0.35
"""Who heads further from the road's direction crosses it."""
ROUND_TRIP_M = 0.005
"""A place so exactly given by the road's coordinates is told by them."""
IN_FRONT_M = 80.0
"""Reactive agents look so far."""
BESIDE_M = 0.1
"""Room that they want at each side."""
_REACTING = ("car", "van", "ambulance")


def cast_of(scenes: Sequence[Scene], roads: Roads, lines: Lines) -> Cast | None:
    """Who takes part in these scenes; None where nobody does. Raises ValueError for recorded scenes among drawn
    ones."""
    logs = [scene.log for scene in scenes if scene.log]
    if not any(len(log.agents) for log in logs):
        return None if nobody(scenes) else Cast(scenes, roads, lines)
    if len(logs) < len(scenes):
        raise ValueError("recorded and drawn scenes cannot share a batch: drive them one after the other")
    return LogCast(scenes, logs, roads, lines)


class LogCast(Cast):
    """The others of B logs. Each has a clock in its own recording: the world's time, unless it was held up."""

    def __init__(self, scenes: Sequence[Scene], logs: Sequence[Log], roads: Roads, lines: Lines) -> None:
        places = max(1, *(len(log.agents) for log in logs))
        super().__init__(scenes, roads, lines, places)
        self.steps = max(len(log.x_m) for log in logs)
        self.there, table = _stacked(logs, places, self.steps)
        self.track_x, self.track_y, self.track_heading, self.track_v, self.track_m = table
        self.clock = np.zeros((len(logs), places))
        for row, log in enumerate(logs):
            self.look[row, : len(log.agents)] = [LOOKS.index(kind) for kind in log.agents.kinds]
            self.size[row, : len(log.agents)] = log.agents.size_m
        kinds = np.array(LOOKS)[self.look]
        self.reacts = np.isin(kinds, _REACTING) & np.array([log.reactive for log in logs])[:, None]
        self.walks, self.rides = kinds == "person", kinds == "cyclist"
        self.x, self.y, self.heading = (np.zeros(self.clock.shape) for _ in range(3))
        self.v = self._now(self.track_v)
        self._stand()

    @property
    def visible(self) -> Bools:
        """See Cast.visible."""
        at = np.floor(self.clock / GRID_S + 1e-6).astype(np.int64).clip(0, self.steps - 1)
        found = np.take_along_axis(self.there, at[..., None], 2)[..., 0]
        return np.asarray(found & (self.clock <= (self.steps - 1) * GRID_S + 1e-6))

    def poses(self) -> tuple[Floats, Floats, Floats]:
        """See Cast.poses."""
        return self.x, self.y, self.heading

    def step(self, dt_s: float, time_s: float, ego: Ego) -> None:
        """Moves everyone by `dt_s`, to `time_s`."""
        recorded, wish = self._now(self.track_v), self._now(self.track_v, dt_s)
        rate, v = np.ones_like(recorded), wish
        if dt_s and (self.reacts & self.visible).any():
            gap, front_v = self._in_front(ego)
            slowed = next_speed(self.v, wish, recorded, gap, front_v, dt_s)
            late = self.reacts & self.visible & ((slowed < wish - 1e-6) | (self.v < recorded - 1e-6))
            way = self._now(self.track_m, dt_s) - self._now(self.track_m)
            moved = np.minimum((self.v + slowed) / 2 * dt_s, way)
            rate = np.where(late & (way > 1e-4), moved / np.maximum(way, 1e-4), 1.0)
            v = np.where(late, slowed, wish)
        self.v = v
        held_up = self.reacts & (self.clock < time_s - dt_s - 1e-6) | (rate < 1.0)
        self.clock = np.where(held_up, self.clock + rate * dt_s, time_s)
        self._stand()

    def _stand(self) -> None:
        """Poses, road coordinates and what each is to the vehicle, by the clocks."""
        self.x, self.y, self.heading = map(self._now, (self.track_x, self.track_y, self.track_heading))
        self.s, self.d = self.roads.project(self.x, self.y, self._nearest_s(self.x, self.y))
        px, py, along = self.roads.pose(self.s, self.d)
        self.turned = wrap(self.heading - along)
        exact = np.hypot(px - self.x, py - self.y) < ROUND_TRIP_M
        self.on_path = self.walks | ~exact | (np.abs(np.sin(self.turned)) > np.sin(ALONG_RAD))
        self.zone[...] = np.inf
        meets = ~self.on_path & (np.cos(self.turned) < 0)
        role = np.where(meets, int(Behaviour.MEET), int(Behaviour.CROSS))
        role = np.where(self.rides, int(Behaviour.RIDE), role)
        self.behaviour = np.where(self.walks, int(Behaviour.WALK), role)

    def _now(self, table: Floats, ahead_s: float = 0.0) -> Floats:
        """A table [B, K, T] by everyone's clock, [B, K]."""
        place = np.clip((self.clock + ahead_s) / GRID_S, 0.0, self.steps - 1)
        # A clock that stands on an instant must not read its neighbour by a rounding error.
        place = np.where(np.abs(place - np.round(place)) < 1e-6, np.round(place), place)
        low = np.minimum(place.astype(np.int64), self.steps - 2)
        before, after = (np.take_along_axis(table, (low + i)[..., None], 2)[..., 0] for i in (0, 1))
        return np.asarray(before + (after - before) * (place - low))

    def _later(self, time_s: float) -> tuple[Floats, Floats, Floats]:
        """s, d and heading against the road, if everyone goes straight on for `time_s`."""
        metres = self.v * time_s
        x, y = self.x + metres * np.cos(self.heading), self.y + metres * np.sin(self.heading)
        s, d = self.roads.project(x, y, self.s + metres * np.cos(self.turned))
        return s, d, wrap(self.heading - self.roads.at(self.roads.heading, s))

    def _nearest_s(self, x: Floats, y: Floats) -> Floats:
        """The station nearest to each place [B, K]."""
        away = (x[..., None] - self.roads.x[:, None]) ** 2 + (y[..., None] - self.roads.y[:, None]) ** 2
        return np.asarray(away.argmin(2) * STATION_M, np.float64)

    def _in_front(self, ego: Ego) -> tuple[Floats, Floats]:
        """Gap along each one's path to who is first on it, FAR_M for nobody, and its speed that way, [B, K]."""
        x, y, heading, half_long, half_wide, v, seen = self._everyone(ego)
        own = np.stack([self.x, self.y], -1)
        path = np.stack([self.track_x, self.track_y], -1)
        to_come = np.arange(self.steps) * GRID_S > self.clock[..., None]
        path = np.concatenate([own[:, :, None], np.where(to_come[..., None], path, np.inf)], 2)
        way = (
            np.concatenate([self._now(self.track_m)[..., None], self.track_m], 2)
            - self._now(self.track_m)[..., None]
        )
        ways = np.concatenate([self.heading[..., None], self.track_heading], 2)
        away = (path[..., None, 0] - x[:, None, None]) ** 2 + (path[..., None, 1] - y[:, None, None]) ** 2
        near = away.argmin(2)
        at_x, at_y, course, metres = (
            np.take_along_axis(table, near, 2) for table in (path[..., 0], path[..., 1], ways, way)
        )
        along, aside = in_frame(x[:, None] - at_x, y[:, None] - at_y, course)
        turned = heading[:, None] - course
        reach, wide = extents(2 * half_long[:, None], 2 * half_wide[:, None], turned)
        ahead = metres + along
        gap = ahead - reach - self.size[..., :1] / 2
        mine = seen[:, None] & (np.abs(aside) < wide + self.size[..., 1:] / 2 + BESIDE_M)
        mine &= (ahead > 0) & (gap < IN_FRONT_M) & (np.eye(*mine.shape[1:]) == 0)
        gap = np.where(mine, gap, FAR_M)
        first = gap.argmin(2)[..., None]
        pace = np.maximum(v[:, None] * np.cos(turned), 0.0)
        return np.take_along_axis(gap, first, 2)[..., 0], np.take_along_axis(pace, first, 2)[..., 0]

    def _everyone(self, ego: Ego) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats, Bools]:
        """Everyone's box, speed and presence, [B, K + 1]; the vehicle is the last."""
        x, y, along = self.roads.pose(ego.s + (FRONT_M - REAR_M) / 2, ego.d)
        count = np.ones(len(x))
        ego_box = (x, y, along, count * (FRONT_M + REAR_M) / 2, count * HALF_WIDTH_M, ego.v)
        boxes = (self.x, self.y, self.heading, self.size[..., 0] / 2, self.size[..., 1] / 2, self.v)
        joined = [np.concatenate([a, b[:, None]], 1) for a, b in zip(boxes, ego_box, strict=True)]
        seen = np.concatenate([self.visible, np.ones((len(x), 1), bool)], 1)
        return joined[0], joined[1], joined[2], joined[3], joined[4], joined[5], seen


def _stacked(logs: Sequence[Log], places: int, steps: int) -> tuple[Bools, Floats]:
    """Presence [B, K, T], and x, y, heading, speed and metres [5, B, K, T]; who is shorter stays absent."""
    there = np.zeros((len(logs), places, steps), bool)
    table = np.zeros((5, len(logs), places, steps))
    names = [field.name for field in fields(Agents)][3:]
    for row, log in enumerate(logs):
        k, t = len(log.agents), len(log.x_m)
        there[row, :k, :t] = log.agents.there
        for number, name in enumerate(names):
            table[number, row, :k, :t] = getattr(log.agents, name)
            table[number, row, :k, t:] = getattr(log.agents, name)[:, -1:]
    # Headings are interpolated: no turn may jump.
    table[2] = np.unwrap(table[2], axis=-1)
    return there, table
