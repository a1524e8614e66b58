"""A peer: PyFlink as its guide shows it, one event at a time, keyed by vehicle, exactly once.

The work is the other peers' (work.py), without the window's selection: parse, drop what came before (keyed state
that expires), tags, cosine distance to the nearest prototypes and its place among recent ones, the scenario. Where
idiom and speed disagree it is generous: typed msgspec, prototypes in memory without a checkpoint.

    build/envs/flink/bin/python -m tests.benchmarks.peers.pyflink_keyed '{"kafka": ..., "prefix": ..., ...}'
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
from pyflink.common import Configuration, Time, Types, WatermarkStrategy
from pyflink.common.serialization import ByteArraySchema
from pyflink.datastream import KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from pyflink.datastream.state import MapStateDescriptor, StateTtlConfig

from tests.benchmarks.peers.work import Event, Scenario, Work, event_id, odd_of, scenario_record, tags_of


class PerEvent(KeyedProcessFunction):  # type: ignore[misc]
    """Keyed by vehicle."""

    def open(self, runtime_context: RuntimeContext) -> None:
        seen = MapStateDescriptor("seen", Types.STRING(), Types.BOOLEAN())
        seen.enable_time_to_live(StateTtlConfig.new_builder(Time.days(1)).build())
        self._seen = runtime_context.get_map_state(seen)
        self._work = Work()

    def process_element(self, value: bytes, ctx: KeyedProcessFunction.Context) -> Iterator[bytes]:
        event = decode(value)
        if event.event_id != event_id(event) or self._seen.contains(event.event_id):
            return
        self._seen.put(event.event_id, True)
        (novelty,) = self._work.novelty([event.embedding], [event])
        cell, odd = odd_of(event)
        yield scenario_record(Scenario(event, cell, odd, tags_of(event), novelty))[3]


decode = msgspec.json.Decoder(Event).decode


BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())


def vehicle_of(value: bytes) -> str:
    """The key."""
    return str(msgspec.json.decode(value, type=_Key).vehicle)


class _Key(msgspec.Struct):
    vehicle: str


def main(words: dict[str, Any]) -> None:
    """Runs until it is ended."""
    settings = Configuration()
    for name, value in words["settings"].items():
        settings.set_string(name, value)
    env = StreamExecutionEnvironment.get_execution_environment(settings)
    source = (
        KafkaSource.builder()
        .set_bootstrap_servers(words["kafka"])
        .set_topics(words["input"])
        .set_group_id(words["group"])
        .set_starting_offsets(KafkaOffsetsInitializer.earliest())
        .set_value_only_deserializer(ByteArraySchema())
        .build()
    )
    schema = (
        KafkaRecordSerializationSchema.builder()
        .set_topic(words["output"])
        .set_value_serialization_schema(ByteArraySchema())
        .build()
    )
    sink = (
        KafkaSink.builder()
        .set_bootstrap_servers(words["kafka"])
        .set_record_serializer(schema)
        .set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE)
        .set_transactional_id_prefix(words["group"])
        .set_property("transaction.timeout.ms", "600000")
        .build()
    )
    events = env.from_source(source, WatermarkStrategy.no_watermarks(), "events")
    keyed = events.key_by(vehicle_of, Types.STRING())
    keyed.process(PerEvent(), BYTES).sink_to(sink)
    env.execute("keyed, per event")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
