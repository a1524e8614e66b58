"""PyFlink as its guide shows it, one event at a time, keyed by vehicle, exactly once:
`pyflink_keyed.py BOOTSTRAP PREFIX GROUP PROTOTYPES WORK`, until it is ended.

State that expires keeps the ids; where idiom and speed disagree it is generous: typed msgspec; prototypes, recent
distances and the window in memory, without a checkpoint; values alone, without key and headers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from pyflink.common import Configuration, Time, Types, WatermarkStrategy
from pyflink.common.serialization import ByteArraySchema
from pyflink.datastream import KeyedProcessFunction, OutputTag, RuntimeContext, StreamExecutionEnvironment
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from pyflink.datastream.state import MapStateDescriptor, StateTtlConfig

from fleet.flink import FlinkEnvironment
from tests.benchmarks.peers.stages import work_of

BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
REQUESTS = OutputTag("requests", BYTES)
JVM = "-XX:G1HeapRegionSize=8m"
"""Of its own: it runs more of Java than whole batches do, and wants both compilers."""


class PerEvent(KeyedProcessFunction):  # type: ignore[misc]  # of another environment
    """Keyed by vehicle."""

    def __init__(self, work: str, prototypes: str) -> None:
        self._of = work, prototypes

    def open(self, runtime_context: RuntimeContext) -> None:
        seen = MapStateDescriptor("seen", Types.STRING(), Types.BOOLEAN())
        seen.enable_time_to_live(StateTtlConfig.new_builder(Time.days(1)).build())
        self._seen = runtime_context.get_map_state(seen)
        self._work = work_of(*self._of)

    def process_element(
        self, value: bytes, ctx: KeyedProcessFunction.Context
    ) -> Iterator[bytes | tuple[OutputTag, bytes]]:
        event = self._work.event(value)
        if event is None or self._seen.contains(event.event_id):
            return
        self._seen.put(event.event_id, True)
        for topic, _, _, record in self._work.decide([event]):
            yield record if topic == "fleet.scenarios" else (REQUESTS, record)


class _Key(msgspec.Struct):
    vehicle: str


def vehicle_of(value: bytes) -> str:
    return msgspec.json.decode(value, type=_Key).vehicle


def main(bootstrap: str, prefix: str, group: str, prototypes: str, what: str) -> None:
    with TemporaryDirectory(prefix="pyflink-") as folder:
        run(bootstrap, prefix, group, PerEvent(what, prototypes), Path(folder))


def run(bootstrap: str, prefix: str, group: str, decide: PerEvent, folder: Path) -> None:
    environment = FlinkEnvironment().check()
    os.environ.update(environment.variables(folder / "logs", jvm=JVM))
    settings = Configuration()
    for name, value in settings_of(environment, folder).items():
        settings.set_string(name, value)
    env = StreamExecutionEnvironment.get_execution_environment(settings)
    source = (
        KafkaSource.builder()
        .set_bootstrap_servers(bootstrap)
        .set_topics(f"{prefix}fleet.events")
        .set_group_id(prefix + group)
        .set_property("isolation.level", "read_committed")
        .set_starting_offsets(KafkaOffsetsInitializer.earliest())
        .set_value_only_deserializer(ByteArraySchema())
        .build()
    )
    events = env.from_source(source, WatermarkStrategy.no_watermarks(), "events")
    told = events.key_by(vehicle_of, Types.STRING()).process(decide, BYTES)
    told.sink_to(sink(bootstrap, f"{prefix}fleet.scenarios", prefix + group))
    told.get_side_output(REQUESTS).sink_to(sink(bootstrap, f"{prefix}fleet.clip-requests", prefix + group))
    env.execute("keyed, per event")


def sink(bootstrap: str, topic: str, group: str) -> KafkaSink:
    schema = KafkaRecordSerializationSchema.builder().set_topic(topic)
    return (
        KafkaSink.builder()
        .set_bootstrap_servers(bootstrap)
        .set_record_serializer(schema.set_value_serialization_schema(ByteArraySchema()).build())
        .set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE)
        .set_transactional_id_prefix(f"{group}-{topic}")
        .set_property("transaction.timeout.ms", "600000")
        .build()
    )


def settings_of(environment: FlinkEnvironment, folder: Path) -> dict[str, str]:
    """As our engine's, as far as they are about more than whole batches."""
    return {
        "execution.target": "local",
        "rest.bind-port": "0",
        "python.execution-mode": "thread",
        "python.executable": str(environment.python),
        "python.client.executable": str(environment.python),
        "pipeline.jars": ";".join(Path(j).as_uri() for j in environment.jars),
        "pipeline.object-reuse": "true",
        "parallelism.default": "1",
        "execution.checkpointing.interval": "2 s",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.dir": (folder / "checkpoints").as_uri(),
        "restart-strategy.type": "none",
        "taskmanager.memory.managed.size": "64m",
    }


if __name__ == "__main__":
    # Flink pickles functions by the name of their module, which must not be __main__.
    import_module("tests.benchmarks.peers.pyflink_keyed").main(*sys.argv[1:])
