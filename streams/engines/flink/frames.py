"""What passes between the JVM and Python: whole batches as MessagePack, written and read by java/*.java."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from streams.engines.round import Outgoing
from streams.transport.base import Record


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """A Kafka record as java/RecordFrames.java writes it."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    key: bytes
    headers: msgspec.Raw
    """Read only where a record is refused."""
    value: bytes

    def record(self) -> Record:
        """As engines know it."""
        time_ns = max(self.time_ms, 0) * 1_000_000
        headers = _headers.decode(self.headers)
        return Record(self.topic, self.partition, self.offset, self.key, headers, self.value, time_ns)


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive records of one lane (java/LaneBatches.java), or the mark that a checkpoint is about to come."""

    mark: bool
    frames: list[Frame]


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """A record on its way out."""

    topic: str
    key: bytes
    headers: msgspec.Raw
    value: bytes
    time_ms: int


class Told(msgspec.Struct, frozen=True, array_like=True):
    """What a batch came to, as another group takes it; or the mark (java/ToldBatches.java)."""

    mark: bool
    records: msgspec.Raw
    token: bytes = b""
    """Under which the round itself may be found (handed.py)."""

    def frames(self, topics: Collection[str]) -> list[Frame]:
        """Its records of these topics. Places they have none yet."""
        sent = _sent.decode(self.records)
        return [Frame(s.topic, 0, 0, s.time_ms, s.key, s.headers, s.value) for s in sent if s.topic in topics]


_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...])
_decoder = msgspec.msgpack.Decoder(Batch)
_sent = msgspec.msgpack.Decoder(list[Sent])
_told = msgspec.msgpack.Decoder(Told)
_encoder = msgspec.msgpack.Encoder()


def read_batch(data: bytes) -> Batch:
    """A batch that java/LaneBatches.java gathered."""
    return _decoder.decode(data)


def read_told(data: bytes) -> Told:
    """What `write_outgoing` wrote, or the mark."""
    return _told.decode(data)


def write_outgoing(outgoing: Sequence[Outgoing], now_ns: int, token: bytes = b"") -> bytes:
    """What java/SplitFrames.java takes apart and java/WriteFrames.java publishes, with the instant of the decision
    as the records' time."""
    now_ms = now_ns // 1_000_000
    return _encoder.encode((False, [(*out, now_ms) for out in outgoing], token))
