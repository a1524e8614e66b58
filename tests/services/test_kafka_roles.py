"""Roles as processes over a real broker: they work, tell, and stop when asked."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.kafka import NativeKafka
from fleet.times import utc
from registry.clips import ClipIndex
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import encode
from streams.contracts.jobs import JobFinished, JobRequested
from streams.recording import write_recording
from streams.transport.base import Record
from streams.transport.dead_letter import send_to_dead_letters
from streams.transport.kafka import KafkaConfig, KafkaTransport
from streams.transport.kafka_stretch import stretch
from streams.transport.messages import Inbox, send
from tests.conftest import ROOT, fleet
from tests.samples import T0, archived, event, telemetry

pytestmark = pytest.mark.services
_prefixes = (f"role{n}." for n in itertools.count())


@pytest.fixture
def transport(broker: NativeKafka) -> Iterator[KafkaTransport]:
    transport = KafkaTransport(KafkaConfig(broker.bootstrap, prefix=next(_prefixes)))
    yield transport
    transport.close()


@contextmanager
def role(transport: KafkaTransport, *words: str, until: str) -> Iterator[str]:
    """A role that has said this; its line. Ends it by SIGTERM, which it must obey with status 0."""
    told = ("--kafka", transport.config.bootstrap, "--prefix", transport.config.prefix)
    process = subprocess.Popen(
        [sys.executable, "-c", "from fleet.cli import main; main()", *words, *told],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        yield next(line for line in process.stderr if until in line)
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(60) == 0, rest
    finally:
        process.kill()
        process.wait()


def test_a_worker_ends_what_it_cannot_do_and_stops_when_asked(transport: KafkaTransport, tmp_path: Path) -> None:
    request = JobRequested("e" * 64, "dreaming", time.time_ns(), "", "quick", [])
    inbox = Inbox(transport, "test", ("learning.jobs",))
    with role(transport, "worker", "--config", "quick", "--home", str(tmp_path), until="takes jobs"):
        send(transport, "learning.jobs", request)
        transport.flush()
        ends: list[JobFinished] = []
        while not ends:
            ends = [m for m in inbox.receive(time.time_ns(), timeout_s=5.0) if isinstance(m, JobFinished)]
    assert (ends[0].fingerprint, ends[0].verdict) == ("e" * 64, "error")
    assert "dreaming" in ends[0].reasons[0]
    assert (tmp_path / "releases" / "metadata" / "1.root.json").exists()


def test_archived_clips_become_findable(transport: KafkaTransport, tmp_path: Path) -> None:
    for name in ("clip-1", "clip-2", "clip-1"):
        send(transport, "fleet.archive", archived(name))
    transport.flush()
    done = fleet(
        *("registrar", "--idle", "2", "--home", str(tmp_path)),
        *("--kafka", transport.config.bootstrap, "--prefix", transport.config.prefix),
    )
    assert done.returncode == 0, done.stderr
    assert sorted(c.clip_id for c in ClipIndex(tmp_path / "clips.sqlite").find()) == ["clip-1", "clip-2"]


def test_the_exporter_serves_messages_and_lag(transport: KafkaTransport) -> None:
    now_ns = time.time_ns()
    for n in range(4):
        send(transport, "fleet.telemetry", telemetry(n, time_ns=now_ns))
    transport.flush()
    with role(transport, "exporter", "--port", "0", "--lag-every", "1", until="metrics: ") as line:
        url = line.split()[-1]
        ends, text = time.monotonic() + 60, ""
        while "fleetwheel_consumer_lag_records{" not in text and time.monotonic() < ends:
            time.sleep(0.5)
            text = urllib.request.urlopen(url, timeout=10).read().decode()
    assert 'group="exporter"' in text
    assert "fleetwheel_exposure_meters_total{" in text
    lags = [x for x in text.splitlines() if x.startswith("fleetwheel_consumer_lag_records{")]
    assert all('topic="fleet.telemetry"' in x for x in lags)


def test_recorded_topics_run_dry_and_lag_is_told(transport: KafkaTransport, tmp_path: Path) -> None:
    config, now_ns = transport.config, time.time_ns()
    where = ("--kafka", config.bootstrap, "--prefix", config.prefix)
    for n in range(30):
        send(transport, "fleet.events", event(n, f"car-{n % 3}", time_ns=now_ns))
    transport.flush()
    reader = Inbox(transport, "some-group", ("fleet.events",))
    while reader.lag():
        reader.receive(now_ns, timeout_s=1.0)
    reader.done()
    path = tmp_path / "events.jsonl"
    assert fleet("streams", "record", *where, "--topics", "fleet.events", "--out", str(path)).returncode == 0
    assert len(path.read_text().splitlines()) == 30
    told = [
        json.loads(fleet("streams", "dry-run", "novelty", "--json", *source).stdout)
        for source in (("--input", str(path)), where, (*where, "--from", "1h"), (*where, "--to", "1h"))
    ]
    assert told[0] == told[1] == told[2]
    assert told[0]["emitted"] == {"fleet.scenarios": 30}
    assert told[3]["records"] == 0
    assert not transport.end_offsets(["fleet.scenarios"])["fleet.scenarios", 0], "nothing was written"
    lag = json.loads(fleet("streams", "lag", *where, "--json").stdout)
    assert [(r["group"], r["topic"], r["lag"]) for r in lag["rows"]] == [("some-group", "fleet.events", 0)]
    assert fleet("topics", "diff", *where).returncode == 0


def test_dead_letters_are_listed_shown_and_sent_again(transport: KafkaTransport) -> None:
    where = ("--kafka", transport.config.bootstrap, "--prefix", transport.config.prefix)
    record = Record("fleet.events", 3, 7, b"car-1", (("ce_type", b"x"),), b"{not json")
    send_to_dead_letters(transport, record, "malformed", "not JSON", T0)
    transport.flush()
    (letter,) = json.loads(fleet("streams", "dead-letters", "list", *where, "--json").stdout)
    assert (letter["number"], letter["topic"], letter["reason"]) == (0, "fleet.events", "malformed")
    shown = json.loads(fleet("streams", "dead-letters", "show", "0", *where).stdout)
    assert shown["value_text"] == "{not json"
    assert fleet("streams", "dead-letters", "show", "5", *where).returncode == 1
    again = fleet("streams", "dead-letters", "replay", "0", *where)
    assert again.returncode == 0 and "comes back as a new letter: malformed" in again.stdout
    assert sum(transport.end_offsets(["fleet.events"]).values()) == 1
    assert json.loads(fleet("streams", "lag", *where, "--json").stdout)["rows"] == [], "who looks is no group"


def test_dead_letters_are_narrowed_and_keep_their_numbers(transport: KafkaTransport) -> None:
    where = ("--kafka", transport.config.bootstrap, "--prefix", transport.config.prefix)
    for number, (topic, reason) in enumerate(
        (("fleet.events", "malformed"), ("fleet.clips", "malformed"), ("fleet.events", "stale"))
    ):
        told = Record(topic, 0, number, b"car-1", (), b"x")
        send_to_dead_letters(transport, told, reason, "as said", T0 + number * 3600 * SECOND_NS)
        transport.flush()

    def numbers(*words: str) -> list[int]:
        listed = json.loads(fleet("streams", "dead-letters", "list", *where, "--json", *words).stdout)
        return [letter["number"] for letter in listed]

    assert numbers("--topic", "fleet.events") == [0, 2]
    assert numbers("--reason", "malformed") == [0, 1]
    assert numbers("--from", utc(T0 + 3600 * SECOND_NS), "--to", utc(T0 + 7200 * SECOND_NS)) == [1]
    lines = fleet("streams", "dead-letters", "list", *where, "--reason", "stale").stdout.splitlines()
    assert lines[0].split() == ["2", utc(T0 + 7200 * SECOND_NS), "fleet.events[0]@2", "stale:", "as", "said"]
    assert lines[1] == "1 dead letters of 3"


def test_a_recording_is_played_and_what_came_of_it_is_told(transport: KafkaTransport, tmp_path: Path) -> None:
    prefix = ("--prefix", transport.config.prefix)
    kafka = transport.config.bootstrap
    # Yesterday: a broker soon drops what is older than its topic keeps.
    began_ns = time.time_ns() // SECOND_NS * SECOND_NS - 86_400 * SECOND_NS
    sent = [event(sequence=n, time_ns=began_ns + n * SECOND_NS) for n in range(20)]
    recorded = [
        # As the demo writes them: over memory nobody tells when a record was taken.
        Record("fleet.events", 0, n, message.vehicle.encode(), *encode(message))
        for n, message in enumerate(sent)
    ]
    poison = [Record("fleet.events", 0, 20, b"car-1", (), b"{not json", began_ns)] * 3
    file = tmp_path / "events.jsonl"
    write_recording(file, [*recorded, *poison, Record("fleet.telemetry", 0, 0, b"car-1", (), b"x", T0)])
    play = ("streams", "play", "--input", str(file), *prefix)
    assert fleet(*play, "--topics", "fleet.events", FLEET_KAFKA=kafka).stdout.split() == ["23", "fleet.events"]
    assert sum(transport.end_offsets(["fleet.telemetry"]).values()) == 0
    run = ("streams", "run", "--stages", "dedup,tagging,novelty", "--set", "now=records", "--idle", "4")
    places = {"inline": ("--set", f"state={tmp_path}"), "batch": ()}
    for engine, more in places.items():
        own = ("--engine", engine, "--group", engine, "--store", str(tmp_path / "store"))
        done = fleet(*run, *prefix, *own, *more, FLEET_KAFKA=kafka)
        assert done.returncode == 0, done.stderr
        last = done.stderr.strip().splitlines()[-1]
        assert "took 23 records, 3 of them rejected (dead letters): dedup 20 -> 20 (0 refused)" in last, engine
    refused = fleet("streams", "lag", "--group", "nosuch", *prefix, FLEET_KAFKA=kafka)
    assert refused.returncode == 1 and "no group 'nosuch' has committed anything" in refused.stderr
    assert "batch, inline" in refused.stderr
    taken = stretch(transport.config, ["fleet.events"])
    assert min(record.time_ns for record in taken) == began_ns, "they keep their time"
    played = fleet(*play, "--topics", "fleet.archive", FLEET_KAFKA=kafka)
    assert played.returncode == 1 and "no record of 'fleet.archive' in it" in played.stderr


def test_to_look_for_dead_letters_makes_no_topics(transport: KafkaTransport) -> None:
    where = ("--kafka", transport.config.bootstrap, "--prefix", "mistyped.")
    for command in (("list",), ("show", "0"), ("replay", "0")):
        refused = fleet("streams", "dead-letters", *command, *where)
        assert refused.returncode == 1 and "has no topic mistyped.fleet.dead-letter" in refused.stderr
        assert "fleet topics apply --prefix mistyped." in refused.stderr
    assert fleet("topics", "diff", *where).returncode == 1
