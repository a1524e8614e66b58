"""What partitions gain by sharing what is rare: planted events found, and copies of a fad uploaded, by events that
were spread over partitions, judged apart and together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet.benchmarks.novelty_data import COMMON, Stream
from fleet.benchmarks.novelty_picks import Chosen, batches, by_windows, k_center
from streams.contracts.scenarios import Scenario
from streams.novelty import Models, NoveltyConfig, NoveltyStage
from streams.pooling import Pool, PoolConfig

PARTITIONS = 8
ALONE, APART, POOLED, EVERYTHING = "one partition", f"{PARTITIONS} apart", f"{PARTITIONS} pooled", "k-center"
ARMS = (ALONE, APART, POOLED, EVERYTHING)
NONE = -1
Row = dict[str, Any]


def sharing(stream: Stream, fads: NDArray[np.int64], seed: int, share: float, window: int) -> dict[str, Row]:
    """Each arm on one stream, which is in time order; `fads` [N]: the number of the fad that an event is of."""
    apart = by_partition(stream, seed, NoveltyConfig())
    told = {
        ALONE: [s for part in _alone(stream) for s in part],
        APART: apart,
        POOLED: pooled(apart, PoolConfig(), window),
    }
    chosen = {
        name: by_windows(-np.array([s.novelty.p_value for s in scenarios]), stream.bytes, share, window)
        for name, scenarios in told.items()
    }
    rows = {name: _row(stream, fads, picked) for name, picked in chosen.items()}
    for name, scenarios in told.items():
        rows[name]["called_novel"] = float(np.mean([s.novelty.novel for s in scenarios]))
    return rows | {EVERYTHING: _row(stream, fads, k_center(stream.embeddings, stream.bytes, share))}


def by_partition(stream: Stream, seed: int, config: NoveltyConfig) -> list[Scenario]:
    """The stream as partitions judge it that do not hear of one another; an event goes to any of them."""
    lanes = np.random.default_rng(seed).integers(PARTITIONS, size=len(stream))
    stage = NoveltyStage(config)
    models: list[Models] = [{} for _ in range(PARTITIONS)]
    told: list[Scenario] = []
    for batch in batches(stream):
        lane = lanes[len(told) : len(told) + len(batch)]
        for p in range(PARTITIONS):
            rows = np.flatnonzero(lane == p).tolist()
            models[p], scored = stage.score(models[p], [batch[row] for row in rows])
            for row, scenario in zip(rows, scored, strict=True):
                batch[row] = scenario
        told += batch
    return told


def pooled(scenarios: Sequence[Scenario], config: PoolConfig, window: int) -> list[Scenario]:
    """Window by window as the whole fleet judges them."""
    pool, models, told = Pool(config), Models(), list[Scenario]()
    for start in range(0, len(scenarios), window):
        models, judged = pool.judge(models, scenarios[start : start + window])
        told += judged
    return told


def _alone(stream: Stream) -> list[list[Scenario]]:
    stage, models, told = NoveltyStage(), Models(), list[list[Scenario]]()
    for batch in batches(stream):
        models, scored = stage.score(models, batch)
        told.append(scored)
    return told


def _row(stream: Stream, fads: NDArray[np.int64], chosen: Chosen) -> Row:
    counts = np.bincount(fads[chosen & (fads != NONE)], minlength=int(fads.max()) + 1)
    return {
        "recall": float(chosen[stream.kinds != COMMON].mean()),
        "of_a_fad": float(counts.mean()),
        "bytes_on_fads": float(stream.bytes[chosen & (fads != NONE)].sum() / stream.bytes[chosen].sum()),
    }
