"""Which topic carries what: one table. Brokers, engines, documents and tests are made from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from streams.contracts.campaigns import Campaign, CampaignReport
from streams.contracts.clips import ArchivedClip, ClipChunk, ClipRequest, LostClip
from streams.contracts.codec import Message
from streams.contracts.dead_letter import DeadLetter
from streams.contracts.drive import Telemetry, TriggerEvent
from streams.contracts.jobs import JobFinished, JobRequested, JobStarted
from streams.contracts.releases import Rollout
from streams.contracts.scenarios import Scenario

DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic: what it carries, by which key it is partitioned, how long it is kept."""

    name: str
    carries: tuple[type[Message], ...]
    key: str
    """The field, dotted, whose value is the record's key."""
    partitions: int
    retention_ms: int
    compacted: bool = False
    max_bytes: int = 1_048_588
    """Of a record, headers included: Kafka's default."""


TOPICS: tuple[Topic, ...] = (
    #     name                    carries                                key              partitions  kept
    Topic("fleet.events", (TriggerEvent,), "vehicle", 8, 7 * DAY_MS),
    Topic("fleet.telemetry", (Telemetry, CampaignReport), "vehicle", 8, 30 * DAY_MS),
    Topic("fleet.clip-requests", (ClipRequest,), "vehicle", 4, 7 * DAY_MS),
    Topic("fleet.clips", (ClipChunk, LostClip), "clip_id", 8, 2 * DAY_MS),
    Topic("fleet.scenarios", (Scenario,), "cell", 8, 30 * DAY_MS),
    Topic("fleet.archive", (ArchivedClip, LostClip), "clip_id", 4, 90 * DAY_MS),
    Topic("learning.jobs", (JobRequested, JobStarted, JobFinished), "fingerprint", 2, 365 * DAY_MS),
    Topic("fleet.releases", (Rollout,), "cohort", 1, 365 * DAY_MS, compacted=True),
    Topic("fleet.campaigns", (Campaign,), "campaign_id", 1, 365 * DAY_MS, compacted=True),
    # Holds any record of the others whole, in base64.
    Topic("fleet.dead-letter", (DeadLetter,), "topic", 1, 365 * DAY_MS, max_bytes=2_097_152),
)

BY_NAME: dict[str, Topic] = {t.name: t for t in TOPICS}
DEAD_LETTER = "fleet.dead-letter"


def key_of(topic: Topic, message: Message) -> str:
    """The record key of a message: equal keys stay in order. Raises TypeError for a message of another topic."""
    if not isinstance(message, topic.carries):
        names = [t.__name__ for t in topic.carries]
        raise TypeError(f"{topic.name} carries {names}, not {type(message).__name__}")
    value: object = message
    for part in topic.key.split("."):
        value = getattr(value, part)
    return str(value)


def keys_of(topic: Topic, messages: Sequence[Message]) -> list[bytes]:
    """`key_of` as bytes, for many. Raises TypeError for a message of another topic."""
    if {type(m) for m in messages} <= set(topic.carries):
        return [str(key).encode() for key in map(attrgetter(topic.key), messages)]
    return [key_of(topic, m).encode() for m in messages]
