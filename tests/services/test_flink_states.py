"""States of Flink's lanes: found again in an object store after a kill, and dropped when a lane is quiet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from fleet.flink import FlinkEnvironment
from fleet.kafka import NativeKafka
from streams.engines.flink.config import FlinkConfig
from streams.transport.kafka import KafkaConfig, KafkaTransport
from streams.transport.messages import send
from tests.samples import embedding_of, event
from tests.services.flink_player import NEEDS_FLINK

pytestmark = NEEDS_FLINK
PREFIX = "states."
BUCKET = "fleet-states"
BEGAN_NS = time.time_ns()
"""Of events: older ones would be refused as stale."""


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of an S3 server, which clients find by the environment."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (names | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}).items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(BUCKET)
    yield f"s3://{BUCKET}/checkpoints"
    server.stop()


def start(
    broker: NativeKafka, folder: Path, checkpoints: str, expire_ms: int
) -> tuple[subprocess.Popen[str], str]:
    """A job in live time, and the checkpoint that it went on from."""
    environment = FlinkEnvironment()
    config = FlinkConfig(
        kafka=broker.bootstrap,
        stages=("dedup", "tagging", "novelty"),
        checkpoints=checkpoints,
        jars=environment.jars,
        python=str(environment.python),
        make="fleet.stages:make_stages",
        store=str(folder / "store"),
        prefix=PREFIX,
        restore="latest",
        checkpoint_ms=500,
        tick_ms=200,
        quiet_ms=500,
        expire_ms=expire_ms,
    )
    process = environment.submit([config], folder)
    assert process.stdout is not None
    told = json.loads(process.stdout.readline() or "{}")
    assert told.get("event") == "started", (folder / "job.log").read_text(errors="replace")[-3000:]
    return process, told["restored"]


def tell(transport: KafkaTransport, *numbers: int) -> None:
    """Events of one vehicle, so of one lane."""
    for n in numbers:
        one = event(n, time_ns=BEGAN_NS + n, embedding=embedding_of([n, 5, 7]))
        send(transport, "fleet.events", one)
    transport.flush()


def until(transport: KafkaTransport, found: Counter[int], wanted: dict[int, int], patience_s: float) -> bool:
    """Whether so many scenarios of each event come in time; not one more is allowed."""
    ends = time.monotonic() + patience_s
    while found != wanted and time.monotonic() < ends:
        for record in transport.poll("watch", ("fleet.scenarios",), 100, 0.2):
            found[int(json.loads(record.value)["event"]["sequence"])] += 1
    return found == wanted


def end(process: subprocess.Popen[str], number: int) -> None:
    os.killpg(process.pid, number)
    process.wait(60)


def test_a_state_outlives_the_job_but_not_a_long_silence(broker: NativeKafka, tmp_path: Path, bucket: str) -> None:
    """Told by what dedup remembers: an event that came before."""
    transport = KafkaTransport(KafkaConfig(broker.bootstrap, prefix=PREFIX))
    found: Counter[int] = Counter()
    process, restored = start(broker, tmp_path / "first", bucket, 24 * 3600 * 1000)
    try:
        assert restored == ""
        tell(transport, 1, 1)
        assert until(transport, found, {1: 1}, 120)
        end(process, signal.SIGKILL)
        process, restored = start(broker, tmp_path / "second", bucket, 6_000)
        assert restored.startswith(f"{bucket}/")
        assert "/chk-" in restored
        tell(transport, 2, 2)
        assert until(transport, found, {1: 1, 2: 1}, 120)
        # A lane is dropped six seconds after its last record, as soon as a machine that is busy comes to it.
        for _ in range(8):
            time.sleep(9)
            tell(transport, 2)
            if until(transport, found, {1: 1, 2: 2}, 5):
                break
        assert found == {1: 1, 2: 2}
    finally:
        end(process, signal.SIGKILL)
        transport.close()
