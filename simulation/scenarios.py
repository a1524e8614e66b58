"""ONE table: which scenarios exist, and what each draws its scenes from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from simulation.arrays import Bools, Floats, Ints, chance
from simulation.encounters import ENCOUNTERS, LIGHT_LINE, NO_LINE, STOP_LINE, Encounter
from simulation.faults import FAULTS, SOUND, Fault
from simulation.layouts import shape
from simulation.logs import Log
from simulation.regions import REGIONS, Phases, Region
from simulation.roads import HARMONICS, PERIOD_M

Split = Literal["train", "fleet", "heldout"]
LINES = 6
"""Places per road period where a stop line may be."""
__all__ = ["LIGHT_LINE", "NO_LINE", "STOP_LINE"]


class UnknownName(ValueError):
    """A scenario, region, weather, time of day or fault that no table has: says which it has."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What the scenes of one name have in common; probabilities are per line or per spawn."""

    name: str
    regions: tuple[str, ...] = ("right_mph", "right_kmh")
    stop_probability: float = 0.5
    light_probability: float = 0.35
    lead_probability: float = 0.6
    oncoming: int = 2
    parked_probability: float = 0.35
    pedestrians: int = 0
    cut_ins: int = 0
    fog_per_m: tuple[float, float] = (0.0, 0.0)
    """Extinction coefficient range; visibility is about 3 / coefficient (Koschmieder)."""
    darkness: tuple[float, float] = (0.0, 0.0)
    """0 is day; 1 is a night without any light but one's own."""
    rain: tuple[float, float] = (0.0, 0.0)
    """0 is dry, 1 a cloudburst."""
    snow: tuple[float, float] = (0.0, 0.0)
    """0 is none, 1 falls thickly and lies."""
    faults: tuple[str, ...] = ()
    """What is wrong with the cameras, names of FAULTS, drawn evenly."""
    encounters: tuple[str, ...] = ()
    """What happens at its places, names of ENCOUNTERS, drawn evenly."""
    always_turns: bool = False
    """The route turns at every junction; else at half of them."""
    phases: Phases | None = None
    """Of its lights, where they are not the region's."""
    bend: float = 1.0
    """How winding the road is, as a share of the first loop's roads."""
    line_place: tuple[float, float] = (0.3, 0.7)
    """Range of a line's place, as a share of the stretch that it has for itself."""


BASE = "base"
_BASE = Condition(BASE)
CONDITIONS: dict[str, Condition] = {
    condition.name: condition
    for condition in (
        _BASE,
        replace(_BASE, name="left_hand", regions=("left_mph",)),
        replace(_BASE, name="night", darkness=(0.88, 0.96)),
        replace(_BASE, name="fog", fog_per_m=(0.03, 0.06)),
        replace(_BASE, name="pedestrians", pedestrians=2),
        replace(_BASE, name="cut_in", cut_ins=1, lead_probability=0.2, parked_probability=0.0),
        replace(_BASE, name="triangle", regions=("right_triangle",)),
    )
}
_RICH = replace(
    _BASE,
    regions=("us", "uk", "de", "jp"),
    oncoming=0,
    lead_probability=0.0,
    bend=0.5,
    line_place=(0.42, 0.58),
    stop_probability=0.2,
    light_probability=0.2,
)
# Straight: the roads that join a junction are, and some of them are the route itself.
_JUNCTIONS = replace(_RICH, bend=0.0, parked_probability=0.1)
SCENARIOS: dict[str, Condition] = CONDITIONS | {
    condition.name: condition
    for condition in (
        replace(_RICH, name="tailgating", encounters=("tailgater",), oncoming=2, lead_probability=0.5),
        replace(_RICH, name="oncoming_in_lane", encounters=("drifter",), parked_probability=0.0),
        replace(_RICH, name="overtaking_cyclist", encounters=("cyclist",)),
        replace(_RICH, name="zebra_crossing", encounters=("zebra",), oncoming=2),
        replace(_RICH, name="emergency_vehicle", encounters=("ambulance",), parked_probability=0.0),
        replace(_RICH, name="roadworks", encounters=("roadworks",)),
        replace(_JUNCTIONS, name="roundabout", encounters=("roundabout",)),
        replace(_JUNCTIONS, name="unprotected_turn", encounters=("turn",), always_turns=True),
        replace(_RICH, name="opening_door", encounters=("door",), oncoming=1),
        replace(_JUNCTIONS, name="red_light", encounters=("red_light",), oncoming=1, phases=Phases(5, 3, 12, 1)),
        replace(_RICH, name="unseen_sign", regions=("jp", "old_signs", "held_signs"), stop_probability=0.9,
                light_probability=0.0, oncoming=2, lead_probability=0.4),
        replace(_JUNCTIONS, name="town_route", encounters=("turn", "turn", "red_light", "roundabout", "zebra")),
        replace(_RICH, name="rain", rain=(0.5, 1.0), oncoming=2, lead_probability=0.6),
        replace(_RICH, name="snow", snow=(0.4, 1.0), oncoming=2, lead_probability=0.6),
        *(
            replace(_BASE, name=fault, faults=(fault,)) for fault in FAULTS
        ),
        replace(_RICH, name="dusk", darkness=(0.5, 0.7), oncoming=2, lead_probability=0.6),
    )
}  # fmt: skip
"""Every scenario. The first loop's wheel turns on CONDITIONS alone; its measured figures rest on them."""
REPLAY = replace(_JUNCTIONS, name="replay", regions=("us",), stop_probability=0.0, light_probability=0.0)
"""An empty road, for a log to shape and to people (simulation/replay.py)."""
_NONE = (0.0, 0.0)
WEATHERS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "clear": (_NONE, _NONE, _NONE),
    "rain": ((0.5, 1.0), _NONE, _NONE),
    "fog": (_NONE, (0.03, 0.06), _NONE),
    "snow": (_NONE, _NONE, (0.4, 1.0)),
}
"""Ranges of rain, fog per m and snow."""
TIMES_OF_DAY: dict[str, tuple[float, float]] = {"day": (0.0, 0.0), "dusk": (0.5, 0.7), "night": (0.88, 0.96)}
"""Ranges of darkness."""
UNSEEN: tuple[str, ...] = tuple(name for name in CONDITIONS if name != BASE)
"""What the first training set has nothing of."""
EASY: tuple[str, ...] = ("left_hand", "night")
"""Unseen conditions that change the whole image, and so are found and learned easily."""


@dataclass(frozen=True, slots=True)
class Roadside:
    """N fixed objects beside the road."""

    kind: Ints
    """[N], one of HOUSE, TREE, PARKED, POST, LIMIT_SIGN, BOARD."""
    s_m: Floats
    d_m: Floats
    """[N], positive to the left of the centre line."""
    size: Floats
    """[N], 0..1, small to large within its kind."""
    shade: Floats
    """[N, 3], 0..1."""

    def take(self, rows: Bools) -> Roadside:
        """Some of the objects."""
        return Roadside(self.kind[rows], self.s_m[rows], self.d_m[rows], self.size[rows], self.shade[rows])


HOUSE, TREE, PARKED, POST, LIMIT_SIGN, BOARD = range(6)


@dataclass(frozen=True, slots=True)
class Scene:
    """One vehicle's surroundings, drawn from a condition by a seed."""

    condition: Condition
    region: Region
    seed: int
    lane_width_m: float
    limit_mps: float
    amplitude_rad: Floats
    """[len(HARMONICS)]"""
    phase_rad: Floats
    line_s_m: Floats
    """[LINES], ascending; where the front bumper must not pass without right."""
    line_kind: Ints
    """[LINES], NO_LINE, STOP_LINE, LIGHT_LINE, GIVE_WAY_LINE or OPEN_LINE."""
    roadside: Roadside
    sunlight: float
    """Brightness of the day, about 1."""
    sky_rgb: tuple[float, float, float]
    fog_per_m: float
    darkness: float
    rain: float
    snow: float
    encounters: tuple[Encounter | None, ...]
    """What happens at each of the LINES places."""
    fault: Fault
    """What is wrong with the cameras."""
    turn_rad: Floats
    """[LINES], by how much the route turns there, to the left positive."""
    log: Log | None = None
    """The recorded drive that this scene replays."""

    @property
    def phases(self) -> Phases:
        """Of its lights."""
        return self.condition.phases or self.region.phases

    @property
    def bends(self) -> Floats:
        """Arcs of the route, [N, 3]: where each begins, its length in m and its turn in rad."""
        out = []
        for s, encounter, turn in zip(self.line_s_m, self.encounters, self.turn_rad, strict=True):
            found = shape(encounter.layout, turn * self.region.side, self.lane_width_m) if encounter else None
            at = s + found.from_m if found else s
            for length, bend in found.pieces if found else ():
                out.append((at, length, bend * self.region.side))
                at += length
        return np.array(out).reshape(-1, 3)

    @property
    def lane_d_m(self) -> float:
        """Where the middle of the vehicle's lane is."""
        return -self.region.side * self.lane_width_m / 2


def scenes(mix: Mapping[str, float], count: int, seed: int, split: Split) -> list[Scene]:
    """`count` scenes with conditions in the proportions of `mix`, largest remainders first.

    Deterministic; scenes of different splits never share a seed's hash, so none is both learned from and
    examined. Raises UnknownName for an unknown scenario, ValueError for weights that make no mixture.
    """
    names = [
        name for name, number in zip(mix, shares(list(mix.values()), count), strict=True) for _ in range(number)
    ]
    order = np.random.default_rng(scene_seed(split, seed, -1)).permutation(len(names))
    return [scene(names[place], scene_seed(split, seed, i)) for i, place in enumerate(order)]


def scene_seed(split: Split, seed: int, index: int) -> int:
    """A 63-bit seed; the split is hashed into it, so splits are disjoint but for a hash collision."""
    digest = hashlib.sha256(f"{split}/{seed}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def scene(name: str, seed: int) -> Scene:
    """The scene of a scenario's name and a seed. Raises UnknownName."""
    return drawn(condition(name), seed)


def condition(name: str, region: str = "", weather: str = "", time_of_day: str = "", fault: str = "") -> Condition:
    """A row of SCENARIOS, or REPLAY, elsewhere, in other weather or through other cameras if these are given.
    Raises UnknownName for an unknown name of any."""
    rows = SCENARIOS | {REPLAY.name: REPLAY}
    for what, key, known in (
        ("scenario", name, rows),
        ("region", region, REGIONS),
        ("weather", weather, WEATHERS),
        ("time of day", time_of_day, TIMES_OF_DAY),
        ("camera fault", fault, FAULTS),
    ):
        if key not in known and (key or what == "scenario"):
            raise UnknownName(f"unknown {what} {key!r}; known: {', '.join(known)}")
    found = rows[name]
    if region:
        found = replace(found, regions=(region,))
    if weather:
        rain, fog, snow = WEATHERS[weather]
        found = replace(found, rain=rain, fog_per_m=fog, snow=snow)
    if fault:
        found = replace(found, faults=(fault,))
    return replace(found, darkness=TIMES_OF_DAY[time_of_day]) if time_of_day else found


def drawn(condition: Condition, seed: int) -> Scene:
    """The scene of a condition and a seed."""
    rng = np.random.default_rng(seed)
    region = REGIONS[condition.regions[rng.integers(len(condition.regions))]]
    lane_width_m = rng.uniform(3.3, 3.8)
    line_s_m = (np.arange(LINES) + rng.uniform(*condition.line_place, LINES)) * PERIOD_M / LINES
    happens = _encounters(condition, seed)
    falls = max(condition.rain[1], condition.snow[1]) > 0
    grey = max(rng.uniform(0, 1), float(falls))
    sky = np.array([0.50, 0.68, 0.92]) * (1 - grey) + np.array([0.74, 0.76, 0.78]) * grey
    return Scene(
        condition=condition,
        region=region,
        seed=seed,
        lane_width_m=lane_width_m,
        limit_mps=region.limits_mps[rng.integers(len(region.limits_mps))],
        amplitude_rad=rng.uniform(0.3, 1.0, len(HARMONICS))
        * [0.30, 0.25, 0.25, 0.22, 0.12, 0.08]
        * condition.bend,
        phase_rad=rng.uniform(0, 2 * np.pi, len(HARMONICS)),
        line_s_m=line_s_m,
        line_kind=_line_kinds(condition, happens, rng),
        roadside=_roadside(condition, region, lane_width_m, line_s_m, rng),
        sunlight=rng.uniform(0.8, 1.1),
        sky_rgb=(float(sky[0]), float(sky[1]), float(sky[2])),
        fog_per_m=rng.uniform(*condition.fog_per_m),
        darkness=rng.uniform(*condition.darkness),
        rain=rng.uniform(*condition.rain),
        snow=rng.uniform(*condition.snow),
        encounters=happens,
        fault=_fault(condition.faults, seed),
        turn_rad=_turns(condition, happens, region.side, seed),
    )


def shares(weights: Sequence[float], count: int) -> list[int]:
    """`count` in whole parts proportional to weights, largest remainders first. Raises ValueError for weights that
    make no mixture."""
    exact = np.array(weights, float)
    if exact.sum() <= 0 or (exact < 0).any():
        raise ValueError(f"a mixture of {list(weights)} needs weights >= 0 of which one is > 0")
    exact *= count / exact.sum()
    whole = np.floor(exact + 1e-9).astype(int)
    for i in np.argsort(whole - exact, kind="stable")[: count - whole.sum()]:
        whole[i] += 1
    return [int(number) for number in whole]


def _fault(names: Sequence[str], seed: int) -> Fault:
    return FAULTS[names[int(chance(seed, 303) * len(names))]] if names else SOUND


def _encounters(condition: Condition, seed: int) -> tuple[Encounter | None, ...]:
    names = condition.encounters
    picks = [names[int(chance(seed, 300, i) * len(names))] if names else "" for i in range(LINES)]
    found = [ENCOUNTERS.get(name) for name in picks]
    lone = len(names) == 1
    return tuple(e if e and not (lone and i % e.every) else None for i, e in enumerate(found))


def _turns(condition: Condition, happens: Sequence[Encounter | None], side: int, seed: int) -> Floats:
    """Turns of the route that sum up to 0, between two directions at right angles: so it never meets itself."""
    quarter = side * np.pi / 2
    if not condition.always_turns and chance(seed, 301) < 0.5:
        quarter = -quarter
    out, heading = np.zeros(LINES), 0.0
    bending = [i for i, e in enumerate(happens) if e and e.layout in ("turn", "ring")]
    for i in bending:
        turns = condition.always_turns or chance(seed, 302, i) < 0.6
        if (turns and i != bending[-1]) or (i == bending[-1] and heading):
            out[i] = -heading if heading else quarter
        heading += out[i]
    return out


def _line_kinds(condition: Condition, happens: Sequence[Encounter | None], rng: np.random.Generator) -> Ints:
    stop, light = condition.stop_probability, condition.light_probability
    kinds = rng.choice([STOP_LINE, LIGHT_LINE, NO_LINE], LINES, p=[stop, light, 1 - stop - light])
    return np.array([e.line if e else k for e, k in zip(happens, kinds, strict=True)], np.int64)


def _roadside(
    condition: Condition, region: Region, lane_m: float, lines: Floats, rng: np.random.Generator
) -> Roadside:
    """Objects every few metres on both sides, none where a crossing road is."""
    kinds = np.array([HOUSE, TREE, PARKED, POST, LIMIT_SIGN, BOARD])
    spacing_m = np.array([14.0, 11.0, 13.0, 30.0, 120.0, 60.0])
    rows = []
    for side in (1, -1):
        for kind, spacing in zip(kinds, spacing_m, strict=True):
            number = int(PERIOD_M / spacing)
            s = (np.arange(number) + rng.uniform(0, 0.7, number)) * spacing
            near = {PARKED: lane_m + 1.6, POST: lane_m + 1.5, LIMIT_SIGN: lane_m + 2.2, TREE: lane_m + 5.0}
            base = near.get(int(kind), lane_m + (11.0 if kind == HOUSE else 6.0))
            spread = {HOUSE: 8.0, TREE: 9.0, BOARD: 4.0}.get(int(kind), 0.0)
            d = side * (base + rng.uniform(0, 1, number) * spread)
            keep = np.ones(number, bool)
            if kind == PARKED:
                keep = rng.uniform(0, 1, number) < condition.parked_probability
            if kind == LIMIT_SIGN:
                keep = np.full(number, side == -region.side)
            rows.append(np.stack([np.full(number, kind), s, d], 1)[keep & _clear(s, lines, int(kind))])
    table = np.concatenate(rows)
    size, shade = rng.uniform(0, 1, len(table)), rng.uniform(0, 1, (len(table), 3))
    return Roadside(table[:, 0].astype(np.int64), table[:, 1], table[:, 2], size, shade)


def _clear(s: Floats, lines: Floats, kind: int) -> Bools:
    """Away from every line: nothing stands on a crossing road, nothing low hides a sign."""
    after = (s[:, None] - lines + PERIOD_M / 2) % PERIOD_M - PERIOD_M / 2
    before_m = -26.0 if kind in (PARKED, LIMIT_SIGN, BOARD) else -14.0 if kind == TREE else -8.0
    return np.asarray(((after < before_m) | (after > 20.0)).all(1))
