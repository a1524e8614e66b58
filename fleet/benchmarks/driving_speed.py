"""How fast worlds are: vehicles moved on and seen through all their cameras, by second of one core."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median
from typing import Any

from model.rig import THREE_CAMERAS
from simulation.scenarios import BASE, SCENARIOS, scenes
from simulation.world import World

LEAST_PER_S = 800.0
"""Of three-camera rigs in the plain world."""
WORLDS: Mapping[str, Mapping[str, float]] = {"plain": {BASE: 1.0}, "every scenario": dict.fromkeys(SCENARIOS, 1.0)}
VEHICLES = 48


def speeds(seed: int, rounds: int, plans: int) -> dict[str, Any]:
    """World -> rigs per second of CPU in each round, the worlds in turn, and their median. A rig is one vehicle at
    one plan: the expert drives it on, and each of its cameras is rendered."""
    found: dict[str, list[float]] = {name: [] for name in WORLDS}
    for number in range(rounds):
        for name, mix in WORLDS.items():
            found[name].append(_per_second(mix, seed + number, plans))
    return {name: {"each": each, "per_s": median(each)} for name, each in found.items()}


def _per_second(mix: Mapping[str, float], seed: int, plans: int) -> float:
    with World(scenes(mix, VEHICLES, seed, "fleet"), THREE_CAMERAS, seed) as world:
        world.observe()  # what is made once for a world is not its speed
        world.step(world.expert().trajectory)
        began = time.process_time()
        for _ in range(plans):
            world.observe()
            world.step(world.expert().trajectory)
        return VEHICLES * plans / (time.process_time() - began)
