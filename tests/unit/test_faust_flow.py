"""Flows: which stages share an agent, and on how many lanes."""

from __future__ import annotations

import pytest

from streams.archive import Archive
from streams.dedup import Dedup
from streams.engines.faust_flow import BrokenFlow, flows_of
from streams.novelty import NoveltyStage
from streams.rollouts import Rollouts
from streams.tagging import Tagging
from streams.triggers import Triggers


def test_edges_join_stages() -> None:
    flows = flows_of([Rollouts(), NoveltyStage(), Triggers(), Tagging(), Dedup()], "p.", "g")
    assert [[s.name for s in f.stages] for f in flows] == [
        ["dedup", "tagging", "novelty"],
        ["triggers"],
        ["rollouts"],
    ]
    chain, triggers, _ = flows
    assert (chain.name, chain.scope, chain.lanes, chain.inputs) == ("novelty", "partition", 8, ["p.fleet.events"])
    assert (triggers.scope, triggers.lanes, triggers.changelog) == ("fleet", 1, "p.g-triggers-changelog")
    assert triggers.inputs == ["p.fleet.archive", "p.learning.jobs", "p.fleet.releases"]


def test_a_fleet_stage_may_read_topics_of_any_size() -> None:
    (flow,) = flows_of([Archive(str)])
    assert flow.topics == ("fleet.clip-requests", "fleet.clips") and flow.lanes == 1


def test_a_stage_without_its_writer_is_named() -> None:
    with pytest.raises(BrokenFlow, match=r"tagging reads events\.fresh inside the process"):
        flows_of([Tagging(), NoveltyStage()])
