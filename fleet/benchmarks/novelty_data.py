"""Streams of embeddings with rare scenarios planted in them: a drifting mixture, and simulated worlds as the
project's own model sees them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.runtimes.onnx import OnnxPolicy
from edge.sources.world import light_percent, visibility_m
from model.rig import THREE_CAMERAS
from simulation.scenarios import BASE, UNSEEN, Scene, scenes
from simulation.world import World
from streams.contracts.odd import LIGHT, SPEED, VISIBILITY, odd_cell

COMMON = -1
"""The kind of what is not planted."""
IN_VIEW = {"pedestrians": "pedestrian", "cut_in": "cut_in", "triangle": "triangle"}
"""Condition -> the world's tag that says that its object is in view: a clip is named by what is in it."""
SAME_STEPS = 10
"""World steps from one event of a vehicle to its next: 2 s."""
Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Stream:
    """N events in the order in which they come."""

    embeddings: NDArray[np.int8]
    """[N, D] unit vectors times 127."""
    cells: list[str]
    kinds: NDArray[np.int64]
    """[N] index into `names`, or COMMON."""
    names: list[str]
    bytes: NDArray[np.int64]
    """[N] what the clip costs."""
    uncertainty: Floats
    """[N] what the model itself says, larger is less certain."""

    def __len__(self) -> int:
        return len(self.kinds)


@dataclass(frozen=True, slots=True)
class Mixture:
    """Common kinds of events are clusters of few dimensions within many, whose centres turn all the time and of
    which some jump in the middle (a new region); planted kinds are clusters beside common ones, a few events
    each."""

    events: int = 400_000
    common: int = 40
    planted: int = 25
    each: int = 24
    """Events of each planted kind, on average."""
    cells: int = 4
    dimension: int = 64
    rank: int = 6
    """Dimensions of a cluster's own spread."""
    spread: float = 0.45
    apart: float = 1.0
    """Of a planted kind's centre from a common one, in lengths of that centre."""
    turn_rad: float = 0.5
    """By which the centres turn from first to last."""
    jump: float = 0.25
    """Share of the common kinds that become others half way."""
    repeats: float = 0.0
    """Chance that an event is nearly the one before it: a vehicle that says the same again and again."""
    any_cell: bool = False
    """An event's cell says nothing about its kind."""


@dataclass(frozen=True, slots=True)
class Drives:
    """How much is simulated."""

    base: int = 400
    """Drives through what the model was trained on."""
    rare: int = 3
    """Through each unseen condition."""
    seconds: float = 40.0


def mixture(seed: int, m: Mixture) -> Stream:
    """A stream of the mixture; the same seed gives the same."""
    rng = np.random.default_rng(seed)
    time = np.arange(m.events) / m.events
    kinds = _planted(rng, m)
    cluster = rng.choice(m.common, m.events, p=rng.dirichlet(np.full(m.common, 2.0)))
    start, end, after = (_directions(rng, m.common, m.dimension) for _ in range(3))
    jumps = rng.random(m.common) < m.jump
    late = jumps[cluster] & (time > 0.5)
    angle = (m.turn_rad * time)[:, None].astype(np.float32)
    centre = np.where(late[:, None], after[cluster], start[cluster])
    centre = np.cos(angle) * centre + np.sin(angle) * end[cluster]
    beside = m.apart * _directions(rng, m.planted, m.dimension)
    centre += np.where((kinds == COMMON)[:, None], 0, beside[kinds])
    spread = m.spread * rng.uniform(0.6, 1.4, m.common).astype(np.float32)
    vectors = centre + spread[cluster, None] * _noise(rng, cluster, m)
    first = np.where(rng.random(m.events) >= m.repeats, np.arange(m.events), 0)
    vectors = vectors[np.maximum.accumulate(first)] + (0.01 if m.repeats else 0) * vectors
    cells = rng.integers(m.cells, size=m.events) if m.any_cell else cluster % m.cells
    near = np.sort(_unit(vectors) @ _unit(start).T, axis=1)
    return Stream(
        embeddings=np.rint(_unit(vectors) * 127).astype(np.int8),
        cells=[f"right/day/clear/{band}" for band in cells.tolist()],
        kinds=kinds,
        names=[f"planted-{i}" for i in range(m.planted)],
        bytes=_clip_bytes(rng, m.events),
        # A classifier of the common kinds is uncertain where its best two are close.
        uncertainty=near[:, -2] - near[:, -1],
    )


@dataclass(frozen=True, slots=True)
class Fads:
    """Kinds that come up at some time and are then sent by every vehicle: a new building site, a firmware's false
    alarm."""

    count: int = 12
    each: int = 400
    stretch: float = 0.125
    """Part of the stream within which one comes and goes."""
    spread: float = 0.35


def with_fads(stream: Stream, seed: int, f: Fads) -> tuple[Stream, NDArray[np.int64]]:
    """The stream with some of its common events made into fads, each of one cell; and [N] which, or COMMON."""
    rng = np.random.default_rng([seed, f.count])
    units, cells, fads = (
        _unit(stream.embeddings.astype(np.float32)),
        list(stream.cells),
        np.full(len(stream), COMMON),
    )
    stretch = int(f.stretch * len(stream))
    for number in range(f.count):
        start = rng.integers(stretch, len(stream) - stretch)
        rows = start + rng.choice(stretch, f.each, replace=False)
        rows = rows[(stream.kinds[rows] == COMMON) & (fads[rows] == COMMON)]
        centre = units[rows[0]] + _directions(rng, 1, units.shape[1])[0]
        noise = rng.normal(size=(len(rows), units.shape[1])) / math.sqrt(units.shape[1])
        units[rows], fads[rows] = centre + f.spread * noise, number
        for row in rows.tolist():
            cells[row] = stream.cells[rows[0]]
    return replace(stream, embeddings=np.rint(_unit(units) * 127).astype(np.int8), cells=cells), fads


def worlds(seed: int, model: Path, drives: Drives) -> Stream:
    """What the model makes of simulated worlds. Drives come in a random order, 32 at a time. An event of an unseen
    condition is planted where its object is in view, and common where it is not."""
    base, rare = drives.base, drives.rare
    mix = {BASE: float(base)} | dict.fromkeys(UNSEEN, float(rare))
    chosen = scenes(mix, base + rare * len(UNSEEN), seed, "fleet")
    policy, parts = OnnxPolicy(model, THREE_CAMERAS), list[_Seen]()
    for start in range(0, len(chosen), 32):
        parts += _drive(policy, chosen[start : start + 32], drives.seconds, seed)
    rng = np.random.default_rng(seed)
    vectors = np.concatenate([p.embeddings for p in parts])
    return Stream(
        embeddings=np.rint(_unit(vectors) * 127).astype(np.int8),
        cells=[cell for p in parts for cell in p.cells],
        kinds=np.concatenate([p.kinds for p in parts]),
        names=list(UNSEEN),
        bytes=_clip_bytes(rng, len(vectors)),
        uncertainty=np.concatenate([p.uncertainty for p in parts]),
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """One instant of B vehicles."""

    embeddings: Floats
    kinds: NDArray[np.int64]
    cells: list[str]
    uncertainty: Floats


def _drive(policy: OnnxPolicy, batch: list[Scene], seconds: float, seed: int) -> list[_Seen]:
    """The expert drives; the model looks on now and then."""
    seen: list[_Seen] = []
    with World(batch, THREE_CAMERAS, seed) as world:
        for step in range(round(seconds * 5)):
            if step % SAME_STEPS == SAME_STEPS - 1:
                seen.append(_look(policy, world))
            world.step(world.expert().trajectory)
    return seen


def _look(policy: OnnxPolicy, world: World) -> _Seen:
    observation, status = world.observe(), world.status()
    plan = policy.plan(observation)
    kinds = [
        UNSEEN.index(name) if name in UNSEEN and status.tags.get(IN_VIEW.get(name, ""), _ALL)[row] else COMMON
        for row, name in enumerate(s.condition.name for s in world.scenes)
    ]
    cells = [
        odd_cell(
            {
                SPEED: 3.6 * float(speed),
                LIGHT: light_percent(scene.darkness),
                VISIBILITY: visibility_m(scene.fog_per_m),
            },
            scene.region.name,
        )
        for scene, speed in zip(world.scenes, observation.speed_mps, strict=True)
    ]
    return _Seen(plan.embedding, np.array(kinds, np.int64), cells, plan.best_scale_m.mean((1, 2)))


class _Everywhere:
    """True for every row: of conditions that change the whole picture."""

    def __getitem__(self, row: int) -> bool:
        return True


_ALL = _Everywhere()


def _planted(rng: np.random.Generator, m: Mixture) -> NDArray[np.int64]:
    """Most of the events common, the planted ones anywhere in the stream."""
    kinds = np.full(m.events, COMMON, np.int64)
    places = rng.choice(m.events, m.planted * m.each, replace=False)
    kinds[places] = np.repeat(np.arange(m.planted), m.each)
    return kinds


def _noise(rng: np.random.Generator, cluster: NDArray[np.int64], m: Mixture) -> NDArray[np.float32]:
    """[N, D] of length about 1: most of it within each cluster's own few dimensions, heavy in the tails (Student's
    t with 6 degrees of freedom)."""
    bases = rng.normal(size=(m.common, m.rank, m.dimension)).astype(np.float32) / math.sqrt(m.dimension)
    inner = rng.normal(size=(m.events, m.rank)).astype(np.float32) / math.sqrt(m.rank)
    made = np.empty((m.events, m.dimension), np.float32)
    for number, basis in enumerate(bases):
        rows = cluster == number
        made[rows] = inner[rows] @ basis
    made += 0.3 * rng.normal(size=made.shape).astype(np.float32) / math.sqrt(m.dimension)
    return made * np.sqrt(6 / rng.chisquare(6, m.events)).astype(np.float32)[:, None]


def _directions(rng: np.random.Generator, count: int, dimension: int) -> NDArray[np.float32]:
    return _unit(rng.normal(size=(count, dimension)).astype(np.float32))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _clip_bytes(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Around 200 kB."""
    return np.asarray(200_000 * rng.lognormal(0.0, 0.3, count), np.int64)
