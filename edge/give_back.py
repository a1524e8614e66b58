"""Which nodes must stay in floating point for a quantised graph to hold its bound: a search of bounded length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

Graph = TypeVar("Graph")


def give_back(
    build: Callable[[frozenset[str]], Graph],
    nodes: Sequence[str],
    error: Callable[[Graph], float],
    bound: float,
    trials: int = 36,
) -> tuple[Graph, frozenset[str]] | None:
    """A graph whose error is within `bound`, and the nodes that it keeps in floating point; None where none is
    found.

    Everything is quantised first. Where that is too much, each node is quantised alone, or each of `trials` groups
    of neighbours where there are more, and the worst are given back: as few as bisection finds. At most
    2 + trials + log2(trials) graphs are built.
    """
    whole = build(frozenset())
    if error(whole) <= bound:
        return whole, frozenset()
    everything = frozenset(nodes)
    groups = [frozenset(g.tolist()) for g in np.array_split(list(nodes), min(trials, len(nodes)))] if nodes else []
    alone = np.nan_to_num([error(build(everything - group)) for group in groups], nan=np.inf)
    worst_first = [groups[i] for i in np.argsort(-alone, kind="stable")]
    found, too_few, enough = None, 0, len(groups)
    while enough - too_few > 1:
        count = (too_few + enough) // 2
        kept = frozenset[str]().union(*worst_first[:count])
        graph = build(kept)
        if error(graph) <= bound:
            found, enough = (graph, kept), count
        else:
            too_few = count
    return found
