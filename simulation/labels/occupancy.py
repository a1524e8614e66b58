"""What takes up the ground around each vehicle, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.labels import CELL_M, GRID_CELLS, GRID_FROM_M, OCCUPANCY
from simulation.arrays import Bools, Floats, in_frame
from simulation.encounters import LOOKS
from simulation.traffic import CAR_LENGTH_M, CAR_WIDTH_M, FAR_M
from simulation.world import World

OFF_ROAD, ROAD, BODY, PERSON = (OCCUPANCY.index(name) for name in ("off_road", "road", "body", "person"))
PERSON_M = (0.5, 0.6)
STATION_M = 1.0
"""The road is looked at so finely, and so far beyond the grid's ends: it may bend."""
MARGIN_M = 10.0
SPOTS = (5, 3)
"""Points of a body, along and across, of which each takes up its cell: nearer to one another than cells are
wide."""
VULNERABLE = tuple(LOOKS.index(look) for look in ("person", "cyclist"))


@dataclass(frozen=True, slots=True)
class _Users:
    """K road users around each of B vehicles, [B, K] each: world pose, size in m, class, and are they there."""

    x: Floats
    y: Floats
    heading: Floats
    length: Floats
    width: Floats
    kind: NDArray[np.int64]
    there: Bools


def occupancy(world: World) -> NDArray[np.int8]:
    """[B, *GRID_CELLS], indices into OCCUPANCY. The road is the vehicle's own, both of its lanes."""
    grid = _ground(world)
    for users in _users(world):
        _occupy(grid, world, users)
    return grid


def _ground(world: World) -> NDArray[np.int8]:
    """Cells by their middles: on the road or off it; a closed stretch of lane is taken up."""
    s, d = _on_road(world, *_middles(world))
    lane_m, lane_d = world.traffic.lane_m[:, None], world.lane_d[:, None]
    grid = np.where(np.abs(d) < lane_m, ROAD, OFF_ROAD)
    if world.cast:
        begins, ends = world.cast.closed.T
        closed = (s > begins[:, None]) & (s < ends[:, None]) & (np.abs(d - lane_d) < lane_m / 2)
        grid = np.where(closed, BODY, grid)
    return grid.reshape(len(world), *GRID_CELLS).astype(np.int8)


def _middles(world: World) -> tuple[Floats, Floats]:
    """World x and y of the middles of all cells, [B, cells]."""
    ahead, left = np.meshgrid(
        *(
            start + (np.arange(n) + 0.5) * size
            for start, n, size in zip(GRID_FROM_M, GRID_CELLS, CELL_M, strict=True)
        ),
        indexing="ij",
    )
    return _to_world(world, ahead.ravel()[None], left.ravel()[None])


def _on_road(world: World, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """s and d of the road's nearest station, for points [B, N]: far from it, but right wherever it bends."""
    reach = GRID_FROM_M[0] + GRID_CELLS[0] * CELL_M[0] + MARGIN_M
    station = world.s[:, None] + np.arange(GRID_FROM_M[0] - MARGIN_M, reach, STATION_M)
    middle_x, middle_y, heading = world.roads.pose(station, np.zeros_like(station))
    away = (x[:, :, None] - middle_x[:, None]) ** 2 + (y[:, :, None] - middle_y[:, None]) ** 2
    near = away.argmin(2)
    foot_x, foot_y, along, s = (np.take_along_axis(a, near, 1) for a in (middle_x, middle_y, heading, station))
    return s, (y - foot_y) * np.cos(along) - (x - foot_x) * np.sin(along)


def _users(world: World) -> list[_Users]:
    t = world.traffic
    cars = _on_lanes(world, t.car_s, t.car_d, (CAR_LENGTH_M, CAR_WIDTH_M), BODY)
    people = _on_lanes(world, t.person_s, t.person_d, PERSON_M, PERSON)
    if world.cast is None:
        return [cars, people]
    cast = world.cast
    kind = np.where(np.isin(cast.look, VULNERABLE), PERSON, BODY)
    return [cars, people, _Users(*cast.poses(), cast.size[..., 0], cast.size[..., 1], kind, cast.visible)]


def _on_lanes(world: World, s: Floats, d: Floats, size_m: tuple[float, float], kind: int) -> _Users:
    x, y, heading = world.roads.pose(s, d)
    length, width = (np.full(s.shape, m) for m in size_m)
    return _Users(x, y, heading, length, width, np.full(s.shape, kind), s < FAR_M / 2)


def _occupy(grid: NDArray[np.int8], world: World, users: _Users) -> None:
    """Writes users into the cells [B, *GRID_CELLS] that their spots lie in; who is later in OCCUPANCY stays."""
    along, across = (a.ravel() for a in np.meshgrid(*(np.linspace(-0.5, 0.5, n) for n in SPOTS), indexing="ij"))
    forth, aside = along * users.length[..., None], across * users.width[..., None]
    cos, sin = np.cos(users.heading)[..., None], np.sin(users.heading)[..., None]
    spot_x, spot_y = users.x[..., None] + forth * cos - aside * sin, users.y[..., None] + forth * sin + aside * cos
    cells = [
        np.floor((place - start) / size).astype(np.int64)
        for place, start, size in zip(_to_vehicle(world, spot_x, spot_y), GRID_FROM_M, CELL_M, strict=True)
    ]
    inside = users.there[..., None] & (cells[0] >= 0) & (cells[1] >= 0)
    inside &= (cells[0] < GRID_CELLS[0]) & (cells[1] < GRID_CELLS[1])
    row, user, _ = inside.nonzero()
    np.maximum.at(grid, (row, cells[0][inside], cells[1][inside]), users.kind[row, user].astype(np.int8))


def _to_world(world: World, ahead: Floats, left: Floats) -> tuple[Floats, Floats]:
    m = world.motion
    cos, sin = np.cos(m.heading)[:, None], np.sin(m.heading)[:, None]
    return m.x[:, None] + ahead * cos - left * sin, m.y[:, None] + ahead * sin + left * cos


def _to_vehicle(world: World, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Ahead and to the left of each vehicle, for points [B, K, spots]."""
    m = world.motion
    return in_frame(x - m.x[:, None, None], y - m.y[:, None, None], m.heading[:, None, None])
