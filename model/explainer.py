"""A checkpoint that explains itself: what it would say of what it sees, and where it looked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model.checkpoint import Checkpoint
from model.grammar import Explanation, decoded
from model.heads.language import Language, Said, looked_at
from model.policy import Observation
from model.rig import Rig

LARGEST_BATCH = 256


class CannotExplain(ValueError):
    """A model that has not learnt to explain."""


@dataclass(frozen=True, slots=True)
class Explained:
    """What was said of B frames."""

    said: tuple[Explanation, ...]
    look: NDArray[np.float32]
    """[B, C, rows, columns] of patches: what was looked at when the cause was named. Sums to 1, or less where
    earlier frames were looked at, too."""
    probability: NDArray[np.float32]
    """[B], of the cause."""


class Explainer:
    """Explains what a rig's cameras see. Deterministic, holds no state between calls."""

    def __init__(self, checkpoint: Checkpoint, rig: Rig) -> None:
        """Raises CannotExplain for a model without a language head, BadRig where its patches do not tile the
        rig's images."""
        if not checkpoint.network.language:
            raise CannotExplain("this model has no language head: it was trained with network.language 0")
        patch, camera = checkpoint.network.patch_px, rig.cameras[0]
        self.gaps = bool(checkpoint.network.gaps)
        """Whether speed and yaw rate may be NaN: not known."""
        self._history = checkpoint.network.history
        self._rays = torch.from_numpy(rig.rays(patch))
        self._grid = (len(rig.cameras), camera.height_px // patch, camera.width_px // patch)
        self._net = checkpoint.build()
        head = self._net.heads["language"]
        assert isinstance(head, Language), "the table builds it"
        self._head = head

    def explain(self, seen: Observation) -> Explained:
        """Raises OtherWords (model.heads.language)."""
        starts = range(0, len(seen.images), LARGEST_BATCH)
        with torch.inference_mode():
            parts = [self._say(seen.take(slice(at, at + LARGEST_BATCH))) for at in starts]
        words = torch.cat([part.words for part in parts]).numpy()
        cells = int(np.prod(self._grid))
        look = torch.cat([part.look for part in parts]).numpy()[:, :cells].reshape(-1, *self._grid)
        return Explained(tuple(decoded(row) for row in words), look, torch.cat([p.cause for p in parts]).numpy())

    def shown(self, look: NDArray[np.float32]) -> NDArray[np.float32]:
        """Which patches show what a label `look` [B, LOOKS, 4] is of: shares [B, C, rows, columns]."""
        share, _ = looked_at(self._rays.flatten(0, 1), torch.from_numpy(look))
        return np.asarray(share.numpy().reshape(-1, *self._grid))

    def _say(self, seen: Observation) -> Said:
        images, past = seen.stacked(self._history)
        speed = torch.from_numpy(seen.speed_mps.astype(np.float32))
        yaw_rate = torch.from_numpy(seen.yaw_rate_radps.astype(np.float32))
        scene = self._net.perceive(
            torch.from_numpy(images),
            self._rays,
            speed,
            yaw_rate,
            torch.from_numpy(seen.command.astype(np.int64)),
            torch.from_numpy(past) if self._history > 1 else None,
        )
        return self._head.say(self._head(scene, torch.stack([speed, yaw_rate], -1)))
