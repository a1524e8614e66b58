"""A benchmark's work in processes of its own, each on one core."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

PROCESSES = 2
"""Seeds at a time."""
Row = dict[str, Any]


@contextmanager
def processes(count: int = 1) -> Iterator[ProcessPoolExecutor]:
    """So many, with one thread each."""
    # numpy's and torch's threads spin where they wait: children read this when they start.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        yield pool


def each_seed(
    run: Callable[[int, Path, bool], Row], seeds: Sequence[int], scratch: Path, quick: bool
) -> dict[str, Row]:
    """What comes of each seed, by its name; they run side by side."""
    scratch.mkdir(parents=True, exist_ok=True)
    with processes(min(len(seeds), PROCESSES)) as pool:
        futures = {str(seed): pool.submit(run, seed, scratch, quick) for seed in seeds}
        return {seed: future.result() for seed, future in futures.items()}
