"""The spool: what it accepted stays until it is delivered, evicted by worth, or found damaged; and it says so."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edge.agent import spool as spool_module
from edge.agent.files import write_atomic
from edge.agent.journal import Journal
from edge.agent.spool import DELIVERED, MAX_OUTBOX, ClipDamaged, Spool, SpoolFull, Stored, victims
from edge.agent.uploader import Uploader
from streams.contracts.clips import ClipRequest, LostClip
from streams.contracts.codec import message_id

ROOT = Path(__file__).resolve().parents[2]


def opened(folder: Path, limit: int = 10_000) -> Spool:
    return Spool(folder, limit, "none")


def request(clip_id: str, **changes: Any) -> ClipRequest:
    fields: dict[str, Any] = {"vehicle": "v1", "requested_ns": 1, "before_ns": 2**62, "region": "gb", "cell": "c"}
    return ClipRequest(clip_id=clip_id, event_id=clip_id, **(fields | changes))


def lost(clip_id: str, reason: str = "r") -> LostClip:
    return LostClip(clip_id, "v1", 1, reason)


def reopened(spool: Spool, folder: Path, limit: int = 10_000) -> Spool:
    """As after a kill: nothing is closed in an orderly way."""
    del spool
    return opened(folder, limit)


def test_a_clip_survives_a_restart(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    stored = spool.put("c1", b"x" * 100, 1.0, 5)
    spool = reopened(spool, tmp_path)
    assert spool.clips == {"c1": stored} and spool.bytes == 100
    assert spool.read("c1", 6) == b"x" * 100


def test_requests_progress_messages_and_tombstones_survive_a_restart(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for name in ("c1", "c2"):
        spool.put(name, b"x" * 100, 1.0, 5)
    spool.pin(request("c1"))
    spool.chunk_arrived("c1", 3)
    spool.enqueue([lost("m1"), lost("m2")])
    spool.delivered([message_id(lost("m1"))])
    spool.remove("c2", DELIVERED, 9)
    spool = reopened(spool, tmp_path)
    assert list(spool.requests) == ["c1"] and spool.sent == {"c1": {3}}
    assert list(spool.outbox.values()) == [lost("m2")]
    assert spool.why_gone("c2") == DELIVERED and spool.why_gone("c1") is None


def test_the_same_clip_or_message_twice_is_one(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    assert spool.put("c1", b"x", 1.0, 5) == spool.put("c1", b"x", 1.0, 5)
    spool.enqueue([lost("m1")])
    spool.enqueue([lost("m1")])
    assert spool.bytes == 1 and len(spool.outbox) == 1


def test_least_worth_goes_first_then_the_oldest(tmp_path: Path) -> None:
    spool = opened(tmp_path, 300)
    spool.put("old", b"x" * 100, 1.0, 1)
    spool.put("young", b"x" * 100, 1.0, 2)
    spool.put("worthy", b"x" * 100, 2.0, 0)
    spool.put("new", b"x" * 100, 3.0, 3)
    assert set(spool.clips) == {"young", "worthy", "new"}
    assert spool.why_gone("old") == "evicted for clips worth more than 1"
    assert spool.evicted == 1 and spool.bytes == 300
    assert not (tmp_path / "clips/old.mcap").exists()


def test_a_requested_clip_is_never_evicted(tmp_path: Path) -> None:
    spool = opened(tmp_path, 200)
    spool.put("asked", b"x" * 100, 0.0, 1)
    spool.pin(request("asked"))
    spool.put("other", b"x" * 100, 1.0, 2)
    spool.put("new", b"x" * 100, 2.0, 3)
    assert set(spool.clips) == {"asked", "new"}


def test_nothing_is_evicted_for_something_of_less_worth_or_too_large(tmp_path: Path) -> None:
    spool = opened(tmp_path, 200)
    spool.put("a", b"x" * 150, 5.0, 1)
    with pytest.raises(SpoolFull, match="150 of 200 bytes"):
        spool.put("b", b"x" * 100, 5.0, 2)
    with pytest.raises(SpoolFull):
        spool.put("c", b"x" * 201, 9.0, 2)
    assert set(reopened(spool, tmp_path, 200).clips) == {"a"}


def test_victims_gives_up_no_more_than_needed() -> None:
    clips = [Stored(str(i), 100, "", float(i), i) for i in range(5)]
    assert victims(clips, [], 150, below=9) == clips[:2]
    assert victims(clips, ["0"], 150, below=9) == clips[1:3]
    assert victims(clips, [], 0, below=9) == []
    assert victims(clips, [], 300, below=2) is None


def test_a_requested_clip_that_is_removed_is_told_lost_at_once(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.put("c1", b"x", 1.0, 5)
    spool.pin(request("c1"))
    spool.remove("c1", "too late", 7)
    assert list(reopened(spool, tmp_path).outbox.values()) == [LostClip("c1", "v1", 7, "too late")]


def test_damage_on_disk_is_found_set_aside_and_told(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.put("c1", b"x" * 50, 1.0, 5)
    spool.pin(request("c1"))
    (tmp_path / "clips/c1.mcap").write_bytes(b"y" * 50)
    with pytest.raises(ClipDamaged, match="another hash"):
        spool.read("c1", 8)
    assert (tmp_path / "quarantine/c1.mcap").read_bytes() == b"y" * 50
    assert "c1" not in spool.clips
    assert [type(m) for m in spool.outbox.values()] == [LostClip]


@pytest.mark.parametrize("content", [b"x" * 10, None])
def test_a_short_or_missing_file_is_found_at_start(tmp_path: Path, content: bytes | None) -> None:
    spool = opened(tmp_path)
    spool.put("c1", b"x" * 50, 1.0, 5)
    path = tmp_path / "clips/c1.mcap"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    spool = reopened(spool, tmp_path)
    assert spool.clips == {} and spool.bytes == 0
    assert "damaged on the vehicle's disk" in str(spool.why_gone("c1"))


def test_what_was_never_accepted_is_cleared_away(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    (tmp_path / "clips/stray.mcap").write_bytes(b"x")
    (tmp_path / "clips/.tmp-c9.mcap").write_bytes(b"x")
    spool = reopened(spool, tmp_path)
    assert list((tmp_path / "clips").iterdir()) == []


def test_a_torn_journal_line_is_cut_off_and_the_next_one_is_whole(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.enqueue([lost("m1")])
    with (tmp_path / "journal").open("ab") as file:
        file.write(b'0badc0de {"type":"Queued","mess')
    spool = reopened(spool, tmp_path)
    assert len(spool.outbox) == 1
    spool.enqueue([lost("m2")])
    assert len(reopened(spool, tmp_path).outbox) == 2


def test_a_damaged_journal_line_is_set_aside_and_the_rest_stands(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for name in ("m1", "m2", "m3"):
        spool.enqueue([lost(name)])
    lines = (tmp_path / "journal").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal").write_bytes(lines[0] + lines[1].replace(b"m2", b"zz") + lines[2])
    spool = reopened(spool, tmp_path)
    assert [m.clip_id for m in spool.outbox.values() if isinstance(m, LostClip)] == ["m1", "m3"]
    assert b"zz" in (tmp_path / "quarantine/journal-lines").read_bytes()


def flipped(path: Path, at: int, bit: int = 0) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :])


def with_three_clips(folder: Path) -> Spool:
    """c0 is asked for and partly sent, c1 is only here, c2 was delivered."""
    spool = opened(folder)
    for i in range(3):
        spool.put(f"c{i}", bytes([65 + i]) * 50, 1.5 + i, 5 + i)
    spool.pin(request("c0", requested_ns=9))
    spool.chunk_arrived("c0", 0)
    spool.remove("c2", DELIVERED, 10)
    return spool


def test_a_clip_whose_record_is_damaged_is_known_by_its_hash(tmp_path: Path) -> None:
    spool = with_three_clips(tmp_path)
    flipped(tmp_path / "journal", 2)
    again = reopened(spool, tmp_path)
    assert again.clips == spool.clips and again.requests == spool.requests and again.sent == spool.sent
    assert again.read("c0", 11) == b"A" * 50 and again.bytes == 100
    assert reopened(again, tmp_path).clips == spool.clips


def test_a_clip_whose_record_is_lost_is_set_aside_and_told(tmp_path: Path) -> None:
    spool = with_three_clips(tmp_path)
    flipped(tmp_path / "journal", (tmp_path / "journal").read_bytes().index(b'"sha256":"') + 12)
    again = reopened(spool, tmp_path)
    assert set(again.clips) == {"c1"} and again.requests == {} and again.sent == {}
    assert (tmp_path / "quarantine/c0.mcap").read_bytes() == b"A" * 50
    (told,) = again.outbox.values()
    assert isinstance(told, LostClip) and (told.clip_id, told.time_ns) == ("c0", 9) and "damaged" in told.reason
    assert Uploader(again, "v1").pump(11, 10**6) == []
    assert again.why_gone("c2") == DELIVERED and not (tmp_path / "quarantine/c2.mcap").exists()


def test_a_request_without_any_clip_is_told_lost(tmp_path: Path) -> None:
    spool = with_three_clips(tmp_path)
    lines = (tmp_path / "journal").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal").write_bytes(b"".join(lines[1:]))
    (tmp_path / "clips/c0.mcap").unlink()
    again = reopened(spool, tmp_path)
    assert again.requests == {} and [type(m) for m in again.outbox.values()] == [LostClip]
    assert Uploader(again, "v1").pump(11, 10**6) == []


def test_no_flipped_bit_of_the_journal_loses_a_clip_in_silence(tmp_path: Path) -> None:
    with_three_clips(tmp_path / "good").close()
    data = (tmp_path / "good/journal").read_bytes()
    for at in sorted({*range(0, len(data), 7), *(i for i, byte in enumerate(data) if byte == ord("\n"))}):
        folder = tmp_path / str(at)
        shutil.copytree(tmp_path / "good", folder)
        flipped(folder / "journal", at, at % 8)
        spool = opened(folder)
        for name, content in (("c0", b"A"), ("c1", b"B")):
            kept = spool.clips.get(name)
            path = folder / ("clips" if kept else "quarantine") / f"{name}.mcap"
            assert path.read_bytes() == content * 50, (at, name)
            assert kept is None or spool.read(name, 20) == content * 50
        assert set(spool.requests) <= set(spool.clips)
        assert "c0" in spool.clips or [type(m) for m in spool.outbox.values()] == [LostClip], at
        Uploader(spool, "v1").pump(20, 10**6)
        spool.close()
        shutil.rmtree(folder)


def test_the_journal_is_compacted_and_means_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "COMPACT_BYTES", 2000)
    spool = opened(tmp_path)
    spool.put("c1", b"x", 1.0, 5)
    spool.pin(request("c1"))
    spool.chunk_arrived("c1", 0)
    spool.put("c2", b"x", 1.0, 5)
    spool.remove("c2", "gone", 6)
    for i in range(200):
        spool.enqueue([lost(f"m{i}")])
        spool.delivered([message_id(lost(f"m{i}"))])
    spool.enqueue([lost("last")])
    assert (tmp_path / "journal").stat().st_size < 4000
    again = reopened(spool, tmp_path)
    assert (set(again.clips), set(again.requests), again.sent) == ({"c1"}, {"c1"}, {"c1": {0}})
    assert list(again.outbox.values()) == [lost("last")] and again.why_gone("c2") == "gone"


def test_tombstones_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "MAX_TOMBSTONES", 3)
    spool = opened(tmp_path)
    for i in range(5):
        spool.remove(f"c{i}", "gone", i)
    assert [spool.why_gone(f"c{i}") for i in range(5)] == [None, None, "gone", "gone", "gone"]


def test_the_outbox_is_bounded(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.outbox = {str(i): lost("x") for i in range(MAX_OUTBOX)}
    with pytest.raises(SpoolFull, match="wait for delivery"):
        spool.enqueue([lost("m")])


class FullDisk:
    """A disk with so many bytes left; what does not fit is cut off and raises ENOSPC, as a real one does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, left: int) -> None:
        self.left = left
        self._write, self._write_atomic = os.write, write_atomic
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(spool_module, "write_atomic", self.write_atomic)

    def write(self, descriptor: int, data: bytes) -> int:
        if self.left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = self._write(descriptor, data[: self.left])
        self.left -= done
        return done

    def write_atomic(self, path: Path, data: bytes, durable: bool = True) -> None:
        if len(data) > self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.left -= len(data)
        self._write_atomic(path, data, durable)


def test_a_full_disk_refuses_the_new_and_keeps_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(tmp_path)
    spool.put("c1", b"x" * 100, 5.0, 1)
    spool.enqueue([lost("m1")])
    disk = FullDisk(monkeypatch, left=120)
    with pytest.raises(SpoolFull):
        spool.put("c2", b"x" * 100, 1.0, 2)
    with pytest.raises(SpoolFull, match="journal"):
        spool.enqueue([lost(f"m{i}") for i in range(2, 9)])
    disk.left = 10**6
    spool.enqueue([lost("m9")])
    again = reopened(spool, tmp_path)
    assert set(again.clips) == {"c1"} and again.read("c1", 9) == b"x" * 100
    assert [m.clip_id for m in again.outbox.values() if isinstance(m, LostClip)] == ["m1", "m9"]
    assert [p.name for p in (tmp_path / "clips").iterdir()] == ["c1.mcap"]


def test_a_full_disk_makes_room_for_the_worthier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(tmp_path)
    spool.put("c1", b"x" * 100, 1.0, 1)
    disk = FullDisk(monkeypatch, left=50)
    unlink = Path.unlink

    def freeing(path: Path, missing_ok: bool = False) -> None:
        disk.left += 1000 if path.name == "c1.mcap" and path.exists() else 0
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", freeing)
    spool.put("c2", b"x" * 100, 5.0, 2)
    assert set(spool.clips) == {"c2"}


def test_delivery_is_remembered_in_memory_even_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = opened(tmp_path)
    spool.enqueue([lost("m1")])
    FullDisk(monkeypatch, left=0)
    spool.delivered([message_id(lost("m1"))])
    assert spool.outbox == {}


def test_another_disk_error_is_not_called_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(tmp_path)

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", broken)
    with pytest.raises(OSError, match="Input/output") as caught:
        spool.enqueue([lost("m1")])
    assert not isinstance(caught.value, SpoolFull)


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system needs root to be mounted")
def test_on_a_real_file_system_that_is_full(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        spool = Spool(tmp_path, 10**9, "fsync")
        taken = []
        with pytest.raises(SpoolFull):
            for i in range(100):
                spool.put(f"c{i}", bytes([i]) * 20_000, 1.0, i)
                taken.append(i)
        spool.close()
        assert len(taken) >= 5
        again = Spool(tmp_path, 10**9, "fsync")
        assert [again.read(f"c{i}", 0) for i in taken] == [bytes([i]) * 20_000 for i in taken]
        again.put("worthy", b"w" * 20_000, 2.0, 0)
        assert again.why_gone("c0") is not None
        again.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_the_journal_appends_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "j", durable=False)
    journal.append([b"one"])
    FullDisk(monkeypatch, left=15)
    with pytest.raises(OSError, match="No space"):
        journal.append([b"two", b"three"])
    monkeypatch.undo()
    journal.append([b"four"])
    journal.close()
    assert Journal(tmp_path / "j").records == [b"one", b"four"]


VICTIM = """
import hashlib, os, sys
from pathlib import Path
from edge.agent.spool import Spool
from streams.contracts.clips import LostClip
from streams.contracts.codec import message_id
folder, start = Path(sys.argv[1]), int(sys.argv[2])
spool = Spool(folder, 400_000, "fsync")
say = lambda *words: os.write(1, (" ".join(words) + "\\n").encode())
say("ready")
for i in range(start, start + 10_000):
    data = hashlib.sha256(str(i).encode()).digest() * (500 + i % 700)
    spool.put(f"c{i}", data, float(i), i)
    say("put", str(i))
    message = LostClip(f"m{i}", "v1", i, "x" * 300)
    spool.enqueue([message])
    say("queued", str(i))
    if i % 3 == 0:
        spool.delivered([message_id(message)])
        say("delivered", str(i))
    if i % 5 == 4:
        spool.remove(f"c{i - 2}", "delivered", i)
        say("removed", str(i - 2))
"""


def test_nothing_accepted_is_lost_by_kill_9(tmp_path: Path) -> None:
    rng = random.Random(7)
    put, queued, done, removed = set[int](), set[int](), set[int](), set[int]()
    groups = {"put": put, "queued": queued, "delivered": done, "removed": removed}
    for round_number in range(5):
        for verb, number in _killed(tmp_path, round_number * 10_000, rng.uniform(0.02, 0.25)):
            groups[verb].add(number)
        spool = Spool(tmp_path, 400_000, "none")
        for name, stored in spool.clips.items():
            assert len(spool.read(name, 0)) == stored.bytes
        for number in put:
            assert f"c{number}" in spool.clips or spool.why_gone(f"c{number}") is not None
        waiting = {m.clip_id for m in spool.outbox.values() if isinstance(m, LostClip)}
        assert {f"m{n}" for n in queued - done} - waiting <= {f"m{n}" for n in queued if n % 3 == 0}
        assert not waiting & {f"m{n}" for n in done}
        assert not {f"c{n}" for n in removed} & set(spool.clips)
        assert spool.bytes == sum(p.stat().st_size for p in (tmp_path / "clips").iterdir())
        spool.close()
    assert len(put) > 20 and removed and done


def _killed(folder: Path, start: int, after_s: float) -> list[tuple[str, int]]:
    """What a process had been promised by the time it was killed."""
    command = [sys.executable, "-c", VICTIM, str(folder), str(start)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().split("\n")[:-1]
    return [(line.split()[0], int(line.split()[1])) for line in lines]
