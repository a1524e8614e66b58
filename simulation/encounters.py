"""ONE table: what may happen at a place of the road, who takes part, and how they behave.

An encounter is a layout of roads, a line with or without right of way, perhaps a closed stretch of lane, and a
cast: road users on lanes or on paths, each with one of few behaviours. Nothing else tells the scenarios apart.

Lateral places are counted outwards: from the middle of the vehicle's lane towards its kerb.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

Layout = Literal["straight", "cross", "turn", "ring"]
Path = Literal["lane", "near_kerb", "far_kerb", "ahead", "from_left", "from_right", "ring_through", "ring_on"]
"""`lane` runs along the road; the others are traced at their place, see layouts.py."""
Look = Literal["car", "van", "ambulance", "cyclist", "person", "door"]

NO_LINE, STOP_LINE, LIGHT_LINE, GIVE_WAY_LINE, OPEN_LINE = range(5)
"""What is at a place: the last is a crossing road that asks nothing of the vehicle. No scenario draws it: it is
what is left where a sign or a light was taken away (counterfactuals.py)."""


class Behaviour(IntEnum):
    """How a road user moves. `at` of its Role means what stands here."""

    STAND = 0
    """Stands, `at` metres beyond the place."""
    CROSS = 1
    """Drives its path evenly, there `at` seconds after the vehicle could be; brakes for who is in its way."""
    WALK = 2
    """Waits, then walks when the vehicle could be there within `at` seconds, or waits for it."""
    ON_RED = 3
    """Drives its path while the vehicle's light is red, `at` seconds after it turned."""
    RIDE = 4
    """Rides along the lane evenly, from `at` metres ahead of the vehicle."""
    MEET = 5
    """Comes the other way, at the place `at` seconds after the vehicle could be; brakes for who is in its way."""
    DRIFT = 6
    """As MEET, and drifts into the vehicle's lane until `at` seconds before they would meet."""
    CHASE = 7
    """Comes from behind and follows the vehicle with a headway of `at` seconds."""
    RUSH = 8
    """Comes from `at` metres behind, faster than the limit, and overtakes."""
    DOOR = 9
    """Stands, `at` metres beyond the place; a door opens when the vehicle is near."""


@dataclass(frozen=True, slots=True)
class Role:
    """One road user of an encounter; ranges are drawn from evenly."""

    look: Look
    behaviour: Behaviour
    at: tuple[float, float]
    speed_mps: tuple[float, float] = (0.0, 0.0)
    path: Path = "lane"
    out_lanes: float = 0.0
    """Lateral place, in widths of the lane ..."""
    out_m: float = 0.0
    """... and metres, added."""
    chance: float = 1.0
    """Probability that it takes part."""


@dataclass(frozen=True, slots=True)
class Encounter:
    """What happens at a place; metres are counted from its line."""

    name: str
    roles: tuple[Role, ...] = ()
    layout: Layout = "straight"
    line: int = NO_LINE
    closed_m: tuple[float, float] | None = None
    """Stretch of the vehicle's lane that is closed."""
    passing_m: float = 0.0
    """Room to leave beside what is passed; 0: nothing here is to be passed."""
    pull_m: float = 0.0
    """How far the vehicle may draw aside towards the kerb."""
    every: int = 1
    """At every first or second of the road's places."""
    tail_m: float = 30.0
    """It is over when the vehicle is so far beyond."""


B = Behaviour
_ONCOMING_LANE = -1.0
_FROM_AHEAD = Role("car", B.CROSS, (-0.5, 2.0), (7.0, 9.0), "ahead", chance=0.8)

ENCOUNTERS: dict[str, Encounter] = {
    encounter.name: encounter
    for encounter in (
        Encounter("tailgater", (Role("car", B.CHASE, (0.45, 0.7)),), every=2, tail_m=110),
        Encounter(
            "drifter",
            (Role("car", B.DRIFT, (1.45, 1.75), (6.0, 8.0), out_lanes=_ONCOMING_LANE),),
            pull_m=1.0,
        ),
        Encounter(
            "cyclist",
            (
                Role("cyclist", B.RIDE, (42, 55), (3.4, 4.4), out_lanes=0.5, out_m=-0.6),
                Role("car", B.MEET, (1.0, 6.0), (7.0, 9.0), out_lanes=_ONCOMING_LANE, chance=0.7),
            ),
            passing_m=1.5,
            every=2,
            tail_m=140,
        ),
        Encounter(
            "zebra",
            (
                Role("person", B.WALK, (3.2, 5.2), (1.1, 1.6), "near_kerb", chance=0.8),
                Role("person", B.WALK, (3.2, 5.2), (1.1, 1.6), "far_kerb", chance=0.5),
                Role("person", B.WALK, (3.6, 5.2), (1.2, 1.8), "near_kerb", chance=0.3),
            ),
            line=GIVE_WAY_LINE,
            tail_m=15,
        ),
        Encounter(
            "ambulance",
            (Role("ambulance", B.RUSH, (55, 75), (13.0, 16.0)),),
            pull_m=1.2,
            every=2,
            tail_m=110,
        ),
        Encounter(
            "roadworks",
            (
                Role("car", B.MEET, (-1.0, 4.0), (7.0, 9.0), out_lanes=_ONCOMING_LANE, chance=0.8),
                Role("van", B.STAND, (22, 23), out_m=0.4),
                Role("person", B.STAND, (15, 16), out_lanes=0.5, out_m=-0.5),
            ),
            closed_m=(8.0, 28.0),
            passing_m=0.8,
            every=2,
            tail_m=60,
        ),
        Encounter(
            "roundabout",
            (
                Role("car", B.CROSS, (-1.5, 1.0), (5.0, 6.0), "ring_through", chance=0.8),
                Role("car", B.CROSS, (2.0, 5.0), (5.0, 6.0), "ring_on", chance=0.7),
            ),
            layout="ring",
            line=GIVE_WAY_LINE,
            every=2,
            tail_m=75,
        ),
        Encounter(
            "turn",
            (
                _FROM_AHEAD,
                Role("car", B.CROSS, (3.0, 5.5), (7.0, 9.0), "ahead", chance=0.6),
                Role("car", B.CROSS, (-1.0, 3.0), (6.0, 8.0), "from_left", chance=0.5),
            ),
            layout="turn",
            line=GIVE_WAY_LINE,
            tail_m=40,
        ),
        Encounter(
            "door",
            (Role("door", B.DOOR, (6, 14), out_lanes=0.5, out_m=1.0),),
            passing_m=0.7,
            tail_m=30,
        ),
        Encounter(
            "red_light",
            (
                Role("car", B.ON_RED, (2.0, 3.5), (6.5, 8.5), "from_left", chance=0.9),
                Role("car", B.ON_RED, (2.5, 5.0), (6.5, 8.5), "from_right", chance=0.9),
            ),
            layout="cross",
            line=LIGHT_LINE,
            tail_m=20,
        ),
    )
}
CAST = max(len(encounter.roles) for encounter in ENCOUNTERS.values())
"""Road users that one place needs at most."""

SIZE_M: dict[Look, tuple[float, float]] = {
    "car": (4.6, 1.9),
    "van": (5.4, 2.1),
    "ambulance": (5.6, 2.1),
    "cyclist": (1.8, 0.7),
    "person": (0.5, 0.6),
    "door": (4.6, 1.9),
}
"""Length and width."""
LOOKS: tuple[Look, ...] = tuple(SIZE_M)
DOOR_M = 0.95
"""How far an open door reaches towards the lane."""
