"""What happened in B drives of T steps at 10 Hz, by columns: all that scores are made of.

Ego poses are of the rear axle, in a world frame; headings in rad, positive to the left. Route coordinates: s along
the middle of the route's lane, d to the left of it, courses against its direction; ego and the others share them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from simulation.arrays import Bools, Floats, Ints
from simulation.dynamics import FRONT_M, REAR_M, WHEELBASE_M
from simulation.traffic import CAR_WIDTH_M

STEP_S = 0.1
VEHICLE, PEDESTRIAN, CYCLIST, STATIC = range(4)
"""Kinds of other road users; STATIC is whatever cannot move by itself."""


@dataclass(frozen=True, slots=True)
class Body:
    """A vehicle's box around its rear axle, m."""

    front_m: float = FRONT_M
    """From the rear axle to the front bumper."""
    rear_m: float = REAR_M
    width_m: float = CAR_WIDTH_M
    wheelbase_m: float = WHEELBASE_M

    @property
    def length_m(self) -> float:
        """From bumper to bumper."""
        return self.front_m + self.rear_m

    @property
    def centre_m(self) -> float:
        """From the rear axle forward to the box's centre."""
        return (self.front_m - self.rear_m) / 2


CAR = Body()


@dataclass(frozen=True, slots=True)
class Ego:
    """The vehicle's motion, each [B, T]."""

    x_m: Floats
    y_m: Floats
    heading_rad: Floats
    speed_mps: Floats
    """Along the heading; below 0 in reverse."""
    accel_mps2: Floats
    """Along the heading."""
    yaw_rate_radps: Floats

    @property
    def lateral_accel_mps2(self) -> Floats:
        """Of the rear axle, where a vehicle does not slip sideways, [B, T]."""
        return self.speed_mps * self.yaw_rate_radps


@dataclass(frozen=True, slots=True)
class Others:
    """K places for other road users, each [B, T, K]. Who is absent may have any finite values, or NaN."""

    present: Bools
    track: Ints
    """Who it is: changes where a place is given to another road user."""
    kind: Ints
    """VEHICLE, PEDESTRIAN, CYCLIST or STATIC."""
    x_m: Floats
    """Of the box's centre."""
    y_m: Floats
    heading_rad: Floats
    speed_mps: Floats
    """Along its heading."""
    length_m: Floats
    width_m: Floats
    s_m: Floats
    """Of the box's centre, in route coordinates."""
    d_m: Floats
    course_rad: Floats


@dataclass(frozen=True, slots=True)
class Place:
    """Where the vehicle's box is on the map, each [B, T]."""

    s_m: Floats
    """Of the box's centre along the route: its differences are progress."""
    d_m: Floats
    """Of the box's centre: its distance from the middle of the route's lane."""
    course_rad: Floats
    overhang_m: Floats
    """How far the outermost corner is beyond the drivable area; below 0 inside of it."""
    several_lanes: Bools
    """The box is in more than one lane, and in none as a whole."""
    wrong_way: Bools
    """The box's centre is in no lane of the route: oncoming traffic's, or none."""
    junction: Bools
    """The box's centre is where lanes merge or cross."""
    limit_mps: Floats


@dataclass(frozen=True, slots=True)
class Events:
    """Rules broken, each [B, T], true at the step where it happened."""

    ran_red: Bools
    missed_stop: Bools
    no_yield: Bools
    """Kept an emergency vehicle waiting."""
    timeout: Bools
    """A scenario was not finished in its time."""


@dataclass(frozen=True, slots=True)
class Trace:
    """B drives of T steps. Raises ValueError for columns of different shapes, for fewer than 2 steps and for
    values that are not finite, naming the column."""

    ego: Ego
    others: Others
    place: Place
    events: Events
    route_m: Floats
    """[B], length of the route, above 0."""
    body: Body = CAR
    history: Ego | None = None
    """[B, H]: the steps just before; comfort looks back on them."""
    planned_before: Ego | None = None
    """[B, T'], T' <= T: where the plan that was made one period earlier would have led, at the first T' steps."""

    def __post_init__(self) -> None:
        shape = self.ego.x_m.shape
        if len(shape) != 2 or shape[1] < 2:
            raise ValueError(f"ego.x_m is {shape}: a trace needs [B, T] with at least 2 steps")
        slots = self.others.present.shape[-1]
        groups = (("ego", self.ego), ("place", self.place), ("events", self.events))
        for name, group in groups:
            _check(name, group, shape)
        _check("others", self.others, (*shape, slots), self.others.present)
        for name, motion in (("history", self.history), ("planned_before", self.planned_before)):
            if motion is not None:
                _check(name, motion, (shape[0], motion.x_m.shape[-1]))
        if self.route_m.shape != shape[:1] or not (self.route_m > 0).all():
            raise ValueError(f"route_m is {self.route_m}: it needs a length above 0 for each of {shape[0]} drives")

    def __len__(self) -> int:
        return len(self.ego.x_m)

    @property
    def steps(self) -> int:
        """T."""
        return int(self.ego.x_m.shape[1])


Columns = TypeVar("Columns", Ego, Others, Place, Events)


def apply(columns: Columns, change: Callable[[Any], Any]) -> Columns:
    """The same record with each column changed."""
    return type(columns)(*(change(getattr(columns, field.name)) for field in fields(columns)))


def pieces(column: NDArray[Any], steps: int, stride: int, history: int = 0) -> NDArray[Any]:
    """Every piece of `steps` steps of a column [B, T, ...], `stride` apart: [B · W, steps, ...], those of one
    drive one after another. Pieces start where `history` steps lie before them. Raises ValueError where none
    fits."""
    starts = np.arange(history, column.shape[1] - steps + 1, stride)
    if not len(starts):
        raise ValueError(f"no piece of {steps} steps after {history} fits into {column.shape[1]}")
    return column[:, starts[:, None] + np.arange(steps)].reshape(-1, steps, *column.shape[2:])


def windows(trace: Trace, steps: int, stride: int, history: int = 0) -> Trace:
    """Every piece of the drives as a drive of its own, as `pieces` cuts them, with the `history` steps before it.
    Raises ValueError as `pieces` does."""

    def now(column: NDArray[Any]) -> NDArray[Any]:
        return pieces(column, steps, stride, history)

    def before(column: NDArray[Any]) -> NDArray[Any]:
        return pieces(column, history + steps, stride)[:, :history]

    ego = apply(trace.ego, now)
    return Trace(
        ego,
        apply(trace.others, now),
        apply(trace.place, now),
        apply(trace.events, now),
        np.repeat(trace.route_m, len(ego.x_m) // len(trace)),
        trace.body,
        apply(trace.ego, before) if history else None,
    )


def chosen(trace: Trace, rows: Bools | Ints) -> Trace:
    """Some of the drives. Raises IndexError for rows that there are not."""

    def take(column: NDArray[Any]) -> NDArray[Any]:
        return column[rows]

    return Trace(
        apply(trace.ego, take),
        apply(trace.others, take),
        apply(trace.place, take),
        apply(trace.events, take),
        trace.route_m[rows],
        trace.body,
        trace.history and apply(trace.history, take),
        trace.planned_before and apply(trace.planned_before, take),
    )


def joined(traces: Sequence[Trace]) -> Trace:
    """The drives of several traces as one. Raises ValueError where they differ in body, steps or places, or where
    there is none."""
    if not traces:
        raise ValueError("no trace to join")
    if any(trace.body != traces[0].body for trace in traces):
        raise ValueError("traces of different bodies cannot be joined: score each body's drives by themselves")

    def column(name: str) -> NDArray[Any]:
        """Of each trace, one below the other; `name` is of a group and a column."""
        return np.concatenate([attrgetter(name)(trace) for trace in traces])

    def group(name: str, of: type[Columns]) -> Columns:
        return of(*(column(f"{name}.{field.name}") for field in fields(of)))

    def motion(name: str) -> Ego | None:
        return None if any(getattr(trace, name) is None for trace in traces) else group(name, Ego)

    return Trace(
        group("ego", Ego),
        group("others", Others),
        group("place", Place),
        group("events", Events),
        column("route_m"),
        traces[0].body,
        motion("history"),
        motion("planned_before"),
    )


def _check(
    name: str, group: Ego | Others | Place | Events, shape: tuple[int, ...], where: Bools | None = None
) -> None:
    for field in fields(group):
        column = getattr(group, field.name)
        if column.shape != shape:
            raise ValueError(f"{name}.{field.name} is {column.shape}, must be {shape}")
        fine = np.isfinite(column)
        if not (fine.all() if where is None else (fine | ~where).all()):
            raise ValueError(f"{name}.{field.name} has values that are not finite")
