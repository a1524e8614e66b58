"""Calibration: distances to p-values whose threshold is the false-alarm rate, also while the fleet drifts.

The p-value of a distance is its smoothed conformal rank among recent distances (Vovk, Gammerman and Shafer 2005,
section 2.2): uniform where events are exchangeable. Every distance, kept ones too, was measured against what was
known *before* its event (prequentially, Dawid 1984), so an event never meets a prototype that has absorbed it.
What is not exchangeable (start-up, drift, one vehicle sending the same thing again and again) is met twice: a
slot of the reservoir is chosen by the hash of the event's id and overwritten, so that a distance stays for a
geometric number of events with mean `reservoir`; and the raw p-value at which an event is called novel, the
level, falls by a step for each event called novel and rises while none is (adaptive conformal inference, Gibbs
and Candes 2021, eq. 2). Their proposition 4.1 bounds the long-run error whatever the distances do: after T
events the rate lies within (range of the level) / (step T) of the wanted one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from streams.prototypes import Floats, part_of

Hashes = NDArray[np.uint32]
Reals = NDArray[np.float64]
Counts = NDArray[np.intp]
HIGHEST = 4.0
"""The level rises to at most this many times the false-alarm rate."""


def hashes(names: Iterable[str]) -> Hashes:
    """One for each id; slots, orders and ties are derived from it."""
    return np.array([crc32(name.encode()) for name in names], np.uint32)


def even(hashed: Hashes) -> NDArray[np.float64]:
    """A number in (0, 1) for each hash, as good as random (the finaliser of MurmurHash3, Appleby 2011)."""
    x = hashed.copy()
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x ^= x >> np.uint32(shift)
        x *= np.uint32(factor)
    x ^= x >> np.uint32(16)
    return (x + 0.5) / 2**32


def conformal(
    distances: Floats, recent: Sequence[Floats], parts: Sequence[slice], ties: Reals
) -> tuple[Reals, Counts]:
    """Smoothed p-values of distances, each among the sorted `recent` ones of its part, and how many these are.
    `parts` are rows, one after the other; `ties` in (0, 1) share out equal ranks."""
    counts = np.array([len(ordered) for ordered in recent], np.intp)
    each = part_of(parts)
    known, before = counts[each], (np.cumsum(counts) - counts)[each]
    # One search in all at once: each part's distances lie behind those of the part before it. Exact, as a cosine
    # distance is a whole number of 2^-24 and at most 2.
    row = np.concatenate([np.zeros(0, np.float32), *recent]) + np.repeat(_APART * np.arange(len(parts)), counts)
    asked = np.clip(distances, -_APART / 4, _APART / 4) + _APART * each
    to_right = row.searchsorted(asked, "right") - before
    to_left = row.searchsorted(asked, "left") - before
    return np.asarray((known - to_right + ties * (to_right - to_left + 1)) / (known + 1)), known


_APART = 1024.0
"""More than four times any distance."""


def levelled(raw: Reals, level: Reals, alpha: float) -> Reals:
    """[B] p-values stretched so that what was its `level` becomes `alpha`; the order and 1 stay. A level of 0 or
    less lets none come down to `alpha`."""
    high = 1 - (1 - raw) * ((1 - alpha) / (1 - level))
    low = raw * (alpha / np.where(level > 0, level, 1))
    return np.asarray(np.where((raw <= level) & (level > 0), low, high))


def next_level(level: float, alpha: float, judged: int, novel: int, step: float, lowest: float) -> float:
    """The level after a block: `step` for each event (gamma of Gibbs and Candes); `lowest` in units of `alpha`."""
    moved = level + step * (alpha * judged - novel)
    return min(max(moved, lowest * alpha), HIGHEST * alpha, (1 + alpha) / 2)


@lru_cache(maxsize=4096)
def unlikely_many(alpha: float, judged: int) -> int:
    """So many novel ones among `judged` have a chance of about 1 in 700: mean and three deviations."""
    return math.ceil(alpha * judged + 3 * math.sqrt(alpha * judged)) + 1
