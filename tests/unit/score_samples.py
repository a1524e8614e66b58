"""Drives on a straight road along x, made of a few numbers, for tests of scores. The lane is 4 m wide, its middle
is y = 0; oncoming traffic's is beyond y = 2, the road ends at y = -2 and y = 6."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.arrays import Floats
from simulation.scores.trace import STEP_S, VEHICLE, Body, Ego, Events, Others, Place, Trace

BODY = Body(front_m=4.0, rear_m=1.0, width_m=2.0, wheelbase_m=3.0)
"""5 m long; the centre is 1.5 m before the rear axle."""
LANE_M, ROAD_M = 2.0, 6.0


@dataclass(frozen=True)
class Other:
    """A road user that moves evenly; x and y of its centre at the start."""

    x: float
    y: float = 0.0
    speed: float = 0.0
    heading: float = 0.0
    kind: int = VEHICLE
    length: float = 4.0
    width: float = 2.0
    present: bool = True


def clock(steps: int) -> Floats:
    """The time of each step, s."""
    return np.arange(steps, dtype=np.float64) * STEP_S


def motion(x: Floats, y: Floats, heading: Floats, speed: Floats, accel: Floats | float = 0.0) -> Ego:
    """Columns [T] of one drive as [1, T]; the yaw rate is that of the headings."""
    columns = np.broadcast_arrays(x, y, heading, speed, accel)
    yaw_rate = np.gradient(np.unwrap(columns[2]), STEP_S)
    return Ego(*(np.array(c, float)[None] for c in (*columns, yaw_rate)))


def steady(speed: float = 10.0, steps: int = 41, x: float = 0.0, y: float = 0.0, heading: float = 0.0) -> Ego:
    """Straight on; x and y of the rear axle at the start."""
    way = speed * clock(steps)
    return motion(
        x + way * np.cos(heading), y + way * np.sin(heading), np.full(steps, heading), np.full(steps, speed)
    )


def drive(
    ego: Ego | None = None, others: Sequence[Other] = (), *, limit: float = 15.0, route: float = 40.0
) -> Trace:
    """The trace of one drive."""
    ego = steady() if ego is None else ego
    return Trace(
        ego, _others(others, ego.x_m.shape[1]), place(ego, limit), no_events(ego), np.array([route]), BODY
    )


def place(ego: Ego, limit: float = 15.0) -> Place:
    """Where the box is on the straight road."""
    c, s = np.cos(ego.heading_rad), np.sin(ego.heading_rad)
    corners = np.stack(
        [ego.y_m + s * along + c * aside for along in (BODY.front_m, -BODY.rear_m) for aside in (1.0, -1.0)]
    )
    centre = ego.y_m + s * BODY.centre_m
    return Place(
        s_m=ego.x_m + c * BODY.centre_m,
        d_m=centre,
        course_rad=ego.heading_rad.copy(),
        overhang_m=np.maximum(corners.max(0) - ROAD_M, -LANE_M - corners.min(0)),
        several_lanes=(corners.min(0) < LANE_M) & (corners.max(0) > LANE_M),
        wrong_way=(centre > LANE_M) | (centre < -LANE_M),
        junction=np.zeros(centre.shape, bool),
        limit_mps=np.full(centre.shape, limit),
    )


def no_events(ego: Ego) -> Events:
    """Nothing was broken."""
    never = np.zeros(ego.x_m.shape, bool)
    return Events(never, never, never, never)


def event(trace: Trace, name: str, *steps: int) -> Trace:
    """The same drive with an event at these steps."""
    column = getattr(trace.events, name).copy()
    column[0, list(steps)] = True
    return replace(trace, events=replace(trace.events, **{name: column}))


def placed(trace: Trace, **columns: object) -> Trace:
    """The same drive with other columns of its place, broadcast to [1, T]."""
    shape = trace.ego.x_m.shape
    return replace(
        trace, place=replace(trace.place, **{k: np.broadcast_to(np.asarray(v), shape) for k, v in columns.items()})
    )


def _others(others: Sequence[Other], steps: int) -> Others:
    t = clock(steps)[:, None]

    def column(name: str, kind: type = float) -> NDArray[Any]:
        return np.array([[getattr(o, name) for o in others]], kind).reshape(1, -1).repeat(steps, 0)

    speed, heading = column("speed"), column("heading")
    x = column("x") + speed * np.cos(heading) * t
    y = column("y") + speed * np.sin(heading) * t
    return Others(
        present=column("present", bool)[None],
        track=np.zeros((1, *x.shape), np.int64),
        kind=column("kind", np.int64)[None],
        x_m=x[None],
        y_m=y[None],
        heading_rad=heading[None],
        speed_mps=speed[None],
        length_m=column("length")[None],
        width_m=column("width")[None],
        s_m=x[None],
        d_m=y[None],
        course_rad=heading[None],
    )
