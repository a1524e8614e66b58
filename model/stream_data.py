"""Batches from a dataset too large to hold: the order of its frames, and what reads ahead along it.

A batch is made of lanes, one for each part of it (`TrainingConfig.parts`). Each lane walks through windows of a
few shards; within a window frames are drawn by weight and shuffled. Every epoch deals the shards to lanes and
windows anew. All of this follows from the manifest and the seed alone, so that any batch of any run can be made
again by whoever needs its parts: a resumed run, or another number of processes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from model.config import TrainingConfig
from model.data import Samples, concatenate, gains, manoeuvre, pick
from model.gradients import part_edges
from model.shards import BadDataset, Dataset, Shard

WINDOW_SHARDS = 2
"""Shards among which frames are shuffled. A lane holds two windows: the present one and the next."""
MAX_READERS = 4
"""Shards that a process reads at once."""


@dataclass(frozen=True, slots=True)
class Window:
    """Some shards that a lane draws from together."""

    epoch: int
    number: int
    """In the lane's epoch."""
    shards: tuple[int, ...]
    """Indices into the dataset's."""
    first: int
    """Frames that the lane has drawn before it, over all epochs."""
    draws: int
    """Frames that are drawn from it."""


class Order:
    """In which order the frames of a dataset are seen. Raises BadDataset where none has a weight."""

    def __init__(self, dataset: Dataset, config: TrainingConfig, seed: int, window: int = WINDOW_SHARDS) -> None:
        mass = np.array([shard.mass for shard in dataset.shards])
        self.dataset, self.lanes, self.seed = dataset, config.parts, seed
        self._edges, self._window = part_edges(config.batch, config.parts), window
        self._gains = gains(mass.sum(0), config.balance)
        self._weight = mass @ self._gains
        self._drawable = np.flatnonzero(self._weight > 0)
        if not len(self._drawable):
            raise BadDataset(f"none of the dataset's {dataset.frames} frames has a weight: there is none to draw")
        self._windows = lru_cache(4096)(self._dealt)

    @property
    def epoch_draws(self) -> int:
        """Frames that each lane draws in an epoch: alike in all, or the lanes would drift apart."""
        return max(self.dataset.frames // self.lanes, 1)

    def needed(self, lane: int, step: int) -> Iterator[tuple[Window, slice]]:
        """What a lane's part of a batch is made of: windows, and which of their draws."""
        size = self._edges[lane + 1] - self._edges[lane]
        at, end = step * size, (step + 1) * size
        while at < end:
            window = self.window_at(lane, at)
            upto = min(end, window.first + window.draws)
            yield window, slice(at - window.first, upto - window.first)
            at = upto

    def window_at(self, lane: int, position: int) -> Window:
        """The window from which a lane draws its frame of that number."""
        windows = self._windows(lane, position // self.epoch_draws)
        return next(w for w in windows if position < w.first + w.draws)

    def rows(self, lane: int, window: Window, samples: Samples) -> NDArray[np.int64]:
        """[draws], which frames of the window's samples are drawn, in their order."""
        rng = np.random.default_rng([self.seed, window.epoch, lane, window.number, 1])
        weight = samples.weight * self._gains[manoeuvre(samples)]
        return np.asarray(rng.permutation(pick(weight, window.draws, rng)), np.int64)

    def _dealt(self, lane: int, epoch: int) -> tuple[Window, ...]:
        """A lane's windows in an epoch; each draws in proportion to its weight. Where there are fewer shards than
        lanes, lanes share them."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self._drawable)
        mine = order[lane % len(order) :: self.lanes]
        chunks = [mine[at : at + self._window] for at in range(0, len(mine), self._window)]
        weight = np.cumsum([0.0, *(self._weight[chunk].sum() for chunk in chunks)])
        edges = epoch * self.epoch_draws + np.rint(weight / weight[-1] * self.epoch_draws).astype(int)
        return tuple(
            Window(epoch, number, tuple(int(i) for i in chunk), int(low), int(high - low))
            for number, (chunk, (low, high)) in enumerate(zip(chunks, itertools.pairwise(edges), strict=True))
        )


Drawn = tuple[Samples, NDArray[np.int64]]
"""A window's samples, and which of them are drawn, in order."""


class Stream:
    """Makes the parts of batches for some lanes, and reads the next windows meanwhile. A context manager."""

    def __init__(
        self, order: Order, read: Callable[[Shard], Samples], lanes: Sequence[int], history: int = 1
    ) -> None:
        """Each frame is seen with `history` instants. `read` blocks, is called from several threads, and raises
        BadShard or what its medium raises."""
        self._order, self._read, self._history = order, read, history
        self._held: dict[int, dict[Window, Future[Drawn]]] = {lane: {} for lane in lanes}
        self._pool = ThreadPoolExecutor(min(len(lanes), MAX_READERS), thread_name_prefix="shards")

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def draw(self, step: int) -> list[Samples]:
        """The parts of a batch, one for each lane. Waits for what is not read yet; raises what `read` raises."""
        return [self._part(lane, step) for lane in self._held]

    def _part(self, lane: int, step: int) -> Samples:
        drawn = [(*self._drawn(lane, window), some) for window, some in self._order.needed(lane, step)]
        pieces = [samples.with_history(rows[some], self._history) for samples, rows, some in drawn]
        return pieces[0] if len(pieces) == 1 else concatenate(pieces)

    def _drawn(self, lane: int, window: Window) -> Drawn:
        """A window of the lane; its next one begins to be read."""
        following = self._order.window_at(lane, window.first + window.draws)
        held = self._held[lane]
        wanted = {w: held.get(w) or self._pool.submit(self._load, lane, w) for w in (window, following)}
        self._held[lane] = wanted
        return wanted[window].result()

    def _load(self, lane: int, window: Window) -> Drawn:
        samples = concatenate([self._read(self._order.dataset.shards[shard]) for shard in window.shards])
        return samples, self._order.rows(lane, window, samples)
