"""The stages as they run in a fleet: one table, name -> how it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

import msgspec

from registry.store import Store
from streams.archive import Archive
from streams.coverage import Coverage
from streams.dedup import Dedup, DedupConfig
from streams.engines.round import UnknownStage
from streams.novelty import NoveltyConfig, NoveltyStage
from streams.pooling import PoolConfig
from streams.rollouts import Rollouts
from streams.selection import Selection, SelectionConfig
from streams.stage import AnyStage
from streams.tagging import Tagging
from streams.triggers import Triggers


def _selection(config: SelectionConfig) -> Selection:
    """A fleet's events come in several partitions: what is rare in one is judged by all."""
    return Selection(replace(config, pool=config.pool or PoolConfig()))


STAGES: dict[str, Callable[[Store], AnyStage]] = {
    "dedup": lambda _: Dedup(),
    "tagging": lambda _: Tagging(),
    "novelty": lambda _: NoveltyStage(),
    "selection": lambda _: _selection(SelectionConfig()),
    "archive": lambda store: Archive(store.uri),
    "coverage": lambda _: Coverage(),
    "triggers": lambda _: Triggers(),
    "rollouts": lambda _: Rollouts(),
}
SETTABLE: dict[str, tuple[type, Callable[[Any], AnyStage]]] = {
    # Those whose limits are a fleet's own: their numbers can be set by name.
    "dedup": (DedupConfig, Dedup),
    "novelty": (NoveltyConfig, NoveltyStage),
    "selection": (SelectionConfig, _selection),
}
Settings = Mapping[str, str]
"""STAGE.FIELD -> value, as text."""


class BadStageSetting(ValueError):
    """A setting that no stage has, or a value that it cannot have: says which there are."""


def make_stages(names: Iterable[str], store: Store, settings: Settings | None = None) -> list[AnyStage]:
    """With their default configurations but for the settings. Raises UnknownStage, BadStageSetting."""
    names, by_stage = list(names), dict[str, dict[str, str]]()
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        raise UnknownStage(f"no stage {', '.join(map(repr, unknown))}; there are: {', '.join(STAGES)}")
    for name, value in (settings or {}).items():
        stage, _, field = name.partition(".")
        if stage not in names:
            raise BadStageSetting(f"{name}: stage {stage} is not among {', '.join(names)}")
        by_stage.setdefault(stage, {})[field] = value
    return [_configured(name, by_stage[name]) if name in by_stage else STAGES[name](store) for name in names]


def _configured(stage: str, settings: Mapping[str, str]) -> AnyStage:
    if stage not in SETTABLE:
        raise BadStageSetting(f"stage {stage} has no settings; those that have: {', '.join(SETTABLE)}")
    config, make = SETTABLE[stage]
    known = [f.name for f in fields(config)]
    for name in settings:
        if name not in known:
            raise BadStageSetting(f"{stage}.{name}: stage {stage} has {', '.join(known)}")
    try:
        return make(msgspec.convert(dict(settings), config, strict=False))
    except ValueError as error:
        raise BadStageSetting(f"{', '.join(f'{stage}.{n}={v}' for n, v in settings.items())}: {error}") from error
