"""What each vehicle could see: objects, circumstances, and what happens at the next place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.labels import TAGS
from simulation.arrays import Bools
from simulation.encounters import ENCOUNTERS, GIVE_WAY_LINE, Encounter
from simulation.scenarios import LIGHT_LINE
from simulation.traffic import RED
from simulation.world import NEAR_M, World

UNSEEN = "tailgater"
"""What comes from behind and stays there is in no view ahead."""
BEYOND_M = 5.0
"""A place is in view until its line is so far behind the bumper."""


def tags(world: World) -> NDArray[np.int8]:
    """[B, len(TAGS)], 1 where a tag holds."""
    found = world.status().tags | _circumstances(world) | _encounters(world)
    return np.stack([found[name] for name in TAGS], 1).astype(np.int8)


def _circumstances(world: World) -> dict[str, Bools]:
    number, line_s, kind = world.lines.next(world.front_s)
    lit = (kind == LIGHT_LINE) & (line_s - world.front_s < NEAR_M)
    return {
        "red": lit & (world.lines.colour(number, world.time_s) >= RED),
        "rain": np.array([scene.rain > 0 for scene in world.scenes]),
        "snow": np.array([scene.snow > 0 for scene in world.scenes]),
    }


def _encounters(world: World) -> dict[str, Bools]:
    """Of each encounter: is it what happens next, and is its place or one of its cast in view?"""
    here = np.zeros(len(world), bool) if world.cast is None else _place_near(world) | _cast_near(world)
    names = np.array(world.cast.names if world.cast else [""] * len(world))
    return {name: here & (names == name) for name in ENCOUNTERS if name != UNSEEN}


def _place_near(world: World) -> Bools:
    assert world.cast is not None, "a world without a cast has no places"
    ahead = world.cast.line_s - world.front_s
    marked = np.array([e is not None and _is_marked(e) for e in world.cast.encounters])
    return np.asarray(marked & (ahead < NEAR_M) & (ahead > -BEYOND_M))


def _is_marked(encounter: Encounter) -> bool:
    """Whether its place can be seen without anybody there."""
    built = encounter.layout != "straight" or encounter.line == GIVE_WAY_LINE
    return built or encounter.closed_m is not None


def _cast_near(world: World) -> Bools:
    assert world.cast is not None, "a world without a cast has nobody"
    x, y, _ = world.cast.poses()
    m = world.motion
    dx, dy = x - m.x[:, None], y - m.y[:, None]
    ahead = dx * np.cos(m.heading)[:, None] + dy * np.sin(m.heading)[:, None]
    return np.asarray((world.cast.visible & (ahead > 0) & (np.hypot(dx, dy) < NEAR_M)).any(1))
