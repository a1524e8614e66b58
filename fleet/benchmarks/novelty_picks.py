"""Who chooses which events to upload: novelty on the stream, against uniform, uncertainty, and greedy k-center
that keeps everything in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from fleet.benchmarks.novelty_data import Stream
from streams.contracts.clock import SECOND_NS
from streams.contracts.drive import Trigger, TriggerEvent
from streams.contracts.scenarios import Novelty, Scenario
from streams.novelty import NoveltyConfig, NoveltyStage, NoveltyState
from streams.state import pack

START_NS = 1_790_000_000 * SECOND_NS
BATCH = 4096
CANDIDATES = 512
"""Of greedy k-center: points that are looked at together."""
CHUNK = 16_384
Chosen = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scored:
    """What the novelty stage said of a stream, and what it took."""

    p_values: NDArray[np.float64]
    novel: Chosen
    events_per_s: float
    """Per second of processor time in the stage."""
    held_bytes: list[int]
    """Of its prototypes, reservoirs and open blocks, after each batch."""
    state_bytes: int
    """The whole state at the end, with the ids of events that were seen."""


def score(stream: Stream, config: NoveltyConfig, warm: int = 0) -> Scored:
    """Run the stage over a stream, BATCH events at a time; its speed is that after `warm` events."""
    stage = NoveltyStage(config)
    state, seconds, held = stage.initial(), 0.0, list[int]()
    told: list[Novelty] = []
    for number, batch in enumerate(batches(stream)):
        begun = time.process_time()
        outcome = stage.step(state, batch, START_NS + number * SECOND_NS)
        if number * BATCH >= warm:
            seconds += time.process_time() - begun
        state = outcome.state
        held.append(held_bytes(state))
        told += [e.message.novelty for e in outcome.emits if isinstance(e.message, Scenario)]
    p_values, novel = np.array([t.p_value for t in told]), np.array([t.novel for t in told])
    timed = len(stream) - min(-(-warm // BATCH) * BATCH, len(stream))
    return Scored(p_values, novel, timed / max(seconds, 1e-9), held, len(pack(state)))


def batches(stream: Stream) -> Iterator[list[Scenario]]:
    """The stream as the stage reads it."""
    event = TriggerEvent("e", "v", "b", 0, START_NS, Trigger.SAMPLE, "m", "us", embedding_version="m")
    for start in range(0, len(stream), BATCH):
        rows = range(start, min(start + BATCH, len(stream)))
        vectors = [stream.embeddings[i].tobytes() for i in rows]
        yield [
            Scenario(
                replace(event, event_id=f"{i:032x}", time_ns=START_NS + i * 1_000_000, embedding=vector),
                stream.cells[i],
            )
            for i, vector in zip(rows, vectors, strict=True)
        ]


def held_bytes(state: NoveltyState) -> int:
    """Bytes of all models' arrays."""
    models = [m for cells in state.models.values() for m in cells.values()]
    arrays = (getattr(m, name) for m in models for name in m.__struct_fields__)
    return sum(a.nbytes for a in arrays if isinstance(a, np.ndarray))


def by_windows(scores: NDArray[np.floating], sizes: NDArray[np.int64], share: float, window: int) -> Chosen:
    """In each window of events those with the largest scores, until its share of bytes is spent."""
    chosen = np.zeros(len(scores), bool)
    for start in range(0, len(scores), window):
        rows = slice(start, start + window)
        chosen[rows] = within(np.argsort(-scores[rows], kind="stable"), sizes[rows], share * sizes[rows].sum())
    return chosen


def within(order: Sequence[int] | NDArray[np.intp], sizes: NDArray[np.int64], budget: float) -> Chosen:
    """Down an order as far as the bytes reach."""
    order = np.asarray(order, np.intp)
    chosen = np.zeros(len(sizes), bool)
    chosen[order[np.cumsum(sizes[order]) <= budget]] = True
    return chosen


def k_center(embeddings: NDArray[np.int8], sizes: NDArray[np.int64], share: float) -> Chosen:
    """Greedy k-center (Gonzalez 1985): always the event that is farthest from all chosen ones, by cosine distance,
    the first event first. Exact, though many are chosen between two passes over the data: while the farthest of
    the candidates is farther than everything else was before, it is the farthest of all."""
    points = embeddings.astype(np.float32)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)
    budget = share * sizes.sum() - sizes[0]
    chosen, gaps, new = [0], np.full(len(points), np.inf, np.float32), [0]
    while new:
        _approach(gaps, points, new)
        new = _farthest(gaps, points, sizes, budget)
        budget -= sizes[new].sum()
        chosen += new
    return within(chosen, sizes, np.inf)


def _approach(gaps: NDArray[np.float32], points: NDArray[np.float32], new: list[int]) -> None:
    """Distances to the nearest chosen point, after new ones."""
    for start in range(0, len(points), CHUNK):
        rows = slice(start, start + CHUNK)
        np.minimum(gaps[rows], 1 - (points[rows] @ points[new].T).max(1), out=gaps[rows])
    gaps[new] = 0


def _farthest(
    gaps: NDArray[np.float32], points: NDArray[np.float32], sizes: NDArray[np.int64], budget: float
) -> list[int]:
    """The next points in greedy order, as many as the candidates decide."""
    top = np.argpartition(gaps, -min(CANDIDATES, len(gaps)))[-CANDIDATES:]
    left, others = gaps[top], gaps[top].min()
    between = 1 - points[top] @ points[top].T
    found: list[int] = []
    while (best := int(left.argmax())) >= 0 and left[best] > 0 and (not found or left[best] >= others):
        if (budget := budget - sizes[top[best]]) < 0:
            break
        found.append(int(top[best]))
        left = np.minimum(left, between[best])
        left[best] = 0
    return found
