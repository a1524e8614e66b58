"""Which stages run together in one agent: those that edges inside the process connect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streams.engines.round import in_order
from streams.stage import AnyStage
from streams.topics import BY_NAME
from streams.topology import BY_STAGE, Scope, topics_read


class BrokenFlow(ValueError):
    """Stages that cannot run so: says which one is missing, or how they differ."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Stages that share an agent, a changelog and, in each lane, their instants."""

    name: str
    """Of the last of them: what the flow comes to."""
    stages: tuple[AnyStage, ...]
    topics: tuple[str, ...]
    scope: Scope
    prefix: str
    """Before every topic."""
    group: str
    """Whose state it is."""

    @property
    def label(self) -> str:
        """Its name among flows of other prefixes."""
        return self.prefix + self.name

    @property
    def lanes(self) -> int:
        """Partitions of its changelog: as many as its input has, or one for the fleet."""
        return BY_NAME[self.topics[0]].partitions if self.scope == "partition" else 1

    @property
    def changelog(self) -> str:
        """The topic that keeps its states, prefix included."""
        return f"{self.prefix}{self.group}-{self.name}-changelog"

    @property
    def inputs(self) -> list[str]:
        """Topics, prefix included."""
        return [self.prefix + t for t in self.topics]


def flows_of(stages: Iterable[AnyStage], prefix: str = "", group: str = "streams") -> list[Flow]:
    """The stages in flows, in the topology's order. Raises UnknownStage, BrokenFlow."""
    flows: list[list[AnyStage]] = []
    for stage in in_order(stages):
        edges = [s for s in BY_STAGE[stage.name].reads if s not in BY_NAME]
        feeding = [f for f in flows if any(e in BY_STAGE[s.name].writes for e in edges for s in f)]
        missing = [e for e in edges if not any(e in BY_STAGE[s.name].writes for f in feeding for s in f)]
        if missing:
            raise BrokenFlow(f"{stage.name} reads {missing[0]} inside the process: run what writes it beside it")
        flows = [f for f in flows if f not in feeding] + [[s for f in feeding for s in f] + [stage]]
    return [_flow(f, prefix, group) for f in flows]


def _flow(stages: Sequence[AnyStage], prefix: str, group: str) -> Flow:
    topics = topics_read(tuple(s.name for s in stages))
    scopes = {BY_STAGE[s.name].scope for s in stages}
    name = stages[-1].name
    if len(scopes) > 1:
        raise BrokenFlow(f"{', '.join(s.name for s in stages)} share edges but differ in scope: {sorted(scopes)}")
    scope = scopes.pop()
    partitions = {t: BY_NAME[t].partitions for t in topics}
    if scope == "partition" and len(set(partitions.values())) > 1:
        raise BrokenFlow(f"{name} has a state by partition, but its topics differ in partitions: {partitions}")
    return Flow(name, tuple(stages), topics, scope, prefix, group)
