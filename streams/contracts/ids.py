"""Names made from content, so that a replay makes the same names."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from functools import lru_cache


def sha256_hex(data: bytes) -> str:
    """The name of a piece of content: 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def event_id(vehicle: str, boot: str, sequence: int) -> str:
    """The same event always has the same id (32 hex digits), however often it is sent."""
    # digest("event", vehicle, boot, str(sequence)), written out: every event is checked by it.
    number = b"%d" % sequence
    return hashlib.sha256(_drive(vehicle, boot) + _LENGTHS[len(number)] + number).hexdigest()[:32]


@lru_cache(maxsize=16_384)
def _drive(vehicle: str, boot: str) -> bytes:
    return _prefixed("event") + _prefixed(vehicle) + _prefixed(boot)


def digest(*parts: str) -> str:
    """sha256 over length-prefixed parts: ("ab", "c") and ("a", "bc") differ."""
    return sha256_hex(b"".join(map(_prefixed, parts)))


def _prefixed(part: str) -> bytes:
    encoded = part.encode()
    return _LENGTH(len(encoded)) + encoded


_LENGTH = struct.Struct(">I").pack
_LENGTHS = tuple(map(_LENGTH, range(64)))


def job_fingerprint(clip_sha256s: Iterable[str], base_model: str, recipe: str, code: str) -> str:
    """What a learning job is made from; equal fingerprints are one job (64 hex digits)."""
    return digest("job", base_model, recipe, code, *sorted(clip_sha256s))


def bucket(salt: str, name: str) -> float:
    """A fixed pseudo-random place in [0, 1) for a name: who is a canary, who is sampled."""
    return buckets(salt, [name])[0]


def buckets(salt: str, names: Iterable[str]) -> list[float]:
    """`bucket` of many: digest("bucket", salt, name), its first 52 bits."""
    head = _prefixed("bucket") + _prefixed(salt)
    return [int(hashlib.sha256(head + _prefixed(n)).hexdigest()[:13], 16) / 16**13 for n in names]
