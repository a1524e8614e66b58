"""ONE table: what can be put into a scene's way that was not there. The rest of the scene stays as it was."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simulation.encounters import ENCOUNTERS
from simulation.roads import PERIOD_M
from simulation.scenarios import LINES, Scene, UnknownName


@dataclass(frozen=True, slots=True)
class Edit:
    """An encounter, and how far before its line the vehicle is when it shows best."""

    encounter: str
    ahead_m: float


EDITS: dict[str, Edit] = {
    "oncoming": Edit("drifter", 14.0),
    "pedestrian": Edit("zebra", 16.0),
    "cyclist": Edit("cyclist", 0.0),
    "door": Edit("door", 8.0),
    "roadworks": Edit("roadworks", 8.0),
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
