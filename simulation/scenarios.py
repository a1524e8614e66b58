"""ONE table: which conditions exist, and what each draws its scenes from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from simulation.arrays import Bools, Floats, Ints
from simulation.regions import REGIONS, Region
from simulation.roads import HARMONICS, PERIOD_M

Split = Literal["train", "fleet", "heldout"]
LINES = 6
"""Places per road period where a stop line may be."""
NO_LINE, STOP_LINE, LIGHT_LINE = 0, 1, 2


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
    """[LINES], NO_LINE, STOP_LINE or LIGHT_LINE."""
    roadside: Roadside
    sunlight: float
    """Brightness of the day, about 1."""
    sky_rgb: tuple[float, float, float]
    fog_per_m: float
    darkness: float

    @property
    def lane_d_m(self) -> float:
        """Where the middle of the vehicle's lane is."""
        return -self.region.side * self.lane_width_m / 2


def scenes(mix: Mapping[str, float], count: int, seed: int, split: Split) -> list[Scene]:
    """`count` scenes with conditions in the proportions of `mix`, largest remainders first.

    Deterministic; scenes of different splits never share a seed's hash, so none is both learned from and
    examined. Raises ValueError for an unknown condition, naming those that exist.
    """
    names = [name for name, number in zip(mix, _shares(mix, count), strict=True) for _ in range(number)]
    order = np.random.default_rng(scene_seed(split, seed, -1)).permutation(len(names))
    return [scene(names[place], scene_seed(split, seed, i)) for i, place in enumerate(order)]


def scene_seed(split: Split, seed: int, index: int) -> int:
    """A 63-bit seed; the split is hashed into it, so splits are disjoint but for a hash collision."""
    digest = hashlib.sha256(f"{split}/{seed}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def scene(name: str, seed: int) -> Scene:
    """The scene of a condition's name and a seed. Raises ValueError for an unknown name."""
    if name not in CONDITIONS:
        raise ValueError(f"unknown condition {name!r}; known: {', '.join(CONDITIONS)}")
    condition = CONDITIONS[name]
    rng = np.random.default_rng(seed)
    region = REGIONS[condition.regions[rng.integers(len(condition.regions))]]
    lane_width_m = rng.uniform(3.3, 3.8)
    line_s_m = (np.arange(LINES) + rng.uniform(0.3, 0.7, LINES)) * PERIOD_M / LINES
    grey = rng.uniform(0, 1)
    sky = np.array([0.50, 0.68, 0.92]) * (1 - grey) + np.array([0.74, 0.76, 0.78]) * grey
    return Scene(
        condition=condition,
        region=region,
        seed=seed,
        lane_width_m=lane_width_m,
        limit_mps=region.limits_mps[rng.integers(len(region.limits_mps))],
        amplitude_rad=rng.uniform(0.3, 1.0, len(HARMONICS)) * [0.30, 0.25, 0.25, 0.22, 0.12, 0.08],
        phase_rad=rng.uniform(0, 2 * np.pi, len(HARMONICS)),
        line_s_m=line_s_m,
        line_kind=_line_kinds(condition, rng),
        roadside=_roadside(condition, region, lane_width_m, line_s_m, rng),
        sunlight=rng.uniform(0.8, 1.1),
        sky_rgb=(float(sky[0]), float(sky[1]), float(sky[2])),
        fog_per_m=rng.uniform(*condition.fog_per_m),
        darkness=rng.uniform(*condition.darkness),
    )


def _shares(mix: Mapping[str, float], count: int) -> list[int]:
    exact = np.array(list(mix.values()), float)
    if exact.sum() <= 0 or (exact < 0).any():
        raise ValueError(f"condition mix {dict(mix)} needs weights >= 0 of which one is > 0")
    exact *= count / exact.sum()
    whole = np.floor(exact + 1e-9).astype(int)
    for i in np.argsort(whole - exact, kind="stable")[: count - whole.sum()]:
        whole[i] += 1
    return [int(number) for number in whole]


def _line_kinds(condition: Condition, rng: np.random.Generator) -> Ints:
    stop, light = condition.stop_probability, condition.light_probability
    return rng.choice([STOP_LINE, LIGHT_LINE, NO_LINE], LINES, p=[stop, light, 1 - stop - light]).astype(np.int64)


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
