"""The Flink engine: the topology as one job, the same stages on whole batches, exactly once.

For each group of stages (flink/config.py) one pipeline: a Kafka source, whose records java/LaneBatches.java
gathers to batches of one lane; the stages, keyed by lane (flink/function.py); a transactional Kafka sink. Groups
meet through topics; but stages of the whole fleet take what lanes of the same job tell as soon as it is told
(java/ToldBatches.java). `fleet streams run --engine flink` runs it with the Flink environment's Python:

    python -m streams.engines.flink_job CONFIG.json...
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from pyflink.common import Configuration, JobClient, Types
from pyflink.common.typeinfo import RowTypeInfo
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.datastream.data_stream import DataStream, KeyedStream
from pyflink.java_gateway import get_gateway

from streams.engines.flink.config import (
    FlinkConfig,
    Group,
    group_id,
    newest_checkpoint,
    object_store,
    plan,
)
from streams.engines.flink.function import LaneFunction

BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
Java = Any
"""An object in the JVM."""


def add_groups(env: StreamExecutionEnvironment, config: FlinkConfig) -> None:
    """One fleet's pipelines. Names are kept: a checkpoint's states are found by them."""
    groups = plan(config.stages)
    followed = {g.after for g in groups}
    told: dict[str, Java] = {}
    for group in groups:
        told[group.name] = _add(env, group, config, told.get(group.after), group.name in followed)


def _add(env: StreamExecutionEnvironment, group: Group, config: FlinkConfig, told: Java, followed: bool) -> Java:
    """One group's pipeline; what its lanes tell, batch by batch. `told`: what those tell that it is after."""
    jvm, name = get_gateway().jvm, config.prefix + group.name
    row = Types.ROW([Types.INT(), BYTES])
    if group.after:
        batches = jvm.fleetwheel.flink.ToldBatches(config.max_parallelism)
        gathered = told.transform("batches", row.get_java_type_info(), batches)
    else:
        gathered = _batches(env, group, config, row)
    gathered = gathered.uid(f"{name}-batches").setMaxParallelism(config.max_parallelism)
    keyed = gathered.keyBy(jvm.KeyByKeySelector(), Types.ROW([Types.INT()]).get_java_type_info())
    stages = KeyedStream(keyed, BYTES, DataStream(gathered)).process(LaneFunction(group, config, followed), BYTES)
    stages.name(name).uid(f"{name}-stages").set_max_parallelism(config.max_parallelism)
    frames = stages._j_data_stream.flatMap(jvm.fleetwheel.flink.SplitFrames(), BYTES.get_java_type_info())
    frames.uid(f"{name}-frames").sinkTo(_sink(group, config)).uid(f"{name}-sink")
    return stages._j_data_stream


def _batches(env: StreamExecutionEnvironment, group: Group, config: FlinkConfig, row: RowTypeInfo) -> Java:
    """Records of the group's topics, gathered by lane."""
    jvm, name = get_gateway().jvm, config.prefix + group.name
    partitioned = group.scope == "partition"
    batches = jvm.fleetwheel.flink.LaneBatches(
        group.lanes, config.max_parallelism, config.batch_records, config.batch_bytes, config.batch_ms
    )
    quiet_ms = config.quiet_ms if config.time == "live" else 0
    source = env._j_stream_execution_environment.fromSource(
        _source(group, config, jvm.fleetwheel.flink.RecordFrames(config.prefix, partitioned)),
        jvm.fleetwheel.flink.LiveWatermarks(quiet_ms),
        f"{name} source",
    )
    return source.uid(f"{name}-source").transform("batches", row.get_java_type_info(), batches)


def _source(group: Group, config: FlinkConfig, frames: Java) -> Java:
    jvm = get_gateway().jvm
    kafka = jvm.org.apache.flink.connector.kafka.source
    offsets = kafka.enumerator.initializer.OffsetsInitializer
    earliest = jvm.org.apache.kafka.clients.consumer.OffsetResetStrategy.EARLIEST
    topics = jvm.java.util.ArrayList()
    for topic in group.topics:
        topics.add(config.prefix + topic)
    builder = (
        kafka.KafkaSource.builder()
        .setBootstrapServers(config.kafka)
        .setTopics(topics)
        .setGroupId(group_id(group, config))
        .setStartingOffsets(offsets.committedOffsets(earliest))
        .setDeserializer(frames)
        .setProperty("isolation.level", "read_committed")
        .setProperty("max.poll.records", str(config.batch_records))
        # For those who watch the lag: a restore goes by the checkpoint's offsets.
        .setProperty("commit.offsets.on.checkpoint", "true")
    )
    for name, value in config.options.items():
        builder.setProperty(name, value)
    if config.bounded:
        builder.setBounded(offsets.latest())
    return builder.build()


def _sink(group: Group, config: FlinkConfig) -> Java:
    jvm = get_gateway().jvm
    builder = (
        jvm.org.apache.flink.connector.kafka.sink.KafkaSink.builder()
        .setBootstrapServers(config.kafka)
        .setRecordSerializer(jvm.fleetwheel.flink.WriteFrames(config.prefix))
        .setDeliveryGuarantee(jvm.org.apache.flink.connector.base.DeliveryGuarantee.EXACTLY_ONCE)
        .setTransactionalIdPrefix(group_id(group, config))
        .setProperty("transaction.timeout.ms", str(config.transaction_timeout_ms))
        .setProperty("max.request.size", str(4 << 20))
        .setProperty("linger.ms", "5")
        # Of one partition's records; by default ten scenarios fill it.
        .setProperty("batch.size", str(256 << 10))
        .setProperty("compression.type", "lz4")
    )
    for name, value in config.options.items():
        builder.setProperty(name, value)
    return builder.build()


def flink_settings(config: FlinkConfig, restore: str | None) -> dict[str, str]:
    """Flink's own configuration of the job."""
    settings = {
        "python.execution-mode": config.execution,
        "python.executable": config.python,
        "python.client.executable": config.python,
        "pipeline.jars": ";".join(Path(j).resolve().as_uri() for j in config.jars),
        "pipeline.max-parallelism": str(config.max_parallelism),
        "pipeline.object-reuse": "true",
        "pipeline.auto-watermark-interval": "100 ms",
        "parallelism.default": str(config.parallelism),
        "execution.checkpointing.interval": f"{config.checkpoint_ms} ms",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.dir": config.checkpoints,
        # The mark must be the last before the barrier: a barrier that overtakes would leave it behind.
        "execution.checkpointing.unaligned.enabled": "false",
        "execution.checkpointing.num-retained": "3",
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.tolerable-failed-checkpoints": "3",
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": str(config.restarts),
        "restart-strategy.fixed-delay.delay": "1 s",
        # One call into Python a batch: Beam must not wait for more of them.
        "python.fn-execution.bundle.size": "1",
        "state.backend.type": "hashmap",
    }
    if restore:
        settings["execution.state-recovery.path"] = restore
    return settings | object_store(os.environ) | (_remote(config) if config.master else _embedded(config))


def _remote(config: FlinkConfig) -> dict[str, str]:
    host, _, port = config.master.rpartition(":")
    return {"execution.target": "remote", "rest.address": host, "rest.port": port}


def _embedded(config: FlinkConfig) -> dict[str, str]:
    settings = {
        "execution.target": "local",
        "rest.bind-address": "127.0.0.1",
        "rest.bind-port": "0",
        "taskmanager.numberOfTaskSlots": str(config.parallelism),
        "taskmanager.memory.managed.size": "64m",
        "taskmanager.memory.network.min": "64m",
        "taskmanager.memory.network.max": "64m",
    }
    return settings | (prometheus(config.metrics_ports) if config.metrics_ports else {})


def prometheus(ports: str) -> dict[str, str]:
    """Settings of Flink's reporter, whose jar `make flink` puts beside Flink's own."""
    factory = "org.apache.flink.metrics.prometheus.PrometheusReporterFactory"
    return {"metrics.reporter.prom.factory.class": factory, "metrics.reporter.prom.port": ports}


def find_restore(config: FlinkConfig) -> str | None:
    """The checkpoint to go on from; None to begin anew, also where "latest" finds none."""
    return _newest(config.checkpoints) if config.restore == "latest" else config.restore or None


def _newest(uri: str) -> str | None:
    """By Flink's own file systems, so that it finds what its plugins open."""
    core = get_gateway().jvm.org.apache.flink.core
    settings = Configuration()
    for name, value in object_store(os.environ).items():
        settings.set_string(name, value)
    plugins = core.plugin.PluginUtils.createPluginManagerFromRootFolder(settings._j_configuration)
    core.fs.FileSystem.initialize(settings._j_configuration, plugins)
    path = core.fs.Path(uri)
    found: list[tuple[str, int]] = []
    system = path.getFileSystem()
    if not system.exists(path):
        return None
    for job in system.listStatus(path):
        if not job.isDir():
            continue
        for checkpoint in system.listStatus(job.getPath()):
            for file in system.listStatus(checkpoint.getPath()) if checkpoint.isDir() else ():
                found.append((str(file.getPath().toString()), int(file.getModificationTime())))
    return newest_checkpoint(found)


def run(configs: Sequence[FlinkConfig]) -> None:
    """Submit one job, of several fleets where there are several, and wait until it ends. What is the job's own is
    taken from the first."""
    config, settings = configs[0], Configuration()
    restore = find_restore(config)
    for name, value in flink_settings(config, restore).items():
        settings.set_string(name, value)
    env = _environment(config, settings)
    for one in configs:
        add_groups(env, one)
    client = env.execute_async("fleetwheel " + " ".join(config.stages))
    _say(event="started", job=str(client.get_job_id()), restored=restore or "")
    _await(client)
    _say(event="ended", job=str(client.get_job_id()))


def _environment(config: FlinkConfig, settings: Configuration) -> StreamExecutionEnvironment:
    """Flink takes a process that its own command line did not start for a cluster, whatever the settings say."""
    if not config.master:
        return StreamExecutionEnvironment.get_execution_environment(settings)
    api = get_gateway().jvm.org.apache.flink.streaming.api.environment
    return StreamExecutionEnvironment(api.StreamExecutionEnvironment(settings._j_configuration))


def _await(client: JobClient) -> None:
    """Until the job ends, or SIGTERM or SIGINT asks it to: its last checkpoint stays."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    end = client.get_job_execution_result()
    while not end.done():
        if stop.wait(0.2):
            client.cancel().result()
            return
    end.result()


def _say(**fields: str) -> None:
    sys.stdout.write(msgspec.json.encode(fields).decode() + "\n")
    sys.stdout.flush()


def main(paths: Sequence[str]) -> None:
    """Entry point. The JVM must find this interpreter's libraries and ours."""
    here = str(Path(__file__).resolve().parents[2])
    packages = [p for p in sys.path if p.endswith("site-packages")]
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *packages])
    run([msgspec.json.decode(Path(p).read_bytes(), type=FlinkConfig) for p in paths])


if __name__ == "__main__":
    main(sys.argv[1:])
