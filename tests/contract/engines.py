"""What every engine must do: one recording, one set of outputs, in one order for each key. Engines run the same
tests (test_engines.py here, tests/services for those that need a broker)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import pytest

from streams.contracts.codec import Headers
from streams.engines.undisturbed import Contents, Phase, Sent, play
from streams.topics import DEAD_LETTER
from streams.topology import BY_STAGE, topics_written
from streams.transport.base import Record
from tests.contract.recordings import RECORDINGS, Recording


@dataclass(slots=True)
class Told:
    """What came of a recording: the records of every topic that its stages write, and what was stored."""

    records: list[Record] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)


class Player(Protocol):
    """Plays recordings on an engine. `exactly_once`: nothing may be told twice, even after a crash."""

    exactly_once: bool

    def play(self, recordings: Mapping[str, Recording]) -> dict[str, Told]:
        """All phases of each recording, by name. The engine is idle between phases."""


def written_by(recording: Recording) -> list[str]:
    """The topics that its stages write."""
    return [*topics_written(s.name for s in recording.stages()), DEAD_LETTER]


class InlinePlayer:
    """The reference: one process over memory, on a clock that the phases move."""

    exactly_once = True

    def __init__(self, limit: int = 500) -> None:
        self.limit = limit

    def play(self, recordings: Mapping[str, Recording]) -> dict[str, Told]:
        return {name: self._play(recording) for name, recording in recordings.items()}

    def _play(self, recording: Recording) -> Told:
        sink = Contents()
        for transport in play(recording.phases, recording.stages(), sink, self.limit):
            last = transport
        found = last.poll("watch", written_by(recording), 100_000)
        return Told(without_inputs(found, recording.phases), sink.held)


def without_inputs(records: Sequence[Record], phases: Sequence[Phase]) -> list[Record]:
    """What the engine wrote: a topic that the stages also read holds what was fed as well."""
    fed = Counter(Sent(r.topic, r.key, r.headers, r.value) for p in phases for r in p.records)
    found = []
    for record in records:
        name = Sent(record.topic, record.key, record.headers, record.value)
        if fed[name]:
            fed[name] -= 1
        else:
            found.append(record)
    return found


Word = tuple[str, bytes, Headers, bytes]
"""Topic, key, headers, value: all that a reader sees."""


def words(told: Told) -> list[Word]:
    """In the order of the topics' partitions. Of the offsets that dead letters tell only the order counts: on a
    topic that the engine itself writes, marks of its transactions take offsets too."""
    offsets: dict[tuple[str, int], set[int]] = {}
    for letter in (_letter(r) for r in told.records if r.topic == DEAD_LETTER):
        offsets.setdefault((letter["topic"], letter["partition"]), set()).add(letter["offset"])
    ranks = {at: {offset: rank for rank, offset in enumerate(sorted(some))} for at, some in offsets.items()}
    return [_word(r, ranks) for r in told.records]


def _word(record: Record, ranks: Mapping[tuple[str, int], Mapping[int, int]]) -> Word:
    if record.topic != DEAD_LETTER:
        return record.topic, record.key, record.headers, record.value
    letter = _letter(record)
    value = msgspec.json.encode(letter | {"offset": ranks[letter["topic"], letter["partition"]][letter["offset"]]})
    # The id of a dead letter names the place, the offset included.
    return record.topic, record.key, tuple(h for h in record.headers if h[0] != "ce_id"), value


def _letter(record: Record) -> dict[str, Any]:
    letter: dict[str, Any] = msgspec.json.decode(record.value)
    return letter


def once(found: Sequence[Word]) -> list[Word]:
    """As a reader takes them, who knows ids: what was told before is passed over."""
    return list(dict.fromkeys(found))


def by_key(found: Sequence[Word]) -> dict[tuple[str, bytes, str], list[Word]]:
    """In order for each key, as far as one partition of the input tells it: lanes do not wait for each other."""
    order: dict[tuple[str, bytes, str], list[Word]] = {}
    for word in found:
        order.setdefault((word[0], word[1], _source(word)), []).append(word)
    return order


def _source(word: Word) -> str:
    body: dict[str, Any] = msgspec.json.decode(word[3])
    if word[0] == DEAD_LETTER:
        # The codec refuses a batch's records before a stage sees it.
        return f"{body['topic']}/{body['partition']}/{body['reason']}"
    return str(body.get("vehicle") or body.get("event", {}).get("vehicle", ""))


def check_same(told: Told, reference: Told) -> None:
    """As a set, in order for each key, and in what was stored."""
    found, expected = once(words(told)), once(words(reference))
    # Whole: a difference that comes once in many runs must tell what it was.
    lost, added = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
    assert not lost and not added, f"lost {list(lost)}; added {list(added)}"
    assert by_key(found) == by_key(expected)
    assert told.contents == reference.contents


class EngineContract:
    """Mix in and give a `player` fixture of scope "class"."""

    @pytest.fixture(scope="class")
    @classmethod
    def told(cls, player: Player) -> dict[str, Told]:
        return player.play({name: make() for name, make in RECORDINGS.items()})

    @pytest.fixture(scope="class")
    @classmethod
    def reference(cls) -> dict[str, Told]:
        return InlinePlayer().play({name: make() for name, make in RECORDINGS.items()})

    @pytest.mark.parametrize("stage", BY_STAGE)
    def test_one_recording_one_set_of_outputs(
        self, stage: str, told: dict[str, Told], reference: dict[str, Told]
    ) -> None:
        assert stage in RECORDINGS, f"no recording of {stage}: add one to tests/contract/recordings.py"
        check_same(told[stage], reference[stage])

    @pytest.mark.parametrize("stage", BY_STAGE)
    def test_nothing_is_told_twice(self, stage: str, told: dict[str, Told]) -> None:
        found = words(told[stage])
        assert found == once(found)
