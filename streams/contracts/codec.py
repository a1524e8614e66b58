"""Messages to records and back: CloudEvents 1.0 in Kafka's binary mode, JSON data, everything bounded."""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from itertools import groupby
from operator import attrgetter
from typing import Union

import msgspec

from streams.contracts.campaigns import Campaign, CampaignReport
from streams.contracts.clips import ArchivedClip, ClipChunk, ClipRequest, LostClip
from streams.contracts.dead_letter import DeadLetter
from streams.contracts.drive import Telemetry, TriggerEvent
from streams.contracts.ids import digest, event_id
from streams.contracts.jobs import JobFinished, JobRequested, JobStarted
from streams.contracts.releases import Rollout
from streams.contracts.scenarios import Scenario

Message = (
    TriggerEvent
    | Telemetry
    | ClipRequest
    | ClipChunk
    | ArchivedClip
    | LostClip
    | Scenario
    | JobRequested
    | JobStarted
    | JobFinished
    | Rollout
    | Campaign
    | CampaignReport
    | DeadLetter
)

MESSAGES: dict[str, type[Message]] = {
    str(t.__struct_config__.tag): t
    for t in (
        TriggerEvent,
        Telemetry,
        ClipRequest,
        ClipChunk,
        ArchivedClip,
        LostClip,
        Scenario,
        JobRequested,
        JobStarted,
        JobFinished,
        Rollout,
        Campaign,
        CampaignReport,
        DeadLetter,
    )
}
"""CloudEvents type -> message: every version that was ever released stays here."""

MAX_RECORD_BYTES = 1_000_000
MAX_DEAD_LETTER_BYTES = 2_000_000
"""A dead letter holds any other record whole, in base64."""
FUTURE_NS = 5 * 60 * 1_000_000_000
"""A sender's clock may be this far ahead."""
STALE_NS = 90 * 24 * 3600 * 1_000_000_000
"""Older than this and its clip is gone everywhere."""

Headers = tuple[tuple[str, bytes], ...]


class Rejected(ValueError):
    """A record that must go to the dead letters: `reason` is a short code, `detail` says what was wrong."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


_MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)
_VERSION, _CONTENT = ("ce_specversion", b"1.0"), ("content-type", b"application/json")
_NAMES: dict[type, str] = {t: name for name, t in MESSAGES.items()}
_NAMED_BY_CONTENT = frozenset(_NAMES) - {TriggerEvent, Telemetry, ClipChunk, Scenario}


class _Nothing(msgspec.Struct, tag="fleetwheel.nothing", tag_field="type"):
    """No message."""


# Tuples, as a union would be made anew at every check.
_NUMBERED = (TriggerEvent, Telemetry)
_FROM_VEHICLES = (TriggerEvent, Telemetry, ClipChunk, CampaignReport)
_TIME: attrgetter[int] = attrgetter("time_ns")
_HAPPENED: dict[type, attrgetter[int]] = {
    Scenario: attrgetter("event.time_ns"),
    ClipRequest: attrgetter("requested_ns"),
}
_encode = msgspec.json.Encoder().encode
_decoders = {name: msgspec.json.Decoder(t) for name, t in MESSAGES.items()}


def encode(message: Message, source: str = "fleetwheel") -> tuple[Headers, bytes]:
    """Headers (ce_*) and JSON value of a message. Raises Rejected for a value no reader would take."""
    return encode_many([message], source)[0]


def encode_many(messages: Sequence[Message], source: str = "fleetwheel") -> list[tuple[Headers, bytes]]:
    """`encode` of many, a column at a time."""
    from_ = ("ce_source", source.encode())
    found: list[tuple[Headers, bytes]] = []
    for kind, run in groupby(messages, type):
        some = list(run)
        name = _NAMES[kind]
        type_ = ("ce_type", name.encode())
        values = [_encode(m) for m in some]
        if max(map(len, values)) > MAX_RECORD_BYTES:
            for value in values:
                _check_size(name, value)
        if kind in _NAMED_BY_CONTENT:
            head = _content_head(name)
            ids = [_content_id(head, value) for value in values]
        else:
            ids = [message_id(m).encode() for m in some]
        times = map(_rfc3339, map(_HAPPENED.get(kind, _TIME), some))
        found += [
            ((_VERSION, type_, from_, ("ce_id", named), ("ce_time", time), _CONTENT), value)
            for named, time, value in zip(ids, times, values, strict=True)
        ]
    return found


def decode(headers: Headers, value: bytes, now_ns: int) -> Message:
    """The message of a record. Unknown fields are passed over; anything out of bounds raises Rejected."""
    name = _declared_type(headers)
    _check_size(name, value)
    try:
        message: Message = _decoders[name].decode(value)
    except _MALFORMED as error:
        raise Rejected("malformed", f"{name}: {error}") from error
    _check(message, now_ns)
    return message


def decode_many(types: tuple[type[Message], ...], values: Sequence[bytes], now_ns: int) -> list[Message | None]:
    """The messages of records of a topic that carries these types. A record is what the `type` in its JSON says;
    `ce_type` repeats it for routers. None for what is not sound: `decode` says why."""
    decoder = _decoder(types)
    decode_one = decoder.decode
    try:
        found: list[Message | None] = [decode_one(v) for v in values]
    except _MALFORMED:
        found = [_or_none(decoder, v) for v in values]
    oldest, newest = now_ns - STALE_NS, now_ns + FUTURE_NS
    return [
        m if _is_event(m, len(v), oldest, newest) or _sound(m, len(v), now_ns) else None
        for m, v in zip(found, values, strict=True)
    ]


@lru_cache
def _decoder(types: tuple[type[Message], ...]) -> msgspec.json.Decoder[Message]:
    # With a second member `type` must be there, even where the topic carries one type alone.
    return msgspec.json.Decoder(Union[(*types, _Nothing)])


def _or_none(decoder: msgspec.json.Decoder[Message], value: bytes) -> Message | None:
    try:
        return decoder.decode(value)
    except _MALFORMED:
        return None


def _is_event(m: Message | None, size: int, oldest_ns: int, newest_ns: int) -> bool:
    """Whether it is a sound event, told in one look: nearly all that comes is."""
    return (
        type(m) is TriggerEvent
        and oldest_ns <= m.time_ns <= newest_ns
        and size <= MAX_RECORD_BYTES
        and m.event_id == event_id(m.vehicle, m.boot, m.sequence)
    )


def _sound(message: Message | None, size: int, now_ns: int) -> bool:
    if message is None or isinstance(message, _Nothing):
        return False
    try:
        if size > MAX_RECORD_BYTES:
            return isinstance(message, DeadLetter) and size <= MAX_DEAD_LETTER_BYTES
        _check(message, now_ns)
    except Rejected:
        return False
    return True


def type_of(message: Message) -> str:
    """The CloudEvents type of a message."""
    return _NAMES[type(message)]


def time_of(message: Message) -> int:
    """When it happened, ns."""
    time_ns: int = _HAPPENED.get(type(message), _TIME)(message)
    return time_ns


def message_id(message: Message) -> str:
    """The idempotency key: equal for every re-send of the same message, and of no other one's."""
    if isinstance(message, Scenario):
        # By its event, which is judged once: hashing a scenario takes as long as writing it.
        return f"scenario-{message.event.event_id}"
    if isinstance(message, _NUMBERED):
        return message.event_id
    if isinstance(message, ClipChunk):
        return digest("chunk", message.clip_sha256, str(message.index))[:32]
    return _content_id(_content_head(type_of(message)), _encode(message)).decode()


def _content_head(name: str) -> bytes:
    kind = name.encode()
    return len(kind).to_bytes(4, "big") + kind


def _content_id(head: bytes, value: bytes) -> bytes:
    """digest(name of the type, value), its first half."""
    return hexlify(sha256(head + len(value).to_bytes(4, "big") + value).digest()[:16])


def _declared_type(headers: Headers) -> str:
    name = next((v.decode("utf-8", "replace") for k, v in headers if k == "ce_type"), "")
    if name in MESSAGES:
        return name
    family = name.rpartition(".v")[0]
    if family and any(known.rpartition(".v")[0] == family for known in MESSAGES):
        raise Rejected("unknown-version", f"{name!r}: this reader knows {sorted(MESSAGES)}")
    raise Rejected("unknown-type", f"ce_type {name[:100]!r} is not a Fleetwheel message")


def _check_size(name: str, value: bytes) -> None:
    limit = MAX_DEAD_LETTER_BYTES if MESSAGES[name] is DeadLetter else MAX_RECORD_BYTES
    if len(value) > limit:
        raise Rejected("oversized", f"{len(value)} bytes; a record holds at most {limit}")


def _check(message: Message, now_ns: int) -> None:
    if not isinstance(message, _FROM_VEHICLES):
        return
    if message.time_ns > now_ns + FUTURE_NS:
        ahead_s = (message.time_ns - now_ns) / 1e9
        raise Rejected(
            "future-dated", f"{message.vehicle} is {ahead_s:.0f} s ahead; at most {FUTURE_NS / 1e9:.0f} s"
        )
    if message.time_ns < now_ns - STALE_NS:
        raise Rejected("stale", f"{message.vehicle} sent what is {(now_ns - message.time_ns) / 1e9:.0f} s old")
    if not isinstance(message, _NUMBERED):
        return
    if message.event_id != event_id(message.vehicle, message.boot, message.sequence):
        raise Rejected("mismatch", f"event_id {message.event_id} is not the hash of vehicle, boot and sequence")


def _rfc3339(time_ns: int) -> bytes:
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return b"%b.%09dZ" % (_to_the_second(seconds), rest)


@lru_cache(maxsize=4096)
def _to_the_second(seconds: int) -> bytes:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}".encode()
