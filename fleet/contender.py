"""What our contenders of the streams benchmark and their peers all run, and how time passes for them. In a file of
its own, as peers have little installed."""

from __future__ import annotations

import os

from streams.contracts.clock import SECOND_NS
from streams.dedup import Dedup
from streams.novelty import NoveltyConfig, NoveltyStage
from streams.selection import Selection, SelectionConfig
from streams.stage import AnyStage
from streams.tagging import Tagging

PACED = "FLEET_BENCHMARK_PACED"
"""Set in its environment where events come at a fixed rate: then time passes by itself, and windows are as long as
a fleet's."""


def paced() -> bool:
    """Whether they do."""
    return bool(os.environ.get(PACED))


def event_ns() -> int:
    """How far each event moves the clock on: a window of selection ends at least every 20,000 events, on any
    machine."""
    return 0 if paced() else SECOND_NS // 1_000


def work(prototypes: int) -> list[AnyStage]:
    """Dedup, tagging, novelty and, last, selection."""
    selection = SelectionConfig() if paced() else SelectionConfig(window_ns=20 * SECOND_NS)
    return [Dedup(), Tagging(), NoveltyStage(NoveltyConfig(prototypes=prototypes)), Selection(selection)]
