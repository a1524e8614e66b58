"""The batch engine on a real broker: whatever dies, what is committed is what the inline engine says, once."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from fleet.kafka import NativeKafka
from fleet.stages import make_stages
from registry.store import Store
from streams.contracts.clock import VirtualClock
from streams.contracts.codec import encode
from streams.contracts.drive import TriggerEvent
from streams.contracts.ids import event_id
from streams.engines.batch import engine as batch_engine
from streams.engines.batch.client import Client, Commit
from streams.engines.batch.engine import ALL, BatchConfig, BatchEngine
from streams.engines.inline import InlineEngine
from streams.engines.now import record_time
from streams.selection import SelectionConfig
from streams.topics import BY_NAME
from streams.transport.base import Fenced, Retry
from streams.transport.kafka import KafkaConfig, KafkaTransport
from streams.transport.memory import MemoryTransport
from tests.conftest import ROOT
from tests.contract.transport import read_all
from tests.samples import embedding_of, event

pytestmark = pytest.mark.services
DATA_PLANE = ("dedup", "tagging", "novelty")
WHOLE = (*DATA_PLANE, "selection")
OUT = ("fleet.scenarios", "fleet.clip-requests", "fleet.dead-letter")
WINDOW = SelectionConfig().window_ns
START = time.time_ns() // WINDOW * WINDOW - 10 * WINDOW
"""Records carry their time: what is recorded here happened a while ago."""
_prefixes = (f"batch{n}." for n in itertools.count())
Sent = tuple[bytes, tuple[tuple[str, bytes], ...], bytes]
Said = dict[str, list[tuple[bytes, bytes]]]


def recorded(numbers: Sequence[int]) -> list[Sent]:
    """Events of 40 vehicles, each seventh sent twice, each ninth changed on its second way, and junk."""
    found: list[Sent] = []
    for i in numbers:
        one = given(i)
        found.append((one.vehicle.encode(), *encode(one)))
        if i % 7 == 0:
            found.append(found[-1])
        if i % 9 == 0:
            found.append((one.vehicle.encode(), *encode(given(i, region="gb"))))
        if i % 50 == 0:
            found.append((one.vehicle.encode(), (), b"junk"))
    return found


def given(i: int, region: str = "us-ca") -> TriggerEvent:
    vehicle = f"car-{i % 40}"
    direction = [i % 13 + 1, i % 7 - 3, i % 5 - 2, 1]
    name = event_id(vehicle, "boot-1", i)
    return event(i, vehicle, event_id=name, time_ns=START, region=region, embedding=embedding_of(direction))


def feed(broker: NativeKafka, prefix: str, some: Sequence[Sent], at_ns: int = START) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap, "partitioner": "consistent"})
    for key, headers, value in some:
        producer.produce(f"{prefix}fleet.events", value, key, headers=list(headers), timestamp=at_ns // 1_000_000)
    assert producer.flush(120) == 0


def inline(parts: Sequence[tuple[int, Sequence[Sent]]], stages: Sequence[str]) -> Said:
    """What the inline engine makes of parts, each given at its instant."""
    transport, clock = MemoryTransport(), VirtualClock(START)
    engine = InlineEngine(transport, make_stages(stages, Store("memory://")), clock, by_partition=True)
    for at_ns, some in parts:
        clock.advance(at_ns - clock.now_ns())
        for key, headers, value in some:
            transport.publish("fleet.events", key, headers, value)
        engine.run_until_idle()
    return {t: [(r.key, r.value) for r in read_all(transport, f"look-{t}", [t], 5_000)] for t in OUT}


def committed(broker: NativeKafka, prefix: str) -> Said:
    """What a reader of committed records sees."""
    transport = KafkaTransport(KafkaConfig(broker.bootstrap, prefix=prefix))
    try:
        return {t: [(r.key, r.value) for r in read_all(transport, f"look-{t}", [t], 5_000)] for t in OUT}
    finally:
        transport.close()


def check_same(found: Said, wanted: Said) -> None:
    """The same records, each as often."""
    for topic in OUT:
        mine, theirs = Counter(found[topic]), Counter(wanted[topic])
        assert len(found[topic]) == len(wanted[topic]), (topic, (mine - theirs).keys(), (theirs - mine).keys())
        assert mine == theirs, (topic, mine - theirs, theirs - mine)


def count(broker: NativeKafka, prefix: str, topic: str = "fleet.scenarios") -> int:
    """Committed records of a topic."""
    consumer = Consumer({
        "bootstrap.servers": broker.bootstrap, "group.id": "count", "isolation.level": "read_committed",
        "enable.partition.eof": True, "auto.offset.reset": "earliest",
    })  # fmt: skip
    partitions = BY_NAME[topic].partitions
    consumer.assign([TopicPartition(prefix + topic, p, 0) for p in range(partitions)])
    number, ended = 0, 0
    while ended < partitions:
        for message in consumer.consume(5_000, 1.0):
            number, ended = number + (message.error() is None), ended + (message.error() is not None)
    consumer.close()
    return number


def progressed(broker: NativeKafka, prefix: str, before: int, child: subprocess.Popen[bytes]) -> bool:
    """Whether it has said something, or has ended."""
    return count(broker, prefix) > before or child.poll() is not None


def until(what: Callable[[], bool], timeout_s: float = 90) -> None:
    ends = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < ends, "it did not come to pass"
        time.sleep(0.1)


def config(broker: NativeKafka, prefix: str, instance: str = "") -> BatchConfig:
    kafka = KafkaConfig(broker.bootstrap, prefix=prefix)
    return BatchConfig(kafka, "fleet", instance, limit=150, snapshot_records=400)


def engine(broker: NativeKafka, prefix: str, names: Sequence[str], instance: str = "") -> BatchEngine:
    return BatchEngine(config(broker, prefix, instance), make_stages(names, Store("memory://")), record_time)


@contextmanager
def process(broker: NativeKafka, prefix: str, folder: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """`fleet streams run` as a process of its own."""
    command = [sys.executable, "-c", "from fleet.cli import main; main()", "streams", "run"]
    command += ["--kafka", broker.bootstrap, "--prefix", prefix, "--group", "fleet", "--store", str(folder)]
    command += ["--set", "now=records", "--set", "limit=150", "--set", "snapshot_records=400", *words]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}) as child:
        try:
            yield child
        finally:
            child.kill()


def ready(broker: NativeKafka) -> str:
    """A prefix whose topics are there."""
    prefix = next(_prefixes)
    KafkaTransport(KafkaConfig(broker.bootstrap, prefix=prefix)).close()
    return prefix


@pytest.mark.parametrize("words", [("--stages", ",".join(WHOLE)), ("--stages", ",".join(DATA_PLANE))])
def test_killed_in_the_middle_of_its_work(broker: NativeKafka, tmp_path: Path, words: tuple[str, ...]) -> None:
    """kill -9 whenever the first outputs of a run are there: no loss, no duplicate, the same decisions."""
    prefix, names = ready(broker), words[1].split(",")
    # A name of its own: the next process under it takes the dead one's place at once.
    words = (*words, "--instance", "a") if "selection" not in names else words
    slices = [recorded(range(n, n + 500)) for n in (0, 500, 1_000)]
    last = recorded(range(1_500, 1_600))
    wanted = inline([(START, [s for some in slices for s in some]), (START + WINDOW, last)], names)
    for some in slices:
        before = count(broker, prefix)
        feed(broker, prefix, some)
        with process(broker, prefix, tmp_path, *words) as child:
            until(partial(progressed, broker, prefix, before, child))
            child.send_signal(signal.SIGKILL)
            child.wait()
    with process(broker, prefix, tmp_path, *words) as child:
        until(lambda: count(broker, prefix) >= 1_500)
        feed(broker, prefix, last, START + WINDOW)
        until(lambda: count(broker, prefix) >= 1_600)
        until(lambda: count(broker, prefix, "fleet.dead-letter") >= len(wanted["fleet.dead-letter"]))
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
    check_same(committed(broker, prefix), wanted)
    assert ("selection" in names) == bool(wanted["fleet.clip-requests"])


def test_partitions_move_with_their_states(broker: NativeKafka) -> None:
    """One process, two, one again: what both say together is what one says."""
    prefix = ready(broker)
    parts = [recorded(range(n, n + 400)) for n in (0, 400, 800)]
    stops = {name: threading.Event() for name in "ab"}
    engines: dict[str, BatchEngine] = {}
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            engines[name] = mine = engine(broker, prefix, DATA_PLANE)
            mine.run(stops[name].is_set)
            mine.close()
        except BaseException as error:
            failures.append(error)
            raise

    threads = {name: threading.Thread(target=work, args=(name,), daemon=True) for name in "ab"}
    feed(broker, prefix, parts[0])
    threads["a"].start()
    until(lambda: count(broker, prefix) == 400 or bool(failures))
    threads["b"].start()
    until(lambda: bool(failures) or ("b" in engines and len(engines["b"].partitions) == 4))
    until(lambda: bool(failures) or len(engines["a"].partitions) == 4)
    feed(broker, prefix, parts[1])
    until(lambda: count(broker, prefix) == 800 or bool(failures))
    assert min(e.taken for e in engines.values()) > 0
    stops["a"].set()
    threads["a"].join(60)
    until(lambda: bool(failures) or len(engines["b"].partitions) == 8)
    feed(broker, prefix, parts[2])
    until(lambda: count(broker, prefix) == 1_200 or bool(failures))
    stops["b"].set()
    threads["b"].join(60)
    assert not failures
    check_same(committed(broker, prefix), inline([(START, [s for p in parts for s in p])], DATA_PLANE))


def test_the_younger_process_of_a_fleet_wide_group_goes_on(broker: NativeKafka) -> None:
    prefix, some = ready(broker), recorded(range(600))
    feed(broker, prefix, some)
    old = engine(broker, prefix, WHOLE)
    while old.taken < 300:
        old.step()
    young = engine(broker, prefix, WHOLE)
    assert old.partitions == young.partitions == [ALL]
    with pytest.raises(Fenced, match="another process"):
        for _ in range(100):
            old.step()
    old.close()
    young.run(lambda: count(broker, prefix) == 600, idle_s=30.0)
    young.close()
    check_same(committed(broker, prefix), inline([(START, some)], WHOLE))


def test_a_client_that_never_comes_back_from_a_commit_is_left_behind(
    broker: NativeKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As librdkafka does where the broker goes away while offsets are being sent."""
    monkeypatch.setattr(batch_engine, "STUCK_S", 0.5)
    prefix, some = ready(broker), recorded(range(300))
    feed(broker, prefix, some)
    stuck, hangs, commit = engine(broker, prefix, WHOLE), threading.Event(), Client.commit

    def second_hangs(client: Client, what: Commit, group: object) -> None:
        if client is stuck._client and stuck.taken:
            hangs.wait(60)
        else:
            commit(client, what, group)

    monkeypatch.setattr(Client, "commit", second_hangs)
    with pytest.raises(Retry, match="has not come back from a commit"):
        for _ in range(100):
            stuck.step()
    began = time.monotonic()
    stuck.close()
    assert time.monotonic() - began < 10
    again = engine(broker, prefix, WHOLE)
    again.run(lambda: count(broker, prefix) == 300, idle_s=30.0)
    again.close()
    hangs.set()
    check_same(committed(broker, prefix), inline([(START, some)], WHOLE))


def test_a_graceful_stop_leaves_nothing_to_read_again(broker: NativeKafka) -> None:
    prefix, some = ready(broker), recorded(range(300))
    feed(broker, prefix, some)
    first = engine(broker, prefix, WHOLE)
    first.run(lambda: first.taken == len(some), idle_s=30.0)
    first.close()
    again = engine(broker, prefix, WHOLE)
    again.run(lambda: False, idle_s=3.0)
    assert (again.taken, again.counts["dedup"].taken) == (0, 0)
    again.close()
    check_same(committed(broker, prefix), inline([(START, some)], WHOLE))


CLOSED_AT_ONCE = """
import sys, time
from fleet.kafka import NativeKafka
from tests.services.test_batch_engine import DATA_PLANE, engine
broker = NativeKafka(port=int(sys.argv[1]))
for n in range(3):
    one = engine(broker, f"{sys.argv[2]}{n}.", DATA_PLANE, "a")
    time.sleep(2)
    one.close()
"""


def test_a_process_that_is_stopped_before_its_first_step_ends(broker: NativeKafka) -> None:
    """What it was assigned waits to be polled for. In a process of its own: the client hangs with all threads."""
    command = [sys.executable, "-c", CLOSED_AT_ONCE, str(broker.port), next(_prefixes)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=90)
