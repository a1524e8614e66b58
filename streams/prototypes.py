"""Prototypes: a bounded set of weighted unit vectors that stands for many events (online k-centres after Charikar,
Chekuri, Feder and Motwani 1997: the radius breathes so that the set stays full)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar
from weakref import ref

import numpy as np
from numpy.typing import NDArray

_Value = TypeVar("_Value")
Floats = NDArray[np.float32]
Index = NDArray[np.intp]
Units = NDArray[np.int8]
"""[B, D] unit vectors times 127. Their dot products are whole numbers below 2^24, so float32 sums are exact and
no batch size, thread or BLAS changes a distance."""


class Table(Generic[_Value]):
    """What was made of arrays that are never written to, such as those of a state: most steps change few of them.
    It lives as long as its array."""

    def __init__(self, make: Callable[[NDArray[Any]], _Value]) -> None:
        self._make = make
        self._known: dict[int, tuple[ref[NDArray[Any]], _Value]] = {}

    def of(self, array: NDArray[Any]) -> _Value:
        """As made for this array."""
        name, known = id(array), self._known
        if name not in known:
            known[name] = ref(array, lambda _: known.pop(name)), self._make(array)
        return known[name][1]


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
    dots = x @ prototypes.T
    dots *= _inverse(prototypes)
    return np.asarray(dots)


def _inverse(vectors: Floats) -> Floats:
    return np.asarray(1 / lengths(vectors), np.float32)


def _as_floats(prototypes: Units) -> tuple[Floats, Floats]:
    """As columns, and one over each length."""
    vectors = prototypes.astype(np.float32)
    return vectors.T, _inverse(vectors)


_floats = Table(_as_floats)


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


def nearest(units: Units, sets: Sequence[tuple[Units, Floats]], parts: Sequence[slice], k: int) -> Near:
    """Each row among the prototypes of its part: `sets` are prototypes and their weights, `parts` are rows, one
    after the other. A prototype stands for as many events as it weighs, so that merging alike prototypes changes
    little. Where all together weigh less than k, they are all that counts; where there is none, everything is
    infinitely far."""
    x = units.astype(np.float32)
    near = _near(x, [prototypes for prototypes, _ in sets], parts)
    sizes = [len(weights) for _, weights in sets]
    weights = np.concatenate([*(w for _, w in sets), np.zeros(1, np.float32)])
    begins = np.cumsum([0, *sizes[:-1]])[part_of(parts)]
    who = near.argmax(1)
    best = near[np.arange(len(x)), who]
    nowhere = np.isneginf(best)
    best[nowhere] = 0
    mass = np.minimum(weights[begins + who], np.float32(k))
    mass[nowhere] = k
    total = best * mass
    # Most rows are done: their nearest prototype weighs k or more.
    rows = np.flatnonzero(mass < k)
    if len(rows):
        _add_farther(near[rows], who[rows], weights, begins[rows], k, rows, total, mass)
    scale = 1 / lengths(x)
    distances = np.maximum(1 - total / mass * scale, 0)
    gaps = 1 - best * scale
    distances[nowhere] = gaps[nowhere] = np.inf
    return Near(distances, who.astype(np.int32), gaps)


def part_of(parts: Sequence[slice]) -> Index:
    """[B] the number of each row's part; `parts` are rows, one after the other."""
    return np.repeat(np.arange(len(parts)), [part.stop - part.start for part in parts])


def _near(x: Floats, sets: Sequence[Units], parts: Sequence[slice]) -> Floats:
    """[B, most prototypes] cosines times the length of `x`; -inf where a part has no such prototype."""
    widest = max(map(len, sets))
    near = np.empty((len(x), max(widest, 1)), np.float32)
    for prototypes, part in zip(sets, parts, strict=True):
        count = len(prototypes)
        if count:
            columns, inverse = _floats.of(prototypes)
            here = near[part, :count]
            np.matmul(x[part], columns, out=here)
            here *= inverse
        near[part, count:] = -np.inf
    return near


def _add_farther(
    near: Floats,
    who: NDArray[np.intp],
    weights: Floats,
    begins: NDArray[np.intp],
    k: int,
    rows: NDArray[np.intp],
    total: Floats,
    mass: Floats,
) -> None:
    """Add the next nearest prototypes to `total` and `mass` of these rows until k events are counted, or none is
    left. `begins`: where in `weights` those of a row's prototypes begin."""
    for _ in range(near.shape[1] - 1):
        each = np.arange(len(near))
        near[each, who] = -np.inf
        who = near.argmax(1)
        best = near[each, who]
        left = best > -np.inf
        counted = np.where(left, np.minimum(weights[begins + who], k - mass[rows]), 0)
        total[rows] += np.where(left, best, 0) * counted
        mass[rows] += counted
        # Below a millionth of an event nothing is missing but rounding.
        short = left & (k - mass[rows] > 1e-6)
        if not short.any():
            return
        rows, near, who, begins = rows[short], near[short], who[short], begins[short]


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
    heir, near = _heirs(x)
    gap = 1 - near / lengths(x)
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


def _heirs(x: Floats) -> tuple[NDArray[np.intp], Floats]:
    """The nearest of those before each row, and its cosine times the row's length; -inf for the first."""
    columns, inverse = x.T, _inverse(x)
    heir, near = np.zeros(len(x), np.intp), np.empty(len(x), np.float32)
    for begin in range(0, len(x), _STRIP):
        end = min(begin + _STRIP, len(x))
        # What lies behind the strip is heavier than none of it.
        cosine = x[begin:end] @ columns[:, :end]
        cosine *= inverse[:end]
        cosine[:, begin:] += _not_before()[: end - begin, : end - begin]
        heir[begin:end] = cosine.argmax(1)
        near[begin:end] = cosine[np.arange(end - begin), heir[begin:end]]
    return heir, near


_STRIP = 96


@lru_cache(maxsize=1)
def _not_before() -> Floats:
    """[N, N], -inf where the column is not before the row."""
    return np.triu(np.full((_STRIP, _STRIP), -np.inf, np.float32))


def lengths(x: Floats) -> Floats:
    """[B]; 1 for a zero vector, whose dot products are 0 anyway."""
    squares = np.vecdot(x, x)
    return np.asarray(np.sqrt(np.where(squares > 0, squares, 1)), np.float32)
