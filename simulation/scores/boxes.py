"""Oriented boxes: whether they touch, and when they will. Separating axes (Gottschalk, Lin, Manocha, "OBBTree",
SIGGRAPH 1996): two boxes are apart exactly where their projections on one of their four sides' directions are."""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType

import numpy as np

from simulation.arrays import Bools, Floats, Ints
from simulation.scores.trace import Body, Others


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes of one shape [...], broadcast against each other."""

    x_m: Floats
    """Of the centre."""
    y_m: Floats
    heading_rad: Floats
    half_length_m: Floats
    half_width_m: Floats

    def at(self, *index: Ints | slice | int | EllipsisType | None) -> Boxes:
        """Those at this index of the columns."""
        columns = (self.x_m, self.y_m, self.heading_rad, self.half_length_m, self.half_width_m)
        return Boxes(*(column[index] for column in columns))

    @property
    def radius_m(self) -> Floats:
        """Of the circle around the box."""
        return np.hypot(self.half_length_m, self.half_width_m)


def of_body(body: Body, x_m: Floats, y_m: Floats, heading_rad: Floats) -> Boxes:
    """Boxes of a vehicle whose rear axle is there."""
    forward = body.centre_m
    x, y = x_m + forward * np.cos(heading_rad), y_m + forward * np.sin(heading_rad)
    return Boxes(x, y, heading_rad, np.full_like(x, body.length_m / 2), np.full_like(x, body.width_m / 2))


def of_others(others: Others) -> Boxes:
    """Boxes of other road users, [B, T, K]."""
    return Boxes(others.x_m, others.y_m, others.heading_rad, others.length_m / 2, others.width_m / 2)


def front_edges(body: Body, x_m: Floats, y_m: Floats, heading_rad: Floats) -> Boxes:
    """The front bumpers as boxes without a length."""
    x, y = x_m + body.front_m * np.cos(heading_rad), y_m + body.front_m * np.sin(heading_rad)
    return Boxes(x, y, heading_rad, np.zeros_like(x), np.full_like(x, body.width_m / 2))


def touch(a: Boxes, b: Boxes) -> Bools:
    """Whether boxes have a point in common, borders included."""
    offset = _on_axes(a, b, b.x_m - a.x_m, b.y_m - a.y_m)
    return np.asarray((np.abs(offset) <= _reach(a, b)).all(0))


def meeting_s(a: Boxes, b: Boxes, closing_x_mps: Floats, closing_y_mps: Floats) -> Floats:
    """Seconds until boxes first touch when b moves against a at this velocity and neither turns: 0 where they
    already do, inf where they never will. Exact: on each axis they overlap during one interval of time."""
    offset = _on_axes(a, b, b.x_m - a.x_m, b.y_m - a.y_m)
    speed, reach = _on_axes(a, b, closing_x_mps, closing_y_mps), _reach(a, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (-reach - offset) / speed, (reach - offset) / speed
    still, inside = speed == 0, np.abs(offset) <= reach
    enter = np.where(still, np.where(inside, -np.inf, np.inf), np.minimum(first, second)).max(0)
    leave = np.where(still, np.where(inside, np.inf, -np.inf), np.maximum(first, second)).min(0)
    return np.where((enter <= leave) & (leave >= 0), np.maximum(enter, 0.0), np.inf)


def _on_axes(a: Boxes, b: Boxes, x: Floats, y: Floats) -> Floats:
    """A vector's parts along the length and width of a and of b, [4, ...]."""
    ca, sa, cb, sb = np.cos(a.heading_rad), np.sin(a.heading_rad), np.cos(b.heading_rad), np.sin(b.heading_rad)
    return np.stack(np.broadcast_arrays(x * ca + y * sa, y * ca - x * sa, x * cb + y * sb, y * cb - x * sb))


def _reach(a: Boxes, b: Boxes) -> Floats:
    """Half of the boxes' summed extents on the same axes, [4, ...]."""
    turn = b.heading_rad - a.heading_rad
    c, s = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    return np.stack(
        np.broadcast_arrays(
            a.half_length_m + b.half_length_m * c + b.half_width_m * s,
            a.half_width_m + b.half_length_m * s + b.half_width_m * c,
            b.half_length_m + a.half_length_m * c + a.half_width_m * s,
            b.half_width_m + a.half_length_m * s + a.half_width_m * c,
        )
    )
