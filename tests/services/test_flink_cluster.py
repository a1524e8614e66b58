"""A session cluster from the wheel's distribution: the command line submits to it, its task manager tells
Prometheus, and a task manager that dies loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.request import urlopen

from fleet.flink_cluster import FlinkCluster
from fleet.kafka import NativeKafka
from streams.transport.kafka import KafkaConfig, KafkaTransport
from streams.transport.messages import send
from tests.conftest import ROOT
from tests.contract.transport import read_all
from tests.samples import embedding_of, event
from tests.services.flink_player import NEEDS_FLINK

pytestmark = NEEDS_FLINK
PREFIX = "cluster."


def offer(broker: NativeKafka, numbers: range) -> None:
    """Events of 20 vehicles, now."""
    transport = KafkaTransport(KafkaConfig(broker.bootstrap, prefix=PREFIX))
    for n in numbers:
        one = event(n, f"car-{n % 20}", time_ns=time.time_ns(), embedding=embedding_of([n % 7 + 1, 5, 7]))
        send(transport, "fleet.events", one)
    transport.close()


def submit(broker: NativeKafka, cluster: FlinkCluster, folder: Path) -> subprocess.Popen[str]:
    words = (
        f"streams run --engine flink --stages dedup,tagging,novelty --kafka {broker.bootstrap} --prefix {PREFIX}"
    )
    words += f" --master {cluster.master} --parallelism 1 --checkpoints {folder} --set checkpoint_ms=500"
    return subprocess.Popen(
        [sys.executable, "-c", "from fleet.cli import main; main()", *words.split()],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def scenarios(broker: NativeKafka, number: int, timeout_s: float = 120) -> Counter[str]:
    """The events that were told since the topic began, once there are so many."""
    transport = KafkaTransport(KafkaConfig(broker.bootstrap, prefix=PREFIX))
    found: Counter[str] = Counter()
    ends = time.monotonic() + timeout_s
    while sum(found.values()) < number:
        assert time.monotonic() < ends, f"{sum(found.values())} of {number} scenarios came"
        records = transport.poll("watch", ("fleet.scenarios",), 10_000, 0.5)
        found.update(json.loads(r.value)["event"]["event_id"] for r in records)
    found.update(
        json.loads(r.value)["event"]["event_id"] for r in read_all(transport, "watch", ["fleet.scenarios"])
    )
    transport.close()
    return found


def metrics(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_a_cluster_runs_the_job_and_outlives_a_task_manager(broker: NativeKafka, tmp_path: Path) -> None:
    offer(broker, range(200))
    with FlinkCluster(tmp_path / "cluster") as cluster:
        job = submit(broker, cluster, tmp_path / "checkpoints")
        assert job.stderr is not None
        assert "started" in job.stderr.readline()
        assert sum(scenarios(broker, 200).values()) == 200
        taken = [line for line in metrics(cluster.metrics_ports[1]).splitlines() if "stage_taken" in line]
        assert any('stage="novelty"' in line and float(line.split()[-1]) == 200 for line in taken), taken[:3]
        os.killpg(cluster.processes[1].pid, signal.SIGKILL)
        cluster.add_worker()
        offer(broker, range(100, 400))
        assert set(scenarios(broker, 400).values()) == {1}
        job.send_signal(signal.SIGTERM)
        assert job.wait(60) == 0, job.stderr.read()
    transport = KafkaTransport(KafkaConfig(broker.bootstrap, prefix=PREFIX))
    told = [json.loads(r.value)["event"]["event_id"] for r in read_all(transport, "all", ["fleet.scenarios"])]
    transport.close()
    assert len(told) == len(set(told)) == 400
