"""Where on each road something happens, and the paths of those who cross there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulation.arrays import Floats, Ints, wrap
from simulation.dynamics import REAR_M
from simulation.encounters import SIZE_M, Encounter, Layout, Role
from simulation.layouts import PATH_POINTS, SPACING_M, STRAIGHT_M, mirrored, path, placed
from simulation.roads import PERIOD_M, Roads
from simulation.scenarios import LINES, Scene

HALF_WIDTH_M = 0.95
"""Of the vehicle itself."""
MARGIN_M, PERSON_MARGIN_M = 0.35, 1.0
"""Who comes this near to the vehicle's track is in its way."""
WINDOW_M = (-110.0, 140.0)
"""The stretch of road, from a place's line, that its paths may meet."""
MERGED_M = 10.0
"""Who has driven so far along the vehicle's lane no longer crosses it, but drives ahead."""


class Places:
    """The places of B roads where an encounter is, numbered without end along each road."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        slots = [[i for i, e in enumerate(scene.encounters) if e] for scene in scenes]
        self.count = np.array([len(own) for own in slots])
        self.slot = np.zeros((len(scenes), LINES), np.int64)
        self.s = np.full((len(scenes), LINES), np.inf)
        for row, own in enumerate(slots):
            self.slot[row, : len(own)] = own
            self.s[row, : len(own)] = scenes[row].line_s_m[own]
        tails = [[e.tail_m for e in scene.encounters if e] for scene in scenes]
        self.tail_m = np.array([max(own, default=0.0) for own in tails])
        """How far beyond its line the vehicle must be for a place to be over, [B]."""
        self._row = np.arange(len(scenes))

    def current(self, s: Floats) -> tuple[Ints, Floats]:
        """The first place that is not yet over, [B]: its number and the s of its line, m; inf where none is."""
        from_s = s - self.tail_m
        turn = np.floor(from_s / PERIOD_M).astype(np.int64)
        passed = (self.s <= (from_s - turn * PERIOD_M)[:, None]).sum(1)
        number = turn * self.count + passed
        return number, self.position(number)

    def position(self, number: Ints) -> Floats:
        """s of the line of place `number`, [B], m; inf where a road has no place."""
        count = np.maximum(self.count, 1)
        return np.asarray(self.s[self._row, number % count] + number // count * PERIOD_M)

    def line(self, number: Ints) -> Ints:
        """The number of that place's line among all lines of its road, [B]."""
        count = np.maximum(self.count, 1)
        return np.asarray(number // count * LINES + self.slot[self._row, number % count])


@dataclass(frozen=True, slots=True)
class Track:
    """A path in the world and on the vehicle's road, sampled every SPACING_M."""

    points: Floats
    """[PATH_POINTS, 5]: x, y, heading; s and d of the road."""
    enters_m: float
    """Along the path, where its user gets in the vehicle's way; inf if never ..."""
    leaves_m: float
    """... and is out of it again, or drives ahead."""
    from_s: float
    """Where on the road that is, from ..."""
    to_s: float
    """... to."""


def track(scene: Scene, roads: Roads, row: int, encounter: Encounter, role: Role, line_s: float) -> Track:
    """The path of a role at the place whose line is at `line_s` on road `row`."""
    local = mirrored(path(role.path, encounter.layout, scene.lane_width_m), scene.region.side)
    line = placed(local, *origin(roads, row, line_s, encounter.layout))
    station = line_s + np.arange(*WINDOW_M, 0.5)
    road = np.stack(roads.middle(row, station), 1)
    away = ((line[:, None, :2] - road[None, :, :2]) ** 2).sum(-1)
    near = away.argmin(1)
    foot = road[near]
    dx, dy = line[:, 0] - foot[:, 0], line[:, 1] - foot[:, 1]
    cos, sin = np.cos(foot[:, 2]), np.sin(foot[:, 2])
    s, d = station[near] + dx * cos + dy * sin, -dx * sin + dy * cos
    points = np.concatenate([line, s[:, None], d[:, None]], 1)
    return _conflict(points, wrap(line[:, 2] - foot[:, 2]), scene.lane_d_m, line_s, role)


def origin(roads: Roads, row: int, line_s: float, layout: Layout) -> tuple[float, float, float]:
    """World x, y and heading of a place's local coordinates."""
    before = STRAIGHT_M[layout]
    x, y, heading = (float(z[0]) for z in roads.middle(row, np.array([line_s - before])))
    return x + before * np.cos(heading), y + before * np.sin(heading), heading


def _conflict(points: Floats, turned: Floats, lane_d: float, line_s: float, role: Role) -> Track:
    length, width = SIZE_M[role.look]
    half_s, half_d = extents(length, width, turned)
    s, d = points[:, 3], points[:, 4]
    margin = PERSON_MARGIN_M if role.look == "person" else MARGIN_M
    inside = (np.abs(d - lane_d) < HALF_WIDTH_M + half_d + margin) & (s > line_s - 1.0) & (s < line_s + 60.0)
    if not inside.any():
        return Track(points, np.inf, np.inf, np.inf, np.inf)
    first = int(inside.argmax())
    rest = ~inside[first:]
    last = first + (int(rest.argmax()) if rest.any() else PATH_POINTS - first) - 1
    last = min(last, first + round((MERGED_M + length) / SPACING_M))
    stretch = slice(first, last + 1)
    from_s, to_s = (s - half_s)[stretch].min(), (s + half_s)[stretch].max() + REAR_M
    return Track(points, first * SPACING_M, (last + 1) * SPACING_M, float(from_s), float(to_s))


def extents(length: Floats | float, width: Floats | float, turned: Floats) -> tuple[Floats, Floats]:
    """Half of what a body takes along and across the road, when turned against it."""
    cos, sin = np.abs(np.cos(turned)), np.abs(np.sin(turned))
    return np.asarray((length * cos + width * sin) / 2), np.asarray((length * sin + width * cos) / 2)
