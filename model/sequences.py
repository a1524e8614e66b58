"""Drives to learn a world from: pictures at 10 Hz, and how the vehicle moved from each to the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEP_S = 0.1
"""From one picture to the next."""
CONTEXT = 2
"""Pictures that a dream begins with: two show who moves."""
TOP_SPEED_MPS, TOP_YAW_RATE_RADPS = 90.0, 3.0
"""Beyond these an action is a mistake of units."""


class BadSequences(ValueError):
    """Sequences or actions that cannot be learnt or dreamt from: names the array and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """N drives of T pictures each."""

    images: NDArray[np.uint8]
    """[N, T, C, H, W, 3], RGB, STEP_S apart."""
    actions: NDArray[np.float32]
    """[N, T - 1, 2]: mean speed in m/s and yaw rate in rad/s, positive to the left, from picture t to t + 1."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def length(self) -> int:
        """Pictures in each drive (T)."""
        return int(self.images.shape[1])

    def window(self, start: int, length: int) -> Sequences:
        """The same stretch of every drive, without a copy."""
        return Sequences(self.images[:, start : start + length], self.actions[:, start : start + length - 1])

    def draw(self, count: int, length: int, cameras: list[int], rng: np.random.Generator) -> Sequences:
        """`count` stretches of random drives from random instants, seen by some cameras, copied."""
        drive = rng.integers(len(self), size=count)[:, None]
        at = rng.integers(self.length - length + 1, size=count)[:, None] + np.arange(length)
        return Sequences(self.images[drive, at][:, :, cameras], self.actions[drive, at[:, :-1]])


def check(sequences: Sequences) -> None:
    """Raises BadSequences unless the arrays fit together, are finite and can be in these units."""
    images, actions = sequences.images, sequences.actions
    if images.ndim != 6 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise BadSequences(f"images must be uint8 [N, T, C, H, W, 3], not {images.dtype} {list(images.shape)}")
    if len(images) == 0 or images.shape[1] <= CONTEXT:
        raise BadSequences(
            f"{len(images)} drives of {images.shape[1]} pictures: give at least one, longer than {CONTEXT}"
        )
    if actions.shape != (len(images), images.shape[1] - 1, 2):
        raise BadSequences(
            f"actions must be [{len(images)}, {images.shape[1] - 1}, 2] for these images, not "
            f"{list(actions.shape)}"
        )
    check_actions(actions)


def check_actions(actions: NDArray[np.floating]) -> None:
    """Raises BadSequences unless actions [..., 2] are finite and can be m/s and rad/s."""
    if actions.shape[-1:] != (2,):
        raise BadSequences(f"actions must be [..., 2] (speed, yaw rate), not {list(actions.shape)}")
    bad = ~np.isfinite(actions) | (np.abs(actions) > [TOP_SPEED_MPS, TOP_YAW_RATE_RADPS])
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise BadSequences(
            f"action {actions[place[:-1]].tolist()} at {list(place[:-1])} is not a speed in m/s (up to "
            f"{TOP_SPEED_MPS:g}) and a yaw rate in rad/s (up to {TOP_YAW_RATE_RADPS:g})"
        )
