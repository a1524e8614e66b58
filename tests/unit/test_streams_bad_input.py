"""Bad input becomes a dead letter with its reason and its original bytes; the good beside it passes; letters can
be listed, shown and sent again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streams.archive import Archive
from streams.contracts.clips import MAX_CLIP_BYTES, LostClip
from streams.contracts.clock import SECOND_NS, VirtualClock
from streams.contracts.codec import (
    FUTURE_NS,
    MAX_RECORD_BYTES,
    STALE_NS,
    Headers,
    Rejected,
    decode,
    encode,
    message_id,
)
from streams.contracts.dead_letter import DeadLetter
from streams.contracts.scenarios import Scenario
from streams.contracts.types import Id, Sha256
from streams.dedup import Dedup
from streams.engines.inline import InlineEngine
from streams.novelty import NoveltyStage
from streams.tagging import Tagging
from streams.topics import DEAD_LETTER
from streams.transport.base import NotTaken
from streams.transport.dead_letter import NoSuchLetter, numbered, send_again
from streams.transport.memory import MemoryTransport
from streams.transport.messages import Inbox, send
from tests.contract.transport import letters_in
from tests.samples import SAMPLES, T0, chunks, event, request, telemetry

NOW = T0 + 3600 * SECOND_NS


def record(**fields: Any) -> tuple[Headers, bytes]:
    """An event's record with some fields of its JSON replaced."""
    headers, value = encode(event(7))
    return headers, msgspec.json.encode(msgspec.json.decode(value) | fields)


def typed(name: str) -> tuple[Headers, bytes]:
    """An event that says it is something else."""
    headers, value = record(type=name)
    return tuple((k, name.encode() if k == "ce_type" else v) for k, v in headers), value


def untyped() -> bytes:
    """An event that does not say what it is."""
    fields = msgspec.json.decode(encode(event(7))[1])
    del fields["type"]
    return msgspec.json.encode(fields)


OFFER = {"clip_id": "clip-1", "start_ns": T0, "end_ns": T0, "bytes": 1}
BAD: dict[str, tuple[tuple[Headers, bytes], str]] = {
    "not JSON": ((encode(event(7))[0], b"\xff\xfe{"), "malformed"),
    "cut off": ((encode(event(7))[0], encode(event(7))[1][:-20]), "malformed"),
    "empty": ((encode(event(7))[0], b""), "malformed"),
    "no headers": (((), untyped()), "unknown-type"),
    "unknown type": (typed("com.example.thing.v1"), "unknown-type"),
    "unknown version": (typed("fleetwheel.event.v9"), "unknown-version"),
    "oversized": (record(padding="x" * MAX_RECORD_BYTES), "oversized"),
    "NaN": ((encode(event(7))[0], encode(event(7))[1].replace(b"36.0", b"NaN")), "malformed"),
    "infinite": (record(signals={"Vehicle.Speed": 1e300}), "malformed"),
    "deep": ((encode(event(7))[0], b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "malformed"),
    "too many signals": (record(signals={f"s{i}": 1.0 for i in range(65)}), "malformed"),
    "future": (encode(event(7, time_ns=NOW + FUTURE_NS + 1)), "future-dated"),
    "stale": (encode(event(7, time_ns=NOW - STALE_NS - 1)), "stale"),
    "not its id": (record(sequence=8), "mismatch"),
    "a path for a name": (record(vehicle="../../etc/passwd"), "malformed"),
    "a name that ends in a newline": (record(clip=OFFER | {"clip_id": "clip-1\n"}), "malformed"),
    "a clip that no archive takes": (record(clip=OFFER | {"bytes": MAX_CLIP_BYTES + 1}), "malformed"),
    "another topic's": (encode(telemetry()), "misplaced"),
}


def run(transport: MemoryTransport, *extra: Any, clock: VirtualClock | None = None) -> InlineEngine:
    stages = [Dedup(), Tagging(), NoveltyStage(), *extra]
    engine = InlineEngine(transport, stages, clock or VirtualClock(NOW))
    engine.run_until_idle()
    return engine


def scenarios(transport: MemoryTransport) -> list[Scenario]:
    found = Inbox(transport, "reader", ("fleet.scenarios",)).receive(NOW)
    return [m for m in found if isinstance(m, Scenario)]


@pytest.mark.parametrize("name", BAD)
def test_each_becomes_a_letter_and_the_good_pass(name: str) -> None:
    (headers, value), reason = BAD[name]
    transport = MemoryTransport()
    send(transport, "fleet.events", event(1))
    transport.publish("fleet.events", b"car-1", headers, value)
    send(transport, "fleet.events", event(2))
    run(transport)
    (letter,) = letters_in(transport, NOW)
    assert (letter.reason, letter.topic, letter.offset) == (reason, "fleet.events", 1)
    assert (letter.key, letter.value, tuple(letter.headers)) == (b"car-1", value, headers)
    assert letter.detail and letter.time_ns == NOW
    assert [s.event for s in scenarios(transport)] == [event(1), event(2)]


def test_a_name_is_the_whole_of_its_text() -> None:
    """A name with a newline behind it would be another path, key and URL."""
    for kind, good in ((Id, "car-1"), (Sha256, "a" * 64)):
        assert msgspec.convert(good, kind) == good
        for bad in (good + "\n", "\n" + good, good + "\n\n", good + "\n" + good, good + " "):
            with pytest.raises(msgspec.ValidationError, match="regex"):
                msgspec.convert(bad, kind)


def test_a_replayed_event_is_taken_once_and_a_changed_one_is_a_letter() -> None:
    transport = MemoryTransport()
    for e in (event(1), event(1), event(1, cause="stuck")):
        send(transport, "fleet.events", e)
    run(transport)
    (letter,) = letters_in(transport, NOW)
    assert letter.reason == "replayed" and letter.value == encode(event(1, cause="stuck"))[1]
    assert len(scenarios(transport)) == 1


def test_a_wrong_sized_chunk_is_a_letter_with_its_bytes() -> None:
    transport = MemoryTransport()
    send(transport, "fleet.clip-requests", request())
    bad = chunks(b"x" * 300_000, time_ns=NOW)[0]
    short = msgspec.structs.replace(bad, data=b"short")
    send(transport, "fleet.clips", short)
    run(transport, Archive(str))
    (letter,) = letters_in(transport, NOW)
    assert letter.reason == "wrong-size" and letter.value == encode(short)[1] and "clip-1" in letter.detail


def test_what_waited_in_a_state_is_written_anew() -> None:
    transport, clock = MemoryTransport(), VirtualClock(NOW)
    engine = InlineEngine(transport, [Archive(str)], clock)
    send(transport, "fleet.clips", LostClip("nobodys", "car-1", NOW, "gone"))
    engine.run_until_idle()
    assert letters_in(transport, NOW) == []
    clock.advance(61 * SECOND_NS)
    engine.step()
    (letter,) = letters_in(transport, clock.now_ns())
    assert letter.reason == "unrequested" and letter.value == encode(LostClip("nobodys", "car-1", NOW, "gone"))[1]


def test_letters_are_shown_by_number_and_sent_again() -> None:
    transport, clock = MemoryTransport(), VirtualClock(NOW)
    future = event(5, time_ns=NOW + FUTURE_NS + SECOND_NS)
    send(transport, "fleet.events", future)
    engine = run(transport, clock=clock)
    (letter,) = letters_in(transport, NOW)
    assert letter.reason == "future-dated"
    send_again(transport, letter)
    clock.advance(2 * SECOND_NS)
    engine.run_until_idle()
    assert [s.event for s in scenarios(transport)] == [future]
    assert len(letters_in(transport, NOW)) == 1


def test_a_letter_that_is_not_there_is_named() -> None:
    with pytest.raises(NoSuchLetter, match="dead letter 3"):
        numbered([], 3)


def test_what_lies_among_the_letters_and_is_none_is_told() -> None:
    transport = MemoryTransport()
    transport.publish(DEAD_LETTER, b"k", (), b"junk")
    transport.publish(DEAD_LETTER, b"k", *encode(telemetry()))
    assert [m.reason for m in letters_in(transport, NOW)] == ["unknown-type", "misplaced"]


def test_an_inbox_puts_aside_what_it_cannot_read_and_commits_when_told() -> None:
    transport = MemoryTransport()
    transport.publish("fleet.events", b"car-1", *BAD["not JSON"][0])
    send(transport, "fleet.events", event(1))
    inbox = Inbox(transport, "mine", ("fleet.events",))
    assert inbox.lag() == 2
    assert inbox.receive(NOW) == [event(1)]
    transport.restart("mine")
    assert Inbox(transport, "mine", ("fleet.events",)).receive(NOW) == [event(1)]
    inbox.done()
    inbox.done()
    transport.restart("mine")
    assert Inbox(transport, "mine", ("fleet.events",)).receive(NOW) == []
    assert [m.reason for m in letters_in(transport, NOW)] == ["malformed"] * 2


def test_what_no_reader_would_take_cannot_be_sent() -> None:
    with pytest.raises(Rejected, match="oversized"):
        send(MemoryTransport(), "fleet.events", event(1, region="x" * MAX_RECORD_BYTES))
    with pytest.raises(TypeError, match="carries"):
        send(MemoryTransport(), "fleet.events", telemetry())
    with pytest.raises(NotTaken, match="no topic"):
        send(MemoryTransport(), "fleet.nothing", telemetry())


@pytest.mark.parametrize("name", SAMPLES)
def test_every_message_survives_the_wire_and_keeps_its_id(name: str) -> None:
    message = SAMPLES[name]
    again = decode(*encode(message), NOW)
    assert again == message and message_id(again) == message_id(message)


def test_the_largest_record_fits_into_a_letter() -> None:
    transport = MemoryTransport()
    value = bytes(range(256)) * (MAX_RECORD_BYTES // 256 + 1)
    transport.publish("fleet.events", b"k", encode(event())[0], value)
    run(transport)
    (letter,) = letters_in(transport, NOW)
    assert letter.value == value and letter.reason == "oversized"


def test_ids_differ_where_messages_do() -> None:
    ids = [message_id(m) for m in (*SAMPLES.values(), *chunks(b"y" * 600_000), DeadLetter("t", 0, 0, 0, "r", "d"))]
    assert len(set(ids)) == len(ids)
