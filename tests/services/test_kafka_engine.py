"""The inline engine over a real broker says what it says over memory; dead letters too."""

from __future__ import annotations

from fleet.kafka import NativeKafka
from streams.contracts.clock import SECOND_NS, VirtualClock
from streams.contracts.codec import Message
from streams.dedup import Dedup
from streams.engines.inline import InlineEngine
from streams.novelty import NoveltyStage
from streams.selection import Selection, SelectionConfig
from streams.stage import AnyStage
from streams.tagging import Tagging
from streams.transport.base import Transport
from streams.transport.dead_letter import send_again
from streams.transport.kafka import KafkaConfig, KafkaTransport
from streams.transport.memory import MemoryTransport
from streams.transport.messages import Inbox, send
from tests.contract.transport import letters_in, read_all
from tests.samples import T0, embedding_of, event

WINDOW = 60 * SECOND_NS
START = T0 // WINDOW * WINDOW


def requests_over(transport: Transport) -> list[Message]:
    """What is asked for of 30 events of one vehicle, ten of them sent twice."""
    config = SelectionConfig(window_ns=WINDOW, clips=5)
    stages: list[AnyStage] = [Dedup(), Tagging(), NoveltyStage(), Selection(config)]
    clock = VirtualClock(START)
    engine = InlineEngine(transport, stages, clock)
    for i in [*range(30), *range(10)]:
        send(transport, "fleet.events", event(i, embedding=embedding_of([i + 1, 5, 7 - i])))
    transport.publish("fleet.events", b"car-1", (), b"junk")
    transport.flush()
    engine.run_until_idle()
    clock.advance(WINDOW)
    engine.step()
    transport.flush()
    inbox = Inbox(transport, "vehicles", ("fleet.clip-requests",))
    found: list[Message] = []
    while inbox.lag():
        found += inbox.receive(clock.now_ns(), timeout_s=5.0)
    inbox.done()
    return found


def test_the_same_over_kafka_as_over_memory(broker: NativeKafka) -> None:
    kafka = KafkaTransport(KafkaConfig(broker.bootstrap, prefix="same."))
    memory = MemoryTransport()
    found = requests_over(kafka)
    assert len(found) == 5
    assert sorted(map(str, found)) == sorted(map(str, requests_over(memory)))
    letters = letters_in(kafka, START)
    assert [(m.reason, m.value) for m in letters] == [("unknown-type", b"junk")]
    send_again(kafka, letters[0])
    assert read_all(kafka, "look", ["fleet.events"])[-1].value == b"junk"
    kafka.close()


def test_a_transactional_engine_goes_on_where_it_stopped(broker: NativeKafka) -> None:
    """A new process with the same id takes over; nothing comes twice."""
    config = KafkaConfig(broker.bootstrap, transactional_id="engine", prefix="tx.")
    clock = VirtualClock(START)
    for numbers in (range(10), range(10, 25)):
        transport = KafkaTransport(config)
        for i in numbers:
            send(transport, "fleet.events", event(i))
        transport.flush()
        InlineEngine(transport, [Dedup(), Tagging(), NoveltyStage()], clock).run_until_idle()
        transport.close()
    reader = KafkaTransport(KafkaConfig(broker.bootstrap, prefix="tx."))
    assert len(read_all(reader, "look", ["fleet.scenarios"])) == 25
    reader.close()
