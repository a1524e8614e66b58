"""Prototypes: a bounded set of weighted unit vectors that stands for many events (online k-centres after Charikar,
Chekuri, Feder and Motwani 1997: the radius breathes so that the set stays full)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Index = NDArray[np.intp]
Units = NDArray[np.int8]
"""[B, D] unit vectors times 127. Their dot products are whole numbers below 2^24, so float32 sums are exact and
no batch size, thread or BLAS changes a distance."""


def unit_vectors(embeddings: Sequence[bytes]) -> Units:
    """Int8 embeddings of one length, brought to unit length [B, D]; a zero vector stays zero."""
    whole = np.frombuffer(b"".join(embeddings), np.int8).reshape(len(embeddings), -1).astype(np.float32)
    whole *= (127 / lengths(whole))[:, None]
    return np.asarray(np.rint(whole, out=whole), np.int8)


def as_units(vectors: Floats) -> Units:
    """[B, D] scaled to length 127 and rounded; zero vectors stay zero."""
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))[:, None]
    return np.asarray(np.rint(vectors * (127.0 / np.where(length > 0, length, 1))), np.int8)


def cosine_distances(a: Units, b: Units) -> Floats:
    """1 - cosine of each pair, [A, B]; a zero vector is at distance 1 from everything."""
    x, y = a.astype(np.float32), b.astype(np.float32)
    return np.asarray(1 - cosines(x, y) / lengths(x)[:, None], np.float32)


def cosines(x: Floats, prototypes: Floats) -> Floats:
    """Cosines of each pair times the length of `x`, [B, P]: enough to rank a row by, and one division a row away
    from a cosine."""
    return _scaled(x, prototypes, _inverse(prototypes))


def _scaled(x: Floats, vectors: Floats, inverse: Floats) -> Floats:
    dots = x @ vectors.T
    dots *= inverse
    return np.asarray(dots)


def _inverse(vectors: Floats) -> Floats:
    return np.asarray(1 / lengths(vectors), np.float32)


class _Tables:
    """Prototypes as floats, and one over each length: arrays of a model are never written to, and most steps bring
    a model few events. A process remembers MOST_ROWS rows, then starts afresh (17 MB at 64 components)."""

    MOST_ROWS = 1 << 16

    def __init__(self) -> None:
        self._rows = 0
        self._known: dict[int, tuple[Units, Floats, Floats]] = {}

    def of(self, prototypes: Units) -> tuple[Floats, Floats]:
        known = self._known.get(id(prototypes))
        if known is not None and known[0] is prototypes:
            return known[1], known[2]
        if self._rows > self.MOST_ROWS:
            self._known, self._rows = {}, 0
        vectors = prototypes.astype(np.float32)
        table = vectors, _inverse(vectors)
        self._known[id(prototypes)] = prototypes, *table
        self._rows += len(prototypes)
        return table


_tables = _Tables()


@dataclass(frozen=True, slots=True)
class Near:
    """Where events lie among prototypes, as columns."""

    distances: Floats
    """Mean cosine distance to the k nearest earlier events."""
    who: NDArray[np.int32]
    """The nearest prototype."""
    gaps: Floats
    """Cosine distance to it."""

    def take(self, rows: slice) -> Near:
        """Some of them."""
        return Near(self.distances[rows], self.who[rows], self.gaps[rows])


def nearest(units: Units, prototypes: Units, weights: Floats, k: int) -> Near:
    """Each row among the prototypes. A prototype stands for as many events as it weighs, so that merging alike
    prototypes changes little. Where all together weigh less than k, they are all that counts; where there is none,
    everything is infinitely far."""
    if not len(prototypes):
        nowhere = np.full(len(units), np.inf, np.float32)
        return Near(nowhere, np.zeros(len(units), np.int32), nowhere)
    x = units.astype(np.float32)
    near = _scaled(x, *_tables.of(prototypes))
    each, scale = np.arange(len(x)), 1 / lengths(x)
    who = near.argmax(1)
    best = near[each, who]
    mass = np.minimum(weights[who], np.float32(k))
    total = best * mass
    # Most rows are done: their nearest prototype weighs k or more.
    rows = np.flatnonzero(mass < k)
    if len(rows):
        _add_farther(near[rows], who[rows], weights, k, rows, total, mass)
    distances = np.maximum(1 - total / mass * scale, 0)
    return Near(distances, who.astype(np.int32), 1 - best * scale)


def _add_farther(
    near: Floats,
    who: NDArray[np.intp],
    weights: Floats,
    k: int,
    rows: NDArray[np.intp],
    total: Floats,
    mass: Floats,
) -> None:
    """Add the next nearest prototypes to `total` and `mass` of these rows until k events are counted."""
    for _ in range(near.shape[1] - 1):
        each = np.arange(len(near))
        near[each, who] = -np.inf
        who = near.argmax(1)
        counted = np.minimum(weights[who], k - mass[rows])
        total[rows] += near[each, who] * counted
        mass[rows] += counted
        # Below a millionth of an event nothing is missing but rounding.
        short = k - mass[rows] > 1e-6
        if not short.any():
            return
        rows, near, who = rows[short], near[short], who[short]


def absorb(
    prototypes: Units, weights: Floats, radius: float, block: Units, near: Near, bound: int
) -> tuple[Units, Floats, float]:
    """Events within the radius pull their nearest prototype, farther ones become prototypes, and the set is cut to
    seven eighths of its bound where it exceeds it, so that this is seldom. Also the new radius."""
    far = near.gaps > radius
    prototypes, weights = _pull(prototypes, weights, block[~far], near.who[~far])
    prototypes = np.concatenate([prototypes, block[far]])
    weights = np.concatenate([weights, np.ones(far.sum(), np.float32)])
    return condense(prototypes, weights, radius, bound if len(weights) <= bound else bound - bound // 8)


def condense(prototypes: Units, weights: Floats, radius: float, bound: int) -> tuple[Units, Floats, float]:
    """At most `bound` prototypes, in an order that hangs on nothing but themselves. Those nearest to a heavier one
    give it their weight and go; the radius is the largest distance that was lost so."""
    order = _canonical(prototypes, weights)
    prototypes, weights = prototypes[order], weights[order].copy()
    excess = len(prototypes) - bound
    if excess <= 0:
        return prototypes, weights, radius
    x = prototypes.astype(np.float32)
    near = cosines(x, x)
    near += _no_heirs(len(x))
    heir = near.argmax(1)
    gap = 1 - near[np.arange(len(x)), heir] / lengths(x)
    gone = np.sort(np.argsort(gap, kind="stable")[:excess])
    for i in gone[::-1]:
        weights[heir[i]] += weights[i]
    return np.delete(prototypes, gone, 0), np.delete(weights, gone), max(radius, float(gap[gone].max()))


def _pull(prototypes: Units, weights: Floats, block: Units, nearest: NDArray[np.int32]) -> tuple[Units, Floats]:
    """Each prototype becomes the direction of the weighted mean of itself and the events it is nearest to."""
    if not len(block):
        return prototypes, weights
    order = np.argsort(nearest, kind="stable")
    who, first, counts = np.unique(nearest[order], return_index=True, return_counts=True)
    moved, heavier = prototypes.copy(), weights.copy()
    sums = np.add.reduceat(block[order].astype(np.float32), first, axis=0)
    moved[who] = as_units(prototypes[who] * weights[who, None] + sums)
    heavier[who] += counts.astype(np.float32)
    return moved, heavier


def _canonical(prototypes: Units, weights: Floats) -> NDArray[np.intp]:
    """Heaviest first; equal weights by the prototypes' bytes."""
    if not len(prototypes):
        return np.zeros(0, np.intp)
    start = np.ascontiguousarray(prototypes[:, :8])
    if start.shape[1] == 8:
        first = start.view(">u8")[:, 0].astype(np.uint64)
        order = np.lexsort((first, -weights))
        first, heavy = first[order], weights[order]
        if not np.any((first[1:] == first[:-1]) & (heavy[1:] == heavy[:-1])):
            return order
    # Some begin alike: all their bytes count.
    names = np.ascontiguousarray(prototypes).view(np.dtype((np.void, prototypes.shape[1])))[:, 0]
    _, rank = np.unique(names, return_inverse=True)
    return np.lexsort((rank.reshape(-1), -weights))


@lru_cache(maxsize=64)
def _no_heirs(count: int) -> Floats:
    """[N, N], -inf where the column is no heavier than the row."""
    return np.triu(np.full((count, count), -np.inf, np.float32))


def lengths(x: Floats) -> Floats:
    """[B]; 1 for a zero vector, whose dot products are 0 anyway."""
    squares = np.vecdot(x, x)
    return np.asarray(np.sqrt(np.where(squares > 0, squares, 1)), np.float32)
