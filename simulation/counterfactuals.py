"""Counterfactuals: an instant of a world once more, with something of it away and all else as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace

import numpy as np

from model.rig import Rig
from simulation.arrays import Bools, Ints
from simulation.cast import ABSENT, Cast
from simulation.dynamics import Motion
from simulation.encounters import OPEN_LINE, Behaviour
from simulation.labels.rule import Kind, Thing
from simulation.scenarios import LIGHT_LINE, LINES, STOP_LINE, Scene
from simulation.traffic import FAR_M
from simulation.world import World

FIXED: frozenset[Kind] = frozenset(("bend",))
"""What cannot be taken away: the road is what all else is placed by."""
MOVING: frozenset[Kind] = frozenset(("car", "person", "cast"))
"""What can be taken out of a world that goes on: nothing of it is built into its scene."""
_OF_SCENES = frozenset(("wet", "_index"))
"""Arrays of a world's parts that follow from its scenes alone, and must be those of the edited ones, or from how
many there are."""


class CannotTakeAway(ValueError):
    """Something that no edit can take out of a world."""


def instant(world: World, rows: Ints, rig: Rig | None, away: Sequence[Sequence[Thing]] = ()) -> World:
    """Some of a world's vehicles as they are now, in a world of their own that is seen by `rig`, each without what
    `away` names for it. The given world is left as it is. Raises CannotTakeAway."""
    gone = away or [()] * len(rows)
    bad = sorted({thing.kind for things in gone for thing in things} & FIXED)
    if bad:
        raise CannotTakeAway(f"a {', '.join(bad)} cannot be taken out of a world")
    scenes = [_without(world, int(row), things) for row, things in zip(rows, gone, strict=True)]
    twin = World(scenes, rig, world.seed)
    _carry(world, twin, rows)
    for row, things in enumerate(gone):
        for thing in things:
            _take_away(twin, row, thing)
    return twin


@contextmanager
def without(world: World, away: Sequence[Sequence[Thing]]) -> Iterator[None]:
    """The world itself without some of what moves in it, by vehicle, for as long as the block lasts; afterwards it
    is as it was before. Raises CannotTakeAway for what is built into a scene."""
    bad = sorted({thing.kind for things in away for thing in things} - MOVING)
    if bad:
        raise CannotTakeAway(f"a {', '.join(bad)} cannot be taken out of a world that goes on")
    before = world.state()
    for row, things in enumerate(away):
        for thing in things:
            _take_away(world, row, thing)
    world.edited()
    try:
        yield
    finally:
        world.restore(before)


def _without(world: World, row: int, things: Sequence[Thing]) -> Scene:
    """The vehicle's scene without those of the things that are built into it."""
    scene = world.scenes[row]
    for thing in things:
        if thing.kind in ("sign", "light"):
            scene = opened(scene, np.arange(LINES) == thing.number % LINES)
        if thing.kind == "weather":
            scene = replace(scene, rain=0.0, snow=0.0)
        if thing.kind == "closed" and world.cast:
            slot = _slot(world.cast, row)
            free = tuple(
                replace(e, closed_m=None) if e and i == slot else e for i, e in enumerate(scene.encounters)
            )
            scene = replace(scene, encounters=free)
    return scene


def opened(scene: Scene, lines: Bools) -> Scene:
    """A scene whose crossing roads at some of its lines, [LINES], have no sign, light or bar any more."""
    ruled = lines & ((scene.line_kind == STOP_LINE) | (scene.line_kind == LIGHT_LINE))
    return replace(scene, line_kind=np.where(ruled, OPEN_LINE, scene.line_kind))


def _slot(cast: Cast, row: int) -> int:
    return int(cast.places.slot[row, cast.number[row] % int(cast.places.count[row])])


def _carry(world: World, twin: World, rows: Ints) -> None:
    """The state of some vehicles and of all around them."""
    twin.time_s = world.time_s
    twin.motion = Motion(**{f.name: getattr(world.motion, f.name)[rows].copy() for f in fields(Motion)})
    pairs: list[tuple[object, object]] = [(world, twin), (world.traffic, twin.traffic)]
    if world.cast and twin.cast:
        pairs += [(world.cast, twin.cast), (world.priority, twin.priority)]
        twin.cast.encounters = [world.cast.encounters[row] for row in rows]
    for source, target in pairs:
        for name, value in vars(source).items():
            if isinstance(value, np.ndarray) and len(value) == len(world) and name not in _OF_SCENES:
                setattr(target, name, value[rows].copy())


def _take_away(world: World, row: int, thing: Thing) -> None:
    """Those of the things that move, and what the state says of the others."""
    traffic, cast = world.traffic, world.cast
    if thing.kind == "car":
        traffic.car_s[row, thing.number] = FAR_M
    if thing.kind == "person":
        traffic.person_s[row, thing.number], traffic.person_walks[row, thing.number] = FAR_M, False
    if thing.kind == "cast" and cast:
        cast.behaviour[row, thing.number] = ABSENT
    if thing.kind == "closed" and cast:
        cast.closed[row], cast.passing_m[row] = FAR_M, 0.0
        # Who works there goes with the works.
        cast.behaviour[row] = np.where(cast.plays(Behaviour.STAND)[row], ABSENT, cast.behaviour[row])
