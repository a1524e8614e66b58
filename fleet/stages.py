"""The stages as they run in a fleet: one table, name -> how it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from registry.store import Store
from streams.archive import Archive
from streams.coverage import Coverage
from streams.dedup import Dedup
from streams.engines.round import UnknownStage
from streams.novelty import NoveltyStage
from streams.rollouts import Rollouts
from streams.selection import Selection
from streams.stage import AnyStage
from streams.tagging import Tagging
from streams.triggers import Triggers

STAGES: dict[str, Callable[[Store], AnyStage]] = {
    "dedup": lambda _: Dedup(),
    "tagging": lambda _: Tagging(),
    "novelty": lambda _: NoveltyStage(),
    "selection": lambda _: Selection(),
    "archive": lambda store: Archive(store.uri),
    "coverage": lambda _: Coverage(),
    "triggers": lambda _: Triggers(),
    "rollouts": lambda _: Rollouts(),
}


def make_stages(names: Iterable[str], store: Store) -> list[AnyStage]:
    """With their default configurations. Raises UnknownStage."""
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        raise UnknownStage(f"no stage {', '.join(map(repr, unknown))}; there are: {', '.join(STAGES)}")
    return [STAGES[name](store) for name in names]
