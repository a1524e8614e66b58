"""Answers to clip requests."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edge.agent.spool import Spool
from edge.agent.uploader import Link, Uploader, UploadPolicy, order
from streams.contracts.clips import CHUNK_BYTES, ClipChunk, LostClip
from tests.unit.test_agent_spool import request

LARGE = bytes(range(256)) * (5 * CHUNK_BYTES // 512)
"""Two and a half chunks."""


def uploader(folder: Path, *clips: str, data: bytes = b"x" * 100) -> tuple[Uploader, Spool]:
    spool = Spool(folder, 10**9, "none")
    for name in clips:
        spool.put(name, data, 1.0, 1)
    return Uploader(spool, "v1", UploadPolicy(metered_priority=5, retry_s=10)), spool


def names(chunks: list[ClipChunk]) -> list[tuple[str, int]]:
    return [(c.clip_id, c.index) for c in chunks]


def test_requested_clips_only_and_the_most_urgent_first(tmp_path: Path) -> None:
    up, _ = uploader(tmp_path, "a", "b", "c", "d")
    up.answer(request("a", priority=1), 2)
    up.answer(request("b", priority=9), 2)
    up.answer(request("c", priority=1, before_ns=100), 2)
    assert names(up.pump(3, 10**6)) == [("b", 0), ("c", 0), ("a", 0)]


def test_order_is_total() -> None:
    asked = [request("b", requested_ns=2), request("a", requested_ns=2), request("z", requested_ns=1)]
    assert [r.clip_id for r in order(asked)] == ["z", "a", "b"]


def test_chunks_make_up_the_clip_and_the_last_one_ends_it(tmp_path: Path) -> None:
    up, spool = uploader(tmp_path, "a", data=LARGE)
    up.answer(request("a"), 2)
    chunks = up.pump(3, 10**7)
    assert b"".join(c.data for c in chunks) == LARGE
    assert {(c.count, c.clip_bytes, c.clip_sha256) for c in chunks} == {
        (3, len(LARGE), hashlib.sha256(LARGE).hexdigest())
    }
    for chunk in chunks:
        assert "a" in spool.clips
        up.arrived(chunk, 4)
    assert spool.clips == {} and spool.requests == {} and not spool.outbox
    assert up.pump(5, 10**7) == []


def test_what_is_on_its_way_is_not_sent_twice_until_it_is_overdue(tmp_path: Path) -> None:
    up, _ = uploader(tmp_path, "a")
    up.answer(request("a"), 0)
    assert names(up.pump(0, 10**6)) == [("a", 0)]
    assert up.pump(9_999_999_999, 10**6) == []
    assert names(up.pump(10_000_000_000, 10**6)) == [("a", 0)]


def test_an_upload_resumes_where_it_stopped_after_a_restart(tmp_path: Path) -> None:
    up, spool = uploader(tmp_path, "a", data=LARGE)
    up.answer(request("a"), 2)
    up.arrived(up.pump(3, 10**7)[0], 4)
    spool.close()
    again = Uploader(Spool(tmp_path, 10**9, "none"), "v1")
    assert names(again.pump(5, 10**7)) == [("a", 1), ("a", 2)]


def test_a_repeated_arrival_changes_nothing(tmp_path: Path) -> None:
    up, spool = uploader(tmp_path, "a", data=LARGE)
    up.answer(request("a"), 2)
    first = up.pump(3, 10**7)[0]
    up.arrived(first, 4)
    up.arrived(first, 5)
    assert spool.sent == {"a": {0}}


def test_a_budget_is_kept_and_a_small_one_is_saved_up(tmp_path: Path) -> None:
    up, _ = uploader(tmp_path, "a", data=LARGE)
    up.answer(request("a"), 2)
    assert up.pump(3, CHUNK_BYTES // 2) == []
    assert names(up.pump(4, CHUNK_BYTES // 2)) == [("a", 0)]
    assert up.pump(5, 0) == []
    sent = 0
    for i in range(40):
        sent += sum(len(c.data) for c in up.pump(6 + i, CHUNK_BYTES // 10))
    assert 0 < sent <= 4 * CHUNK_BYTES


def test_over_a_metered_link_only_the_important_goes(tmp_path: Path) -> None:
    up, _ = uploader(tmp_path, "a", "b")
    up.answer(request("a", priority=4), 2)
    up.answer(request("b", priority=5), 2)
    assert up.pump(3, 10**6, Link.NONE) == []
    assert names(up.pump(3, 10**6, Link.METERED)) == [("b", 0)]
    assert names(up.pump(3, 10**6, Link.FREE)) == [("a", 0)]


def test_a_clip_that_is_not_here_is_answered_with_the_reason(tmp_path: Path) -> None:
    up, spool = uploader(tmp_path, "a")
    assert up.answer(request("never"), 7) == LostClip("never", "v1", 7, "this vehicle has no such clip")
    spool.remove("a", "evicted for clips worth more than 1", 5)
    answer = up.answer(request("a"), 7)
    assert answer is not None and answer.reason.startswith("evicted")


def test_a_request_for_a_delivered_clip_is_not_a_loss(tmp_path: Path) -> None:
    up, spool = uploader(tmp_path, "a")
    up.answer(request("a"), 2)
    up.arrived(up.pump(3, 10**6)[0], 4)
    assert up.answer(request("a"), 5) is None
    assert not spool.outbox


def test_a_missed_deadline_is_told_and_frees_the_spool(tmp_path: Path) -> None:
    up, spool = uploader(tmp_path, "a")
    up.answer(request("a", before_ns=100), 2)
    assert up.pump(100, 10**6) == []
    assert [m.reason for m in spool.outbox.values() if isinstance(m, LostClip)] == [
        "the deadline passed before it was uploaded"
    ]
    assert spool.clips == {}


def test_a_request_that_comes_after_its_deadline(tmp_path: Path) -> None:
    up, spool = uploader(tmp_path, "a")
    answer = up.answer(request("a", before_ns=100), 100)
    assert answer is not None and "deadline" in answer.reason
    assert "a" in spool.clips


def test_a_damaged_clip_is_told_lost_and_the_others_still_go(tmp_path: Path) -> None:
    up, spool = uploader(tmp_path, "a", "b")
    for name in ("a", "b"):
        up.answer(request(name), 2)
    (tmp_path / "clips/a.mcap").write_bytes(b"y" * 100)
    assert names(up.pump(3, 10**6)) == [("b", 0)]
    assert [m.clip_id for m in spool.outbox.values() if isinstance(m, LostClip)] == ["a"]
