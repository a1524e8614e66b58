"""Losses are counted from hashes: what was asked for and cannot be read back as it was written is lost."""

from __future__ import annotations

from fleet.ledger import Clip, Ledger
from registry.errors import Corrupt
from streams.contracts.clips import ArchivedClip, ClipRequest, LostClip
from streams.contracts.drive import Trigger, TriggerEvent
from streams.contracts.ids import event_id, sha256_hex


class Disk:
    """A store in which some objects have gone bad."""

    def __init__(self, *contents: bytes) -> None:
        self.objects = {sha256_hex(c): c for c in contents}
        self.bad: set[str] = set()

    def get(self, sha256: str) -> bytes:
        if sha256 in self.bad or sha256 not in self.objects:
            raise Corrupt(f"{sha256} is not what was stored")
        return self.objects[sha256]


def offered(ledger: Ledger, sequence: int, content: bytes, turn: int = 1) -> str:
    name = event_id("v1", "b", sequence)
    event = TriggerEvent(name, "v1", "b", sequence, 10**18, Trigger.SAMPLE, "m", "right_kmh")
    ledger.offer(Clip(turn, "night", sha256_hex(content), event))
    return name


def requested(ledger: Ledger, name: str) -> None:
    ledger.observe(ClipRequest(name, name, "v1", 0, 1, "right_kmh", "cell"))


def archived(ledger: Ledger, name: str, content: bytes) -> None:
    ledger.observe(
        ArchivedClip(name, name, "v1", 0, "file://x", sha256_hex(content), len(content), "right_kmh", "cell")
    )


def test_only_what_is_read_back_with_the_vehicles_hash_is_stored() -> None:
    ledger, disk = Ledger(), Disk(b"good", b"other", b"rotten")
    names = [offered(ledger, i, c) for i, c in enumerate((b"good", b"swapped", b"rotten", b"never", b"not asked"))]
    for name in names[:4]:
        requested(ledger, name)
    archived(ledger, names[0], b"good")
    archived(ledger, names[1], b"other")
    archived(ledger, names[2], b"rotten")
    disk.bad.add(sha256_hex(b"rotten"))
    ledger.verify(disk)
    assert ledger.counts() == {"recorded": 5, "requested": 4, "stored": 1, "lost": 3, "bytes": 4}
    assert ledger.stored_by_condition(1) == {"night": 1}
    assert ledger.counts(turn=2)["recorded"] == 0


def test_a_request_is_open_until_the_clip_comes_or_its_loss_is_told() -> None:
    ledger = Ledger()
    first, second = offered(ledger, 1, b"a"), offered(ledger, 2, b"b")
    requested(ledger, first)
    requested(ledger, second)
    assert ledger.open_requests() == 2
    archived(ledger, first, b"a")
    ledger.observe(LostClip(second, "v1", 0, "disk full"))
    assert ledger.open_requests() == 0
    ledger.verify(Disk(b"a"))
    assert ledger.counts()["lost"] == 1


def test_messages_about_unknown_clips_change_nothing() -> None:
    ledger = Ledger()
    requested(ledger, event_id("v9", "b", 1))
    assert ledger.counts()["requested"] == 0
