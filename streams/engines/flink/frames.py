"""What passes between the JVM and Python: whole batches as MessagePack, written and read by java/*.java."""

from __future__ import annotations

from collections.abc import Sequence

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


_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...])
_decoder = msgspec.msgpack.Decoder(Batch)
_encoder = msgspec.msgpack.Encoder()


def read_batch(data: bytes) -> Batch:
    """A batch that java/LaneBatches.java gathered."""
    return _decoder.decode(data)


def write_outgoing(outgoing: Sequence[Outgoing], now_ns: int) -> bytes:
    """What java/SplitFrames.java takes apart and java/WriteFrames.java publishes, with the instant of the decision
    as the records' time."""
    now_ms = now_ns // 1_000_000
    return _encoder.encode([(*out, now_ms) for out in outgoing])
