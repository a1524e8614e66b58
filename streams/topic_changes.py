"""What a broker's topics lack against the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from streams.topics import TOPICS, Topic


@dataclass(frozen=True, slots=True)
class OnBroker:
    """A topic as a broker has it."""

    partitions: int
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """What must be done for a topic; nothing where all fields are empty."""

    topic: Topic
    create: bool = False
    settings: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Setting -> (as it is, as it should be)."""
    grow_from: int = 0
    """Partitions there are, where there should be more. Equal keys then go to other partitions than before."""
    too_many: int = 0
    """Partitions there are, where there should be fewer: Kafka cannot take any away."""

    def told(self) -> list[str]:
        """A line for each thing."""
        name, wanted = self.topic.name, self.topic.partitions
        lines = [f"{name}: missing"] if self.create else []
        lines += [f"{name}: {key} is {now}, should be {then}" for key, (now, then) in self.settings.items()]
        if self.grow_from:
            lines.append(f"{name}: has {self.grow_from} partitions, should have {wanted}")
        if self.too_many:
            lines.append(f"{name}: has {self.too_many} partitions, should have {wanted}; Kafka takes none away")
        return lines


def changes(on_broker: Mapping[str, OnBroker], wanted: Iterable[tuple[Topic, Mapping[str, str]]]) -> list[Change]:
    """What differs, in the table's order. `wanted`: each topic and its settings on a broker."""
    found = (_change(topic, settings, on_broker.get(topic.name)) for topic, settings in wanted)
    return [change for change in found if change.told()]


def _change(topic: Topic, settings: Mapping[str, str], present: OnBroker | None) -> Change:
    if present is None:
        return Change(topic, create=True)
    differ = {
        key: (present.settings.get(key, "unset"), value)
        for key, value in settings.items()
        if present.settings.get(key) != value
    }
    few, many = present.partitions < topic.partitions, present.partitions > topic.partitions
    return Change(topic, False, differ, present.partitions if few else 0, present.partitions if many else 0)


def unknown(on_broker: Iterable[str], table: Iterable[Topic] = TOPICS) -> list[str]:
    """Topics of ours that the table does not have: left by an older version, or misspelt."""
    names = {topic.name for topic in table}
    families = {name.partition(".")[0] for name in names}
    return sorted(n for n in on_broker if n not in names and n.partition(".")[0] in families)
