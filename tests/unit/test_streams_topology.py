"""The tables fit together: every stage has a row, every edge one writer above its reader, every topic a key."""

from __future__ import annotations

import pytest

from streams.archive import Archive
from streams.contracts.codec import MESSAGES
from streams.coverage import Coverage
from streams.dedup import Dedup
from streams.novelty import NoveltyStage
from streams.rollouts import Rollouts
from streams.selection import Selection
from streams.stage import AnyStage
from streams.tagging import Tagging
from streams.topics import BY_NAME, TOPICS, key_of
from streams.topology import BY_STAGE, TOPOLOGY, Node, problems, topics_read
from streams.triggers import Triggers
from tests.samples import SAMPLES

STAGES: list[AnyStage] = [
    Dedup(),
    Tagging(),
    NoveltyStage(),
    Selection(),
    Archive(str),
    Coverage(),
    Triggers(),
    Rollouts(),
]


def test_the_table_holds_together() -> None:
    assert problems() == []
    assert [n.stage for n in TOPOLOGY] == [s.name for s in STAGES]
    assert len(BY_STAGE) == len(TOPOLOGY)


@pytest.mark.parametrize(
    ("nodes", "problem"),
    [
        ((Node("a", ("x.y",), (), "", ""),), "nobody above it writes"),
        ((Node("a", (), ("x.y",), "", ""),), "nobody reads"),
        (
            (
                Node("a", (), ("x.y",), "", ""),
                Node("b", (), ("x.y",), "", ""),
                Node("c", ("x.y",), (), "", ""),
            ),
            "a both write",
        ),
        (
            (
                Node("a", (), ("x.y",), "", "", "partition"),
                Node("b", ("x.y",), (), "", "", "fleet"),
            ),
            "use a topic",
        ),
        ((Node("a", (), (), "", ""), Node("a", (), (), "", "")), "stands 2 times"),
    ],
)
def test_a_table_that_does_not_is_told_why(nodes: tuple[Node, ...], problem: str) -> None:
    assert any(problem in found for found in problems(nodes))


def test_topics_of_a_part_of_the_flow() -> None:
    assert topics_read(("dedup", "tagging", "novelty", "selection")) == ("fleet.events", "fleet.scenarios")
    assert topics_read(("tagging",)) == ()


def test_every_message_has_a_topic_and_a_key() -> None:
    carried = {t for topic in TOPICS for t in topic.carries}
    assert carried == set(MESSAGES.values())
    for message in SAMPLES.values():
        topics = [t for t in TOPICS if isinstance(message, t.carries)]
        assert topics and all(key_of(t, message) for t in topics)


def test_a_message_in_the_wrong_topic_is_refused() -> None:
    with pytest.raises(TypeError, match=r"fleet\.events carries"):
        key_of(BY_NAME["fleet.events"], SAMPLES["telemetry"])
