"""A checkpoint that drives, over torch: for checks while training. Vehicles use edge/runtimes."""

from __future__ import annotations

import numpy as np
import torch

from model.checkpoint import Checkpoint
from model.network import Output
from model.policy import Observation, Plan
from model.rig import Rig

LARGEST_BATCH = 256
"""More at once is slower: the activations leave the cache."""


class TorchPolicy:
    """A `model.policy.Policy`."""

    def __init__(self, checkpoint: Checkpoint, rig: Rig) -> None:
        self.history, self.gaps = checkpoint.network.history, bool(checkpoint.network.gaps)
        self._net = checkpoint.build()
        self._rays = torch.from_numpy(rig.rays(checkpoint.network.patch_px))

    def plan(self, observation: Observation) -> Plan:
        """See `Policy.plan`."""
        starts = range(0, len(observation.images), LARGEST_BATCH)
        with torch.inference_mode():
            parts = [self._forward(observation.take(slice(at, at + LARGEST_BATCH))) for at in starts]
        return Plan(*(torch.cat(field).numpy() for field in zip(*parts, strict=True)))

    def _forward(self, seen: Observation) -> Output:
        images, past = seen.stacked(self.history)
        return self._net.plan(
            torch.from_numpy(images),
            self._rays,
            torch.from_numpy(seen.speed_mps.astype(np.float32)),
            torch.from_numpy(seen.yaw_rate_radps.astype(np.float32)),
            torch.from_numpy(seen.command.astype(np.int64)),
            torch.from_numpy(past) if self.history > 1 else None,
        )
