"""How fast Flink takes events: our engine, or the peer that takes them one by one. Prints one JSON line.

    python -m tests.benchmarks.flink_speed ours --kafka 127.0.0.1:9092 --prefix bench. --events 200000
    python -m tests.benchmarks.flink_speed keyed --kafka 127.0.0.1:9092 --prefix bench. --events 200000

The events lie in PREFIXfleet.events already, each once. The rate is that at which records appear in the output
topic, in open transactions too, between a tenth of them and all: the start of the JVM and Python is not counted.
Both are exactly once with a checkpoint every two seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import psutil
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from fleet.flink import FlinkEnvironment
from streams.engines.flink.config import FlinkConfig
from streams.topics import BY_NAME

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("dedup", "tagging", "novelty")
CHECKPOINT_MS = 2_000


class Stalled(RuntimeError):
    """The contender ended or stood still: its log tells why."""


def ours(kafka: str, prefix: str, group: str, folder: Path, parallelism: int, execution: str) -> Sequence[str]:
    """Our engine's command."""
    environment = FlinkEnvironment().check()
    config = FlinkConfig(
        kafka=kafka,
        stages=STAGES,
        checkpoints=(folder / "checkpoints").as_uri(),
        jars=environment.jars,
        python=str(environment.python),
        make="fleet.stages:make_stages",
        store=str(folder / "store"),
        group=group,
        prefix=prefix,
        parallelism=parallelism,
        execution="process" if execution == "process" else "thread",
        checkpoint_ms=CHECKPOINT_MS,
    )
    path = folder / "job.json"
    path.write_bytes(msgspec.json.encode(config))
    return [str(environment.python), "-m", "streams.engines.flink_job", str(path)]


def keyed(kafka: str, prefix: str, group: str, folder: Path, parallelism: int, execution: str) -> Sequence[str]:
    """The peer's command."""
    environment = FlinkEnvironment().check()
    settings = {
        "execution.target": "local",
        "rest.bind-port": "0",
        "taskmanager.numberOfTaskSlots": str(parallelism),
        "parallelism.default": str(parallelism),
        "python.execution-mode": execution,
        "python.executable": str(environment.python),
        "python.client.executable": str(environment.python),
        "pipeline.jars": ";".join(Path(j).as_uri() for j in environment.jars),
        "pipeline.object-reuse": "true",
        "execution.checkpointing.interval": f"{CHECKPOINT_MS} ms",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.dir": (folder / "checkpoints").as_uri(),
        "restart-strategy.type": "none",
    }
    words = {
        "kafka": kafka,
        "input": f"{prefix}fleet.events",
        "output": output_of("keyed", prefix),
        "group": f"{prefix}{group}",
        "settings": settings,
    }
    return [str(environment.python), "-m", "tests.benchmarks.peers.pyflink_keyed", json.dumps(words)]


CONTENDERS = {"ours": ours, "keyed": keyed}


def output_of(name: str, prefix: str) -> str:
    """The topic that a contender writes to."""
    return f"{prefix}fleet.scenarios" if name == "ours" else f"{prefix}{name}.scenarios"


def measure(
    name: str, kafka: str, prefix: str, events: int, parallelism: int, execution: str
) -> dict[str, object]:
    """Start it, watch its output grow, end it. Raises Stalled."""
    folder = Path(mkdtemp(prefix="flink-speed-"))
    command = CONTENDERS[name](kafka, prefix, f"bench-{uuid.uuid4().hex[:8]}", folder, parallelism, execution)
    admin = AdminClient({"bootstrap.servers": kafka})
    topic = output_of(name, prefix)
    _make(admin, topic)
    before, began = _end(admin, topic), time.monotonic()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=FlinkEnvironment().variables(folder / "flink"),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        first, last, memory_mb = _watch(admin, topic, before, events, process)
    except Stalled as error:
        raise Stalled(f"{error}; see {folder / 'log'}") from error
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return {
        "contender": name,
        "events": events,
        "parallelism": parallelism,
        "execution": execution,
        "events_per_s": round((last[1] - first[1]) / (last[0] - first[0])),
        "start_s": round(first[0] - began, 1),
        "memory_mb": memory_mb,
    }


Point = tuple[float, int]
"""When, and how many records there were."""


def _watch(
    admin: AdminClient, topic: str, before: int, events: int, process: subprocess.Popen[bytes]
) -> tuple[Point, Point, int]:
    """The points at a tenth and at the end; the largest memory of the process and its children, MB."""
    first: Point | None = None
    heard, seen, memory = time.monotonic(), 0, 0
    while True:
        now, count = time.monotonic(), _end(admin, topic) - before
        if count > seen:
            heard, seen = now, count
        if first is None and count >= events // 10:
            first = (now, count)
        if first is not None and count >= events:
            return first, (now, count), memory // 1_000_000
        if process.poll() is not None or now - heard > 120:
            raise Stalled(f"{count} of {events} events came out")
        memory = max(memory, _memory(process.pid))
        time.sleep(0.05)


def _memory(pid: int) -> int:
    try:
        process = psutil.Process(pid)
        return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)])
    except psutil.NoSuchProcess:
        return 0


def _make(admin: AdminClient, topic: str) -> None:
    (made,) = admin.create_topics([NewTopic(topic, BY_NAME["fleet.scenarios"].partitions, 1)]).values()
    try:
        made.result(30)
    except KafkaException as error:
        if "exists" not in error.args[0].str():
            raise


def _end(admin: AdminClient, topic: str) -> int:
    """Records in the topic, open transactions included."""
    newest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    places = [TopicPartition(topic, p) for p in range(BY_NAME["fleet.scenarios"].partitions)]
    return sum(f.result().offset for f in admin.list_offsets(dict.fromkeys(places, newest)).values())


def main() -> None:
    """Entry point."""
    words = argparse.ArgumentParser()
    words.add_argument("contender", choices=sorted(CONTENDERS))
    words.add_argument("--kafka", required=True)
    words.add_argument("--prefix", default="")
    words.add_argument("--events", type=int, required=True)
    words.add_argument("--parallelism", type=int, default=1)
    words.add_argument("--execution", choices=("thread", "process"), default="thread")
    asked = words.parse_args()
    told = measure(asked.contender, asked.kafka, asked.prefix, asked.events, asked.parallelism, asked.execution)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
