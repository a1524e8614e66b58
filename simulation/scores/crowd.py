"""Who is around the vehicles of a world at an instant: traffic, people, the cast, closed stretches of lane."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

from simulation.arrays import Bools, Floats, Ints
from simulation.cast import Cast
from simulation.encounters import DOOR_M, LOOKS, Behaviour, Look
from simulation.scores.trace import CYCLIST, PEDESTRIAN, STATIC, VEHICLE
from simulation.traffic import CAR_LENGTH_M, CAR_WIDTH_M, CARS, FAR_M, PEOPLE, Traffic

PERSON_M = 0.6
"""Side of a pedestrian's box."""
PIECES = 5
"""A closed stretch is told as so many boxes in a row, which follow a bend where one would cut it short."""
KIND: dict[Look, int] = {
    "car": VEHICLE,
    "van": VEHICLE,
    "ambulance": VEHICLE,
    "cyclist": CYCLIST,
    "person": PEDESTRIAN,
    "door": VEHICLE,
}
"""What each look of a cast counts as; a parked car stays a vehicle, as nuPlan has it."""
_KINDS = np.array([KIND[look] for look in LOOKS])


@dataclass(frozen=True, slots=True)
class Crowd:
    """K places for road users around B vehicles, each [B, K]. Who is absent may have any finite values."""

    present: Bools
    track: Ints
    """Who it is: changes where a place is given to another."""
    kind: Ints
    s: Floats
    d: Floats
    v: Floats
    """Along the road, or along the path of who is on one."""
    length_m: Floats
    width_m: Floats
    on_path: Bools
    """Has a pose of its own: the last three columns; the others' follow from s and d."""
    x: Floats
    y: Floats
    heading: Floats


def crowd_of(traffic: Traffic, cast: Cast | None) -> Crowd:
    """Everyone now: the cars, the people, then the cast and PIECES of what is closed, where a world has them."""
    groups = [_traffic(traffic)]
    if cast:
        groups += [_cast(cast), _closed(cast)]
    return Crowd(*(np.concatenate([getattr(g, f.name) for g in groups], 1) for f in fields(Crowd)))


def _traffic(t: Traffic) -> Crowd:
    person = np.arange(CARS + PEOPLE) >= CARS
    s = np.concatenate([t.car_s, t.person_s], 1)
    return _on_the_road(
        s < FAR_M / 2,
        np.concatenate([t.spawns, t.person_spawns], 1),
        np.where(person, PEDESTRIAN, VEHICLE),
        s,
        np.concatenate([t.car_d, t.person_d], 1),
        np.concatenate([t.car_v, np.zeros_like(t.person_v)], 1),
        np.where(person, PERSON_M, CAR_LENGTH_M),
        np.where(person, PERSON_M, CAR_WIDTH_M),
    )


def _cast(cast: Cast) -> Crowd:
    """An open door is part of its car's box."""
    x, y, heading = cast.poses()
    reach = cast.opened * DOOR_M
    forth = np.where(cast.plays(Behaviour.MEET, Behaviour.DRIFT), -1.0, 1.0)
    return Crowd(
        present=cast.visible,
        track=np.broadcast_to(cast.number[:, None], reach.shape),
        kind=_KINDS[cast.look],
        s=cast.s,
        d=cast.d + cast.side[:, None] * reach / 2,
        v=cast.v * forth,
        length_m=cast.size[..., 0],
        width_m=cast.size[..., 1] + reach,
        on_path=cast.on_path,
        x=x,
        y=y,
        heading=heading,
    )


def _closed(cast: Cast) -> Crowd:
    begin, end = cast.closed.T
    there, bodies = begin < FAR_M / 2, cast.bodies()
    piece = ((end - begin) / PIECES)[:, None]
    ones = np.ones((1, PIECES))
    return _on_the_road(
        there[:, None] & (ones > 0),
        cast.number[:, None] * np.ones(PIECES, np.int64),
        STATIC,
        begin[:, None] + piece * (np.arange(PIECES) + 0.5),
        bodies.d[:, -1:] * ones,
        np.zeros((len(piece), PIECES)),
        piece * ones,
        2 * bodies.half_d[:, -1:] * ones,
    )


def _on_the_road(
    present: Bools,
    track: Ints,
    kind: ArrayLike,
    s: Floats,
    d: Floats,
    v: Floats,
    length_m: Floats,
    width_m: Floats,
) -> Crowd:
    none = np.zeros_like(s)
    kinds = np.broadcast_to(np.asarray(kind, np.int64), s.shape)
    length, width = np.broadcast_to(length_m, s.shape), np.broadcast_to(width_m, s.shape)
    return Crowd(present, track, kinds, s, d, v, length, width, none > 0, none, none, none)
