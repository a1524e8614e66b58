"""The shapes of places: where the route bends there, which roads join it, and the paths of those who cross.

Local coordinates have their origin on the road's centre line beside the place's line, x along the vehicle's
approach and y to the left, and are drawn for traffic that keeps right; `side` mirrors them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simulation.arrays import Floats
from simulation.encounters import Layout, Path

TURN_RADIUS_M, TURN_FROM_M = 9.0, 3.0
"""A turn's arc on the centre line, and where it begins beyond the line."""
RING_RADIUS_M, ENTRY_RADIUS_M, RING_FROM_M = 13.0, 14.0, -3.5
"""Middle of a roundabout's lane; of its entries, on their centre line; where they begin."""
CROSS_MIDDLE_M = 5.5
STRAIGHT_M: dict[Layout, float] = {"straight": 0.0, "cross": 0.0, "turn": 0.0, "ring": 7.0}
"""So far before its line the approach still runs straight at the place: a roundabout's bends early."""
ARM_M = 75.0
"""How far a joining road reaches."""
CROSSING_M = 3.5
"""Middle of a zebra crossing beyond its line."""
SPACING_M = 1.0
PATH_POINTS = 170

Piece = tuple[float, float]
"""Length in m and turn in rad, to the left positive."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A place as it is built."""

    middle_m: float
    """Middle of the junction, along x."""
    pieces: tuple[Piece, ...]
    """Bends of the route, one after the other ..."""
    from_m: float
    """... beginning here."""
    arms_rad: tuple[float, ...]
    """Bearings of the joining roads from the middle, without those of the route."""


def shape(layout: Layout, turn_rad: float, lane_m: float) -> Shape | None:
    """The shape of a place where the route turns by `turn_rad`; None on a straight road."""
    if layout == "straight":
        return None
    bearings = [b for b in (0.0, math.pi / 2, -math.pi / 2) if abs(b - turn_rad) > 0.1]
    arms = tuple(bearings)
    if layout == "cross":
        return Shape(CROSS_MIDDLE_M, (), 0.0, arms)
    if layout == "turn":
        bend = (TURN_RADIUS_M * abs(turn_rad), turn_rad)
        return Shape(TURN_FROM_M + TURN_RADIUS_M, (bend,) if turn_rad else (), TURN_FROM_M, arms)
    return Shape(_ring_reach(lane_m) + RING_FROM_M, ring_pieces(turn_rad, lane_m), RING_FROM_M, arms)


def ring_pieces(turn_rad: float, lane_m: float) -> tuple[Piece, ...]:
    """Into a roundabout, round it, and out again, in all turning by `turn_rad`: the centre line of a lane on its
    right runs at ENTRY_RADIUS_M, then `lane_m` / 2 inside the ring's lane."""
    inner, deflection = RING_RADIUS_M - lane_m / 2, _deflection(lane_m)
    entry, round_ = (ENTRY_RADIUS_M * deflection, -deflection), 2 * deflection + turn_rad
    return entry, (inner * round_, round_), entry


def _deflection(lane_m: float) -> float:
    """Angle of entry with which the approach points at the ring's middle."""
    return math.acos(ENTRY_RADIUS_M / (ENTRY_RADIUS_M + RING_RADIUS_M - lane_m / 2))


def _ring_reach(lane_m: float) -> float:
    """From the middle of the ring to where its entries begin to bend."""
    return (ENTRY_RADIUS_M + RING_RADIUS_M - lane_m / 2) * math.sin(_deflection(lane_m))


def path(kind: Path, layout: Layout, lane_m: float) -> Floats:
    """The middle of a path, [PATH_POINTS, 3] x, y and heading, SPACING_M apart, for traffic that keeps right.
    Raises ValueError for a path that this layout has not."""
    reach, half = lane_m + 1.6, lane_m / 2
    if kind == "near_kerb":
        return trace((CROSSING_M - 0.6, -reach, math.pi / 2), ((PATH_POINTS, 0.0),))
    if kind == "far_kerb":
        return trace((CROSSING_M + 0.6, reach, -math.pi / 2), ((PATH_POINTS, 0.0),))
    found = shape(layout, 0.0, lane_m)
    if found is None:
        raise ValueError(f"there is no path {kind!r} on a {layout} road")
    if kind in ("ring_through", "ring_on"):
        turn = 0.0 if kind == "ring_through" else math.pi / 2
        pieces = ((ARM_M - _ring_reach(lane_m), 0.0), *ring_pieces(turn, lane_m), (PATH_POINTS, 0.0))
        return _beside(trace((found.middle_m, ARM_M, -math.pi / 2), pieces), half)
    x, y, heading = {
        "ahead": (found.middle_m + ARM_M, 0.0, math.pi),
        "from_left": (found.middle_m, ARM_M, -math.pi / 2),
        "from_right": (found.middle_m, -ARM_M, math.pi / 2),
    }[kind]
    return _beside(trace((x, y, heading), ((PATH_POINTS, 0.0),)), half)


def trace(start: tuple[float, float, float], pieces: tuple[Piece, ...]) -> Floats:
    """A line of arcs from a pose, [PATH_POINTS, 3], SPACING_M apart."""
    at = np.arange(PATH_POINTS) * SPACING_M
    heading = np.full(PATH_POINTS, start[2])
    begin = 0.0
    for length, turn in pieces:
        heading = heading + turn * np.clip((at - begin) / length, 0.0, 1.0)
        begin += length
    middle = (heading[1:] + heading[:-1]) / 2
    x = start[0] + np.concatenate([[0.0], np.cumsum(np.cos(middle))]) * SPACING_M
    y = start[1] + np.concatenate([[0.0], np.cumsum(np.sin(middle))]) * SPACING_M
    return np.stack([x, y, heading], 1)


def _beside(line: Floats, right_m: float) -> Floats:
    """The line moved to its own right."""
    x, y, heading = line.T
    return np.stack([x + right_m * np.sin(heading), y - right_m * np.cos(heading), heading], 1)


def mirrored(line: Floats, side: int) -> Floats:
    """As it is where traffic keeps left, for `side` -1."""
    return line * [1, side, side]


def placed(line: Floats, x: float, y: float, heading: float) -> Floats:
    """A local line in the coordinates in which its place has that pose."""
    cos, sin = math.cos(heading), math.sin(heading)
    return np.stack(
        [x + line[:, 0] * cos - line[:, 1] * sin, y + line[:, 0] * sin + line[:, 1] * cos, line[:, 2] + heading], 1
    )
