"""Names made from content, so that a replay makes the same names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

_EVENT = b"\0\0\0\5event"


def sha256_hex(data: bytes) -> str:
    """The name of a piece of content: 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def event_id(vehicle: str, boot: str, sequence: int) -> str:
    """The same event always has the same id (32 hex digits), however often it is sent."""
    car, start, number = vehicle.encode(), boot.encode(), b"%d" % sequence
    # digest("event", vehicle, boot, str(sequence)), written out: every event is checked by it.
    data = b"%b%b%b%b%b%b%b" % (
        _EVENT, len(car).to_bytes(4, "big"), car, len(start).to_bytes(4, "big"), start,
        len(number).to_bytes(4, "big"), number,
    )  # fmt: skip
    return hashlib.sha256(data).hexdigest()[:32]


def digest(*parts: str) -> str:
    """sha256 over length-prefixed parts: ("ab", "c") and ("a", "bc") differ."""
    encoded = [p.encode() for p in parts]
    return sha256_hex(b"".join([b"%b%b" % (len(b).to_bytes(4, "big"), b) for b in encoded]))


def job_fingerprint(clip_sha256s: Iterable[str], base_model: str, recipe: str, code: str) -> str:
    """What a learning job is made from; equal fingerprints are one job (64 hex digits)."""
    return digest("job", base_model, recipe, code, *sorted(clip_sha256s))


def bucket(salt: str, name: str) -> float:
    """A fixed pseudo-random place in [0, 1) for a name: who is a canary, who is sampled."""
    return int(digest("bucket", salt, name)[:13], 16) / 16**13
