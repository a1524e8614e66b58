"""What every simulation file needs: array names, angle wrap, and randomness that has no state."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Images = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


def wrap(angle_rad: Floats) -> Floats:
    """Angles in [-pi, pi)."""
    return np.asarray((angle_rad + np.pi) % (2 * np.pi) - np.pi)


def in_frame(dx: ArrayLike, dy: ArrayLike, heading_rad: ArrayLike) -> tuple[Floats, Floats]:
    """Displacements as one sees them who is headed there: forward, and to the left."""
    x, y, cos, sin = np.asarray(dx), np.asarray(dy), np.cos(heading_rad), np.sin(heading_rad)
    return x * cos + y * sin, y * cos - x * sin


def chance(seed: ArrayLike, *counters: ArrayLike) -> Floats:
    """Uniform numbers in [0, 1) that depend on nothing but their arguments (broadcast together).

    So a scene unfolds alike whichever other scenes share its batch. SplitMix64's finalizer (Steele et al.,
    "Fast splittable pseudorandom number generators", OOPSLA 2014), once for each argument.
    """
    with np.errstate(over="ignore"):
        state = _mix(np.asarray(seed).astype(np.uint64))
        for counter in counters:
            state = _mix(state + np.asarray(counter).astype(np.int64).view(np.uint64))
    return np.asarray((state >> np.uint64(11)).astype(np.float64) / 2.0**53)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
