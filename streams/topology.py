"""Which stage reads what and writes what: one table. A name that topics.py knows is a topic; the others are edges
inside the process, which an engine fuses. Engines, tests and documents are made from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from streams.topics import BY_NAME

Scope = Literal["partition", "fleet"]
"""Where a stage's state lives. "partition": one state for each partition of its input, which moves with it; topics
keyed by vehicle keep a vehicle in one of them. "fleet": one active instance over all partitions."""


@dataclass(frozen=True, slots=True)
class Node:
    """A stage's place in the flow."""

    stage: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    key: str
    """What its state is kept by; equal keys must reach the same instance."""
    state: str
    scope: Scope = "fleet"
    engine: str = "inline"


TOPOLOGY: tuple[Node, ...] = (
    # In flow order: an edge inside the process is written above where it is read.
    Node("dedup", ("fleet.events",), ("events.fresh",), "event", "ids of a day, at most 400,000", "partition"),
    Node("tagging", ("events.fresh",), ("events.tagged",), "", "none", "partition"),
    Node(
        "novelty",
        ("events.tagged",),
        ("fleet.scenarios",),
        "embedding version, cell",
        "prototypes and recent distances",
        "partition",
    ),
    Node(
        "selection",
        ("fleet.scenarios",),
        ("fleet.clip-requests",),
        "window",
        "candidates of the open window, bytes asked for in its hour, what the fleet knows of rare events",
    ),
    Node(
        "archive",
        ("fleet.clip-requests", "fleet.clips"),
        ("fleet.archive",),
        "clip",
        "open requests and their chunks",
    ),
    Node(
        "coverage",
        ("fleet.telemetry", "fleet.campaigns"),
        ("fleet.campaigns",),
        "cell",
        "exposure by cell and model, campaigns as they stand",
    ),
    Node(
        "triggers",
        ("fleet.archive", "learning.jobs", "fleet.releases"),
        ("learning.jobs",),
        "cell",
        "clips not learned from, the job in flight, GPU-hours spent",
    ),
    Node(
        "rollouts",
        ("learning.jobs", "fleet.telemetry"),
        ("fleet.releases",),
        "hardware",
        "the active rollout, its arms, when each vehicle was heard of",
    ),
)

BY_STAGE: dict[str, Node] = {node.stage: node for node in TOPOLOGY}


def topics_read(stages: tuple[str, ...]) -> tuple[str, ...]:
    """The topics that these stages read from outside, each once, in the table's order."""
    nodes = [n for n in TOPOLOGY if n.stage in stages]
    return tuple(dict.fromkeys(s for n in nodes for s in n.reads if s in BY_NAME))


def topics_written(stages: Iterable[str]) -> tuple[str, ...]:
    """The topics that these stages write, each once, by name; their edges inside the process are none."""
    return tuple(sorted({s for stage in stages for s in BY_STAGE[stage].writes if s in BY_NAME}))


def problems(topology: tuple[Node, ...] = TOPOLOGY) -> list[str]:
    """What is wrong with a table: stages named twice, edges without one writer above their reader, or unread, or
    from a stage of one scope to one of the other."""
    found: list[str] = []
    written: dict[str, str] = {}
    scopes = {n.stage: n.scope for n in topology}
    read = {s for n in topology for s in n.reads}
    stages = [n.stage for n in topology]
    found += [
        f"stage {s} stands {stages.count(s)} times" for s in sorted({s for s in stages if stages.count(s) > 1})
    ]
    for node in topology:
        edges = [s for s in node.reads if s not in BY_NAME]
        found += [f"{node.stage} reads {s}, which nobody above it writes" for s in edges if s not in written]
        found += [
            f"{node.stage} ({node.scope}) reads {s} of {written[s]} ({scopes[written[s]]}): use a topic"
            for s in edges
            if s in written and scopes[written[s]] != node.scope
        ]
        for stream in (s for s in node.writes if s not in BY_NAME):
            if stream in written:
                found.append(f"{node.stage} and {written[stream]} both write {stream}")
            elif stream not in read:
                found.append(f"{node.stage} writes {stream}, which nobody reads")
            written[stream] = node.stage
    return found
