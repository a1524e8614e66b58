"""What an operator asks of a broker: its topics against the table, and where the groups stand."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewPartitions

from streams.lag import Place
from streams.topic_changes import Change, OnBroker, changes
from streams.topics import BY_NAME, TOPICS, Topic
from streams.transport.base import Retry
from streams.transport.kafka import KafkaConfig, call, connect, new_topic, topic_settings

_AT = tuple[str, int]


class KafkaAdmin:
    """Looks at a broker and, in `apply`, changes its topics. Makes nothing by itself. Every call may block for
    the configuration's timeout and raises Retry where the broker did not answer."""

    def __init__(self, config: KafkaConfig) -> None:
        """Raises ConnectionFailed within seconds."""
        self.config = config
        self._admin: AdminClient = connect(config)

    def topics(self) -> dict[str, OnBroker]:
        """Every topic with our prefix, without it, as the broker has it."""
        listed = call(lambda: self._admin.list_topics(timeout=self.config.timeout_s)).topics
        counts = {n: len(t.partitions) for n, t in listed.items() if n.startswith(self.config.prefix)}
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in counts]
        asked = self._admin.describe_configs(resources) if resources else {}
        return {
            self._bare(resource.name): OnBroker(
                counts[resource.name], {key: entry.value for key, entry in self._wait(future).items()}
            )
            for resource, future in asked.items()
        }

    def changes(self) -> list[Change]:
        """What differs from the table."""
        return changes(self.topics(), ((topic, topic_settings(topic)) for topic in TOPICS))

    def apply(self, todo: Iterable[Change], grow: bool = False) -> list[str]:
        """Make missing topics and set what differs; partitions are added only with `grow`. What was done, a line
        each."""
        done: list[str] = []
        todo = list(todo)
        for change in todo:
            done += self._create(change) + self._set(change) + (self._grow(change) if grow else [])
        self._await([c.topic for c in todo if c.create or (grow and c.grow_from)])
        return done

    def places(self, groups: Sequence[str] = ()) -> list[Place]:
        """Where groups (all, or these) stand in the table's topics; a group is in the list with what it has ever
        committed."""
        listed = self._wait(self._admin.list_consumer_groups())
        names = sorted(g.group_id for g in listed.valid if g.group_id.startswith(self.config.prefix))
        wanted = [n for n in names if not groups or self._bare(n) in groups]
        committed = {self._bare(name): self._committed(name) for name in wanted}
        ends = self._ends(sorted({at for places in committed.values() for at in places}))
        return [
            Place(group, topic, partition, offset, ends[topic, partition])
            for group, places in committed.items()
            for (topic, partition), offset in sorted(places.items())
        ]

    def _committed(self, group: str) -> dict[_AT, int]:
        asked = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
        found = self._wait(asked[group]).topic_partitions or []
        known = [p for p in found if self._bare(p.topic) in BY_NAME]
        return {(self._bare(p.topic), p.partition): max(p.offset, 0) for p in known}

    def _ends(self, places: Sequence[_AT]) -> dict[_AT, int]:
        newest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        wanted = {TopicPartition(self.config.prefix + topic, number): newest for topic, number in places}
        asked = self._admin.list_offsets(wanted) if wanted else {}
        return {(self._bare(p.topic), p.partition): int(self._wait(f).offset) for p, f in asked.items()}

    def _create(self, change: Change) -> list[str]:
        if not change.create:
            return []
        topic = change.topic
        new = new_topic(self.config, topic)
        self._wait(self._admin.create_topics([new])[new.topic])
        return [f"{topic.name}: made with {topic.partitions} partitions"]

    def _set(self, change: Change) -> list[str]:
        if not change.settings:
            return []
        entries = [
            ConfigEntry(key, then, incremental_operation=AlterConfigOpType.SET)
            for key, (_, then) in change.settings.items()
        ]
        resource = ConfigResource(
            ConfigResource.Type.TOPIC, self.config.prefix + change.topic.name, incremental_configs=entries
        )
        self._wait(self._admin.incremental_alter_configs([resource])[resource])
        return [f"{change.topic.name}: {key} set to {then}" for key, (_, then) in change.settings.items()]

    def _grow(self, change: Change) -> list[str]:
        if not change.grow_from:
            return []
        name = self.config.prefix + change.topic.name
        self._wait(self._admin.create_partitions([NewPartitions(name, change.topic.partitions)])[name])
        return [f"{change.topic.name}: grown from {change.grow_from} to {change.topic.partitions} partitions"]

    def _await(self, made: Sequence[Topic]) -> None:
        """What was made is told by the broker only a moment later."""
        ends = time.monotonic() + self.config.timeout_s
        while time.monotonic() < ends:
            listed = call(lambda: self._admin.list_topics(timeout=self.config.timeout_s)).topics
            found = {t.name: listed.get(self.config.prefix + t.name) for t in made}
            if all((on := found[t.name]) and len(on.partitions) == t.partitions for t in made):
                return
            time.sleep(0.05)
        raise Retry(f"{self.config.bootstrap} does not show {', '.join(t.name for t in made)} yet")

    def _wait(self, future: Any) -> Any:  # noqa: ANN401  the client's futures are untyped
        try:
            return call(lambda: future.result(timeout=self.config.timeout_s))
        except TimeoutError as error:
            raise Retry(f"{self.config.bootstrap} did not answer in {self.config.timeout_s:g} s") from error

    def _bare(self, name: str) -> str:
        return name.removeprefix(self.config.prefix)
