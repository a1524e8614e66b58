"""A policy driven in a dream: the vehicle's dynamics are known, what it sees is a world model's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.policy import PLAN_PERIOD_S, Memory, Observation, Plan, Policy, frames_seen
from simulation.arrays import Floats, Images, in_frame
from simulation.dynamics import Motion, advance, control
from simulation.world import PHYSICS_S, World


class Dream(Protocol):
    """What goes on to be seen. `step` is called once for every PHYSICS_S, in order; may block for inference."""

    def step(self, action: NDArray[np.floating]) -> Images:
        """Pictures [B, C, H, W, 3] after moving by actions [B, 2]: mean speed in m/s, yaw rate in rad/s."""
        ...


@dataclass(frozen=True, slots=True)
class Imagined:
    """An episode that was dreamt, or the same one driven; K plans, positions after each."""

    images: Images
    """[K, B, C, H, W, 3], seen after each plan."""
    place_m: Floats
    """[B, K, 2]: x ahead and y to the left of where it began."""


def imagine(policy: Policy, dream: Dream, first: Observation, motion: Motion, plans: int) -> Imagined:
    """Drives `plans` plans of PLAN_PERIOD_S in a dream that has begun with `first`; the route command stays.
    `motion` is not changed. Raises what the dream raises."""
    moving, seen, planner = _copied(motion), first, _Planner(policy)
    images, places = [], []
    for _ in range(plans):
        accel, curvature = control(planner.plan(seen).best, moving.speed, moving.curvature)
        for _ in range(round(PLAN_PERIOD_S / PHYSICS_S)):
            heading = moving.heading
            metres = advance(moving, accel, curvature, PHYSICS_S)
            pictures = dream.step(np.stack([metres, moving.heading - heading], -1) / PHYSICS_S)
        seen = replace(
            seen,
            images=pictures,
            speed_mps=moving.speed.astype(np.float32),
            yaw_rate_radps=moving.yaw_rate.astype(np.float32),
        )
        images.append(pictures)
        places.append(_from(motion, moving))
    return Imagined(np.stack(images), np.stack(places, 1))


def driven(policy: Policy, world: World, plans: int) -> Imagined:
    """The same in the world itself, which goes on by so much. Raises RuntimeError for a world without cameras."""
    start = _copied(world.motion)
    images, places, seen, planner = [], [], world.observe(), _Planner(policy)
    for _ in range(plans):
        world.step(planner.plan(seen).best)
        seen = world.observe()
        images.append(seen.images)
        places.append(_from(start, world.motion))
    return Imagined(np.stack(images), np.stack(places, 1))


class _Planner:
    """A policy that is shown the past it wants, from its first plan on."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self._memory, self._plans = policy, Memory(), 0

    def plan(self, seen: Observation) -> Plan:
        time_ns = round(self._plans * PLAN_PERIOD_S * 1e9)
        self._plans += 1
        return self._policy.plan(self._memory.recall(seen, time_ns, frames_seen(self._policy)))


def _copied(motion: Motion) -> Motion:
    return Motion(*(getattr(motion, name).copy() for name in ("x", "y", "heading", "speed", "accel", "curvature")))


def _from(start: Motion, now: Motion) -> Floats:
    return np.stack(in_frame(now.x - start.x, now.y - start.y, start.heading), -1)
