"""ONE table: which heads a network may have beside the one that drives, what each learns from, what it counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import nn

from model.config import NetworkConfig
from model.heads.head import Head
from model.heads.language import Language
from model.heads.motion import Motion
from model.heads.occupancy import Occupancy
from model.heads.risk import Risk
from model.heads.tags import Tags


@dataclass(frozen=True, slots=True)
class Row:
    """One head."""

    build: Callable[[NetworkConfig], Head[Any]]
    labels: tuple[str, ...]
    """Names of model.labels.LABELS, all of which it needs."""
    weight: float
    """Of its loss against that of imitation."""


HEADS: Mapping[str, Row] = MappingProxyType(
    {
        "occupancy": Row(Occupancy, ("occupancy",), 0.3),
        "tags": Row(Tags, ("tags",), 0.2),
        "motion": Row(Motion, ("motion",), 0.3),
        "risk": Row(Risk, ("risk",), 0.1),
        "language": Row(Language, ("words", "look"), 0.5),
    }
)
"""By name, which is also that of the NetworkConfig's field: 0 leaves the head out."""


def heads_of(config: NetworkConfig) -> nn.ModuleDict:
    """The heads that a configuration asks for, freshly initialised."""
    return nn.ModuleDict({name: row.build(config) for name, row in HEADS.items() if getattr(config, name)})


def each(heads: nn.ModuleDict) -> Iterator[tuple[str, Head[Any]]]:
    """A network's heads by name."""
    for name, head in heads.items():
        assert isinstance(head, Head), "HEADS builds heads"
        yield name, head


def untaught(config: NetworkConfig, labels: Iterable[str]) -> list[str]:
    """The heads that a configuration asks for and that these labels cannot teach."""
    given = set(labels)
    return [name for name, row in HEADS.items() if getattr(config, name) and not given.issuperset(row.labels)]
