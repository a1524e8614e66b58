"""ONE table: what can be put into a scene's way that was not there. The rest of the scene stays as it was."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simulation.encounters import ENCOUNTERS
from simulation.roads import PERIOD_M
from simulation.scenarios import LINES, Scene, UnknownName
from simulation.world import World

WAITED_S = 10.0
"""For so long at most one waits for an edit to show."""


@dataclass(frozen=True, slots=True)
class Edit:
    """An encounter, and how near ahead of the vehicle who takes part shows best."""

    encounter: str
    shows_m: float


EDITS: dict[str, Edit] = {
    "oncoming": Edit("drifter", 32.0),
    "pedestrian": Edit("zebra", 25.0),
    "cyclist": Edit("cyclist", 22.0),
    "door": Edit("door", 20.0),
    "roadworks": Edit("roadworks", 28.0),
}
"""All of them on straight road: a junction would be another road, not another event on this one."""


def edited(scene: Scene, name: str, at_m: float) -> Scene:
    """The scene with an edit whose line is `at_m` along the road: the line next to it is moved there and becomes
    the edit's. Raises UnknownName."""
    if name not in EDITS:
        raise UnknownName(f"unknown edit {name!r}; known: {', '.join(EDITS)}")
    encounter = ENCOUNTERS[EDITS[name].encounter]
    place = at_m % PERIOD_M
    slot = min(int(np.searchsorted(scene.line_s_m, place)), LINES - 1)
    line_s_m, line_kind = scene.line_s_m.copy(), scene.line_kind.copy()
    line_s_m[slot], line_kind[slot] = place, encounter.line
    happens = tuple(encounter if i == slot else e for i, e in enumerate(scene.encounters))
    turn_rad = np.where(np.arange(LINES) == slot, 0.0, scene.turn_rad)
    return replace(scene, line_s_m=line_s_m, line_kind=line_kind, encounters=happens, turn_rad=turn_rad)


def shows(world: World, name: str) -> bool:
    """Whether someone of that edit is near ahead of the first vehicle."""
    if world.cast is None:
        return False
    ahead = world.cast.s[0] - world.front_s[0]
    return bool((world.cast.visible[0] & (ahead > 0) & (ahead < EDITS[name].shows_m)).any())
