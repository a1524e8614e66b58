"""Samples to learn from: arrays that are allocated once, weights, and where each frame came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import Balance
from model.labels import BadLabels, Labels, check_labels, joined
from model.policy import PLAN_POINTS, PLAN_STEP_S

HORIZON_S = PLAN_POINTS * PLAN_STEP_S
MANOEUVRES = ("standing", "launching", "braking", "turning", "cruising")
STANDING_MPS = 0.5
LAUNCH_M = 1.0
BRAKING_MPS2 = -0.8
TURNING_M = 1.0


class BadSamples(ValueError):
    """Samples that cannot be learnt from: names the array and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Samples:
    """N frames and what should have been driven from each. All arrays are of length N."""

    images: NDArray[np.uint8]
    """[N, C, H, W, 3]."""
    speed_mps: NDArray[np.float32]
    yaw_rate_radps: NDArray[np.float32]
    command: NDArray[np.int64]
    target: NDArray[np.float32]
    """[N, T, 2], waypoints in the vehicle frame as in model.policy.Plan (the word of METRICS.md)."""
    weight: NDArray[np.float32]
    """How often a frame is drawn, relative to the others."""
    source: NDArray[np.int32]
    """Index into `sources`."""
    sources: tuple[str, ...]
    """Clip ids, or the name of a base recording."""
    labels: Labels = field(default_factory=dict)
    """What heads learn, by name (model/labels.py)."""
    before: NDArray[np.int64] | None = None
    """Which of these frames was seen PLAN_PERIOD_S earlier from the same vehicle, -1 where none was; None: of
    none."""
    past: NDArray[np.float32] | None = None
    """[N, T - 1, 2], speed and yaw rate before, NaN where not known, of frames whose images are of T instants."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def nbytes(self) -> int:
        """Bytes of memory the images take."""
        return int(self.images.nbytes)

    def head(self, count: int) -> Samples:
        """The first `count` frames, without a copy."""
        return self.take(slice(0, count))

    def take(self, index: slice | NDArray[np.integer]) -> Samples:
        """Some of the frames: a view for a slice, a copy for indices."""
        arrays = {name: getattr(self, name)[index] for name in ARRAYS}
        labels = {name: label[index] for name, label in self.labels.items()}
        past = None if self.past is None else self.past[index]
        return replace(self, **arrays, labels=labels, before=self._before(index), past=past)

    def with_history(self, rows: slice | NDArray[np.integer], frames: int) -> Samples:
        """Some of the frames, with so many instants each, themselves included: images [n, frames * C, H, W, 3],
        newest first, and `past`. What was not seen is black, and NaN. Raises BadSamples where they are of several
        instants already, and not of as many."""
        chosen = self.take(rows)
        if frames == 1 + (0 if self.past is None else self.past.shape[1]):
            return chosen
        if self.past is not None:
            raise BadSamples(f"frames of {1 + self.past.shape[1]} instants cannot be seen with {frames}")
        at = np.arange(len(self))[rows]
        images, past = [chosen.images], np.full((len(at), frames - 1, 2), np.nan, np.float32)
        for age in range(frames - 1):
            at = np.where(at >= 0, self.before[at], -1) if self.before is not None else np.full(len(at), -1)
            seen = at >= 0
            images.append(np.where(seen[:, None, None, None, None], self.images[at], np.uint8(0)))
            past[seen, age] = np.stack([self.speed_mps[at], self.yaw_rate_radps[at]], 1)[seen]
        return replace(chosen, images=np.concatenate(images, 1), before=None, past=past)

    def _before(self, index: slice | NDArray[np.integer]) -> NDArray[np.int64] | None:
        """`before` of some of the frames, counted among these."""
        if self.before is None:
            return None
        place = np.full(len(self) + 1, -1)
        kept = np.arange(len(self))[index]
        place[kept] = np.arange(len(kept))
        return place[self.before[index]]


ARRAYS = ("images", "speed_mps", "yaw_rate_radps", "command", "target", "weight", "source")
_SIGNALS = ("speed_mps", "yaw_rate_radps")
"""May be NaN: video comes without them."""


def samples_from_arrays(
    images: NDArray[np.uint8],
    *,
    speed_mps: NDArray[np.floating],
    yaw_rate_radps: NDArray[np.floating],
    command: NDArray[np.integer],
    target: NDArray[np.floating],
    source: str | Sequence[str],
    labels: Labels | None = None,
    before: NDArray[np.integer] | None = None,
) -> Samples:
    """Samples of equal weight; `source` is one name for all frames or one per frame. Images are not copied.
    Raises BadSamples for arrays that do not fit together or hold anything that is not finite."""
    count = len(images)
    names = [source] * count if isinstance(source, str) else list(source)
    sources = tuple(dict.fromkeys(names))
    number = {name: i for i, name in enumerate(sources)}
    samples = Samples(
        images,
        np.asarray(speed_mps, np.float32),
        np.asarray(yaw_rate_radps, np.float32),
        np.asarray(command, np.int64),
        np.asarray(target, np.float32),
        np.ones(count, np.float32),
        np.array([number[name] for name in names], np.int32),
        sources,
        dict(labels or {}),
        None if before is None else np.asarray(before, np.int64),
    )
    check(samples)
    return samples


def check(samples: Samples) -> None:
    """Raises BadSamples unless the arrays fit together and are finite, but for signals that are not known
    (NaN)."""
    if samples.images.ndim != 5 or samples.images.shape[-1] != 3 or samples.images.dtype != np.uint8:
        raise BadSamples(f"images must be uint8 [N, C, H, W, 3], not {_describe(samples.images)}")
    if samples.target.shape[1:] != (PLAN_POINTS, 2):
        raise BadSamples(f"target must be [N, {PLAN_POINTS}, 2], not {_describe(samples.target)}")
    for name in ARRAYS[1:]:
        array = getattr(samples, name)
        if len(array) != len(samples) or (name != "target" and array.ndim != 1):
            raise BadSamples(f"{name} is {_describe(array)}, but there are {len(samples)} images")
        wrong = np.isinf(array) if name in _SIGNALS else ~np.isfinite(array)
        bad = np.flatnonzero(wrong.reshape(len(array), -1).any(1))
        if len(bad):
            raise BadSamples(f"{name} is not finite in {len(bad)} frames, first {_where(samples, bad[0])}")
    bad = np.flatnonzero((samples.command < 0) | (samples.command > 3))
    if len(bad):
        raise BadSamples(f"command {samples.command[bad[0]]} is not in 0..3, {_where(samples, bad[0])}")
    _check_before(samples)
    try:
        check_labels(samples.labels, len(samples))
    except BadLabels as error:
        raise BadSamples(str(error)) from error


def _check_before(samples: Samples) -> None:
    before = samples.before
    if before is None:
        return
    if before.shape != (len(samples),):
        raise BadSamples(f"before is {_describe(before)}, but there are {len(samples)} images")
    bad = np.flatnonzero((before < -1) | (before >= len(samples)) | (before == np.arange(len(samples))))
    if len(bad):
        raise BadSamples(f"before {before[bad[0]]} is no other frame, {_where(samples, bad[0])}")


def _describe(array: NDArray[np.generic]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _where(samples: Samples, frame: int) -> str:
    number = int(samples.source[frame])
    name = samples.sources[number] if 0 <= number < len(samples.sources) else "unknown"
    return f"frame {frame} of {name!r}"


def empty(capacity: int, cameras: int, height_px: int, width_px: int) -> Samples:
    """Room for `capacity` frames, allocated at once: growing piece by piece fragments the heap until a
    process of 2 GB takes 10."""
    return Samples(
        np.zeros((capacity, cameras, height_px, width_px, 3), np.uint8),
        np.zeros(capacity, np.float32),
        np.zeros(capacity, np.float32),
        np.zeros(capacity, np.int64),
        np.zeros((capacity, PLAN_POINTS, 2), np.float32),
        np.zeros(capacity, np.float32),
        np.zeros(capacity, np.int32),
        (),
    )


def concatenate(parts: Sequence[Samples]) -> Samples:
    """All frames of all parts in order. Raises BadSamples when there is none or the rigs differ."""
    if not parts:
        raise BadSamples("nothing to concatenate: no samples were given")
    shapes = {part.images.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise BadSamples(f"samples of different rigs cannot be mixed: image shapes {sorted(shapes)}")
    cameras, height_px, width_px, _ = parts[0].images.shape[1:]
    whole = empty(sum(map(len, parts)), cameras, height_px, width_px)
    names = tuple(dict.fromkeys(name for part in parts for name in part.sources))
    number = {name: i for i, name in enumerate(names)}
    at = 0
    for part in parts:
        for name in ARRAYS[:-1]:
            getattr(whole, name)[at : at + len(part)] = getattr(part, name)
        renumber = np.array([number[name] for name in part.sources], np.int32)
        whole.source[at : at + len(part)] = renumber[part.source]
        at += len(part)
    return replace(
        whole, sources=names, labels=_labels(parts), before=_joined_before(parts), past=_joined_past(parts)
    )


def _labels(parts: Sequence[Samples]) -> Labels:
    return joined([part.labels for part in parts], [len(part) for part in parts])


def _joined_before(parts: Sequence[Samples]) -> NDArray[np.int64] | None:
    if all(part.before is None for part in parts):
        return None
    none = [np.full(len(part), -1) if part.before is None else part.before for part in parts]
    first = np.cumsum([0, *map(len, parts)])[:-1]
    return np.concatenate([np.where(b < 0, -1, b + at) for b, at in zip(none, first, strict=True)])


def _joined_past(parts: Sequence[Samples]) -> NDArray[np.float32] | None:
    past = [part.past for part in parts if part.past is not None]
    if past and len(past) < len(parts):
        raise BadSamples(f"{len(past)} of {len(parts)} parts are of several instants each: they cannot be mixed")
    return np.concatenate(past) if past else None


def way_m(samples: Samples) -> NDArray[np.float64]:
    """[N, T], length of the planned way up to each waypoint."""
    steps = np.diff(samples.target, axis=1, prepend=0.0)
    return np.asarray(np.linalg.norm(steps, axis=2).cumsum(1))


def mean_acceleration_mps2(samples: Samples) -> NDArray[np.float64]:
    """[N], the constant acceleration with which the plan's way is driven in its time."""
    return np.asarray(2 * (way_m(samples)[:, -1] - samples.speed_mps * HORIZON_S) / HORIZON_S**2)


def manoeuvre(samples: Samples) -> NDArray[np.int64]:
    """[N] index into MANOEUVRES of what the target does. Braking: over the horizon the mean acceleration
    that explains the distance is below BRAKING_MPS2."""
    end, distance_m = samples.target[:, -1], way_m(samples)[:, -1]
    acceleration = mean_acceleration_mps2(samples)
    slow = samples.speed_mps < STANDING_MPS
    kinds = [slow & (distance_m < LAUNCH_M), slow, acceleration < BRAKING_MPS2, np.abs(end[:, 1]) > TURNING_M]
    return np.select(kinds, range(4), 4).astype(np.int64)


def balanced(samples: Samples, balance: Balance) -> Samples:
    """The samples with their weights multiplied so that manoeuvres are drawn by `balance`'s shares. Those
    that are absent leave their share to the others."""
    weight = samples.weight * gains(masses(samples), balance)[manoeuvre(samples)]
    return replace(samples, weight=weight.astype(np.float32))


def masses(samples: Samples) -> NDArray[np.float64]:
    """The weight of the frames of each manoeuvre, in the order of MANOEUVRES."""
    return np.asarray(np.bincount(manoeuvre(samples), samples.weight, len(MANOEUVRES)))


def gains(mass: NDArray[np.float64], balance: Balance) -> NDArray[np.float64]:
    """What weights are to be multiplied with, by manoeuvre, where each has so much weight: see `balanced`."""
    wanted = np.where(mass > 0, balance.shares, 0.0)
    if not wanted.sum():
        return np.ones(len(mass))
    gain = np.divide(wanted / wanted.sum() * mass.sum(), mass, out=np.zeros(len(mass)), where=mass > 0)
    return np.asarray(np.minimum(gain, balance.largest_gain))


@dataclass(frozen=True, slots=True)
class Mixture:
    """Draws batches from several sets of samples, each with its share of the batch. Batch k depends on the
    seed and on k alone, so that a resumed run sees what an uninterrupted one would have seen."""

    parts: tuple[Samples, ...]
    shares: tuple[float, ...]
    batch: int
    seed: int
    history: int = 1
    """Instants that each frame is seen with."""

    def __post_init__(self) -> None:
        shapes = {part.images.shape[1:] for part in self.parts}
        if len(shapes) > 1:
            raise BadSamples(f"samples of different rigs cannot be mixed: image shapes {sorted(shapes)}")
        for part, share in zip(self.parts, self.shares, strict=True):
            if share > 0 and not part.weight.sum() > 0:
                raise BadSamples(f"a part with share {share:.2f} has no frame to draw ({len(part)} frames)")

    def draw(self, step: int) -> Samples:
        """The batch of a step, copied. Within each part frames are drawn with replacement by weight."""
        rng = np.random.default_rng([self.seed, step])
        counts = self._counts()
        drawn = [(p, pick(p.weight, n, rng)) for p, n in zip(self.parts, counts, strict=True) if n]
        chosen = [part.with_history(rows, self.history) for part, rows in drawn]
        if len(chosen) == 1:
            return chosen[0]
        arrays: dict[str, Any] = {name: np.concatenate([getattr(p, name) for p in chosen]) for name in ARRAYS[:-1]}
        whole = replace(chosen[0], **arrays, source=np.zeros(self.batch, np.int32), sources=("mixture",))
        return replace(whole, labels=_labels(chosen), before=None, past=_joined_past(chosen))

    def _counts(self) -> list[int]:
        """Frames of each part: the shares rounded so that they add up to the batch."""
        edges = np.cumsum((0.0, *self.shares)) / sum(self.shares) * self.batch
        return [int(n) for n in np.diff(np.rint(edges))]


def pick(weight: NDArray[np.floating], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Systematic sampling of `count` frames by weight, rising: none comes up more often than its weight asks,
    rounded up."""
    edges = np.cumsum(weight, dtype=np.float64)
    at = (np.arange(count) + rng.random(count)) / count * edges[-1]
    index = np.searchsorted(edges, at, side="right").clip(max=len(weight) - 1)
    return np.asarray(index, np.int64)
