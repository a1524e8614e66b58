"""Closed-loop practice: a policy drives in worlds to learn in, and learns there (model/closed_loop.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.checkpoint import Checkpoint
from model.closed_loop import NO_HOOKS, PractiseConfig, PractiseHooks
from model.closed_loop import practise as run_practising
from model.policy import Policy
from model.rig import Rig
from simulation.practice import Meeting, meet
from simulation.scenarios import Condition, drawn, scene_seed


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a policy practises."""

    conditions: Sequence[Condition]
    """Drawn evenly."""
    rig: Rig
    vehicles: int = 24
    """Drives of a round, each in a scene of its own that no other round has."""
    seconds: float = 12.0
    every: int = 5
    """Plans from one frame to the next."""

    def drive(self, policy: Policy, seed: int, number: int) -> Meeting:
        """A round."""
        first = number * self.vehicles
        scenes = [
            drawn(self.conditions[i % len(self.conditions)], scene_seed("train", seed, first + i))
            for i in range(self.vehicles)
        ]
        return meet(policy, scenes, self.rig, self.seconds, seed, self.every)


def practise(
    start: Checkpoint, ground: Ground, config: PractiseConfig, *, seed: int, hooks: PractiseHooks = NO_HOOKS
) -> Checkpoint:
    """The policy after its rounds. Raises BadGroups, NonFiniteLoss, CannotResume."""
    return run_practising(
        start,
        lambda policy, number: ground.drive(policy, seed, number),
        ground.rig,
        config,
        seed=seed,
        hooks=hooks,
    )
