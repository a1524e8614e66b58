"""Archive: whatever the order and however often chunks come, a clip is stored whole or told lost, and what cannot
be taken is refused with its bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.archive import Archive, ArchiveConfig, ArchiveState
from streams.contracts.clips import CHUNK_BYTES, ArchivedClip, ClipChunk, LostClip
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message
from streams.contracts.ids import sha256_hex
from streams.stage import Outcome
from tests.laws.stage_laws import check_deterministic, check_dump_and_load, check_replay, run, shuffled
from tests.samples import T0, chunks, in_batches, request, telemetry

HOUR = 3600 * SECOND_NS
CLIP = bytes(range(256)) * 2500
"""640,000 bytes: three chunks."""
cuts = st.lists(st.integers(0, 5), min_size=1, max_size=4)


def uri_of(sha256: str) -> str:
    return f"store://{sha256}"


def stage(**changes: int) -> Archive:
    return Archive(uri_of, ArchiveConfig(**changes))


def opened(archive: Archive) -> ArchiveState:
    return archive.step(archive.initial(), [request()], T0).state


def told(outcome: Outcome[ArchiveState]) -> list[Message]:
    return [e.message for e in outcome.emits]


def clips(count: int) -> list[Message]:
    """Requests and chunks of several clips, one of three chunks, one of them never complete."""
    made: list[Message] = []
    for i in range(count):
        data = CLIP if i == 0 else f"clip {i}".encode()
        made += [request(f"clip-{i}"), *chunks(data, f"clip-{i}")]
    return [*made, request("clip-x"), chunks(CLIP, "clip-x")[1], telemetry()]


@settings(max_examples=40)
@given(st.integers(0, 4), st.integers(), cuts, st.integers(0, 3))
def test_order_and_repetition_do_not_matter(count: int, salt: int, sizes: list[int], again: int) -> None:
    messages = shuffled(clips(count) * (1 + again), salt)
    archive = stage()
    state, emits, refused = run(archive, in_batches(messages, sizes), T0)
    stored = {e.message.clip_id: e.message for e in emits if isinstance(e.message, ArchivedClip)}
    assert set(stored) == {f"clip-{i}" for i in range(count)}
    assert len(emits) == len(stored) and not refused
    lost = archive.step(state, [], T0 + 2 * HOUR)
    assert [m.clip_id for m in told(lost) if isinstance(m, LostClip)] == ["clip-x"]
    assert lost.state.open == {} and lost.state.early == {}


@settings(max_examples=30)
@given(st.integers(0, 3), st.integers(), cuts)
def test_laws(count: int, salt: int, sizes: list[int]) -> None:
    batches = in_batches(shuffled(clips(count), salt), sizes)
    check_deterministic(stage(), stage(), batches, T0)
    check_dump_and_load(stage(), batches, T0)
    check_replay(stage(), batches, T0)


def test_a_whole_clip_leaves_as_content_and_message_together() -> None:
    archive = stage()
    outcome = archive.step(opened(archive), chunks(CLIP), T0)
    (content,), (clip,) = outcome.contents, told(outcome)
    assert content.data == CLIP and content.sha256 == sha256_hex(CLIP)
    assert isinstance(clip, ArchivedClip)
    assert (clip.uri, clip.bytes, clip.sha256) == (uri_of(content.sha256), len(CLIP), content.sha256)
    assert (clip.time_ns, clip.cell, clip.vehicle) == (request().event_ns, request().cell, "car-1")
    assert outcome.state.open == {}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": b"short"}, "wrong-size"),
        ({"count": 2}, "wrong-size"),
        ({"index": 7}, "wrong-size"),
        ({"clip_bytes": 5 * CHUNK_BYTES}, "wrong-size"),
        ({"clip_sha256": "0" * 64}, "inconsistent"),
        ({"vehicle": "car-2"}, "foreign"),
    ],
)
def test_a_chunk_that_does_not_fit_is_refused_and_the_clip_still_arrives(
    change: dict[str, object], reason: str
) -> None:
    archive = stage()
    first, second, third = chunks(CLIP)
    bad = ClipChunk(**{f: getattr(second, f) for f in second.__struct_fields__} | change)
    state = archive.step(opened(archive), [first], T0).state
    outcome = archive.step(state, [bad], T0)
    assert [(r.message, r.reason) for r in outcome.refused] == [(bad, reason)]
    assert "clip-1" in outcome.refused[0].detail
    whole = archive.step(outcome.state, [second, third], T0)
    assert isinstance(told(whole)[0], ArchivedClip)


def test_other_bytes_for_a_known_chunk_are_refused() -> None:
    archive = stage()
    first = chunks(CLIP)[0]
    other = chunks(bytes(len(CLIP)), clip_sha256=first.clip_sha256)[0]
    outcome = archive.step(archive.step(opened(archive), [first], T0).state, [other], T0)
    assert [r.reason for r in outcome.refused] == ["inconsistent"]


def test_bytes_of_another_hash_are_all_refused_and_better_ones_are_taken() -> None:
    archive = stage()
    wrong = chunks(bytes(len(CLIP)), clip_sha256=sha256_hex(CLIP))
    outcome = archive.step(opened(archive), wrong, T0)
    assert [(r.message, r.reason) for r in outcome.refused] == [(c, "wrong-hash") for c in wrong]
    assert outcome.contents == () and outcome.emits == ()
    assert isinstance(told(archive.step(outcome.state, chunks(CLIP), T0))[0], ArchivedClip)
    lost = told(archive.step(outcome.state, [], T0 + HOUR))[0]
    assert isinstance(lost, LostClip) and "sha256" in lost.reason and "0 of ? chunks" in lost.reason


def test_a_deadline_that_passes_is_told_with_what_came() -> None:
    archive = stage()
    state = archive.step(opened(archive), chunks(CLIP)[:2], T0).state
    assert archive.step(state, [], T0 + HOUR - 1).emits == ()
    (lost,) = told(archive.step(state, [], T0 + HOUR))
    assert lost == LostClip("clip-1", "car-1", T0 + HOUR, "the deadline passed: 2 of 3 chunks came")


def test_a_vehicles_word_of_loss_closes_the_request() -> None:
    archive = stage()
    word = LostClip("clip-1", "car-1", T0 + 5, "evicted: the disk was full")
    outcome = archive.step(opened(archive), [word], T0)
    assert told(outcome) == [word]
    late = archive.step(outcome.state, chunks(CLIP)[:1], T0)
    assert [r.reason for r in late.refused] == ["late"]
    assert archive.step(outcome.state, [word], T0).refused == ()


def test_what_comes_before_its_request_waits_for_it_and_no_longer_than_patience() -> None:
    archive = stage()
    early = archive.step(archive.initial(), chunks(CLIP), T0)
    assert early.refused == () and early.emits == ()
    taken = archive.step(early.state, [request()], T0 + SECOND_NS)
    assert isinstance(told(taken)[0], ArchivedClip) and taken.state.early == {}
    never = archive.step(early.state, [], T0 + 60 * SECOND_NS)
    assert [(r.message, r.reason) for r in never.refused] == [(c, "unrequested") for c in chunks(CLIP)]
    assert never.state.early == {}


def test_a_clip_that_was_archived_does_not_change() -> None:
    archive = stage()
    done = archive.step(opened(archive), chunks(CLIP), T0).state
    other = chunks(b"another content")
    outcome = archive.step(done, [*other, request(), *chunks(CLIP)], T0)
    assert [(r.message, r.reason) for r in outcome.refused] == [(other[0], "replayed")]
    assert outcome.emits == () and outcome.contents == ()


@pytest.mark.parametrize(
    ("bounds", "messages", "reason"),
    [
        ({"partial_bytes": CHUNK_BYTES}, [request(), *chunks(CLIP)[:2]], "full"),
        ({"early_bytes": CHUNK_BYTES}, chunks(CLIP)[:2], "unrequested"),
        ({"open_requests": 1}, [request(), request("clip-2")], "full"),
    ],
)
def test_memory_is_bounded(bounds: dict[str, int], messages: list[Message], reason: str) -> None:
    archive = stage(**bounds)
    outcome = archive.step(archive.initial(), messages, T0)
    assert [(r.message, r.reason) for r in outcome.refused] == [(messages[-1], reason)]


def test_room_is_given_back() -> None:
    archive = stage(partial_bytes=3 * CHUNK_BYTES)
    state = archive.initial()
    for i in range(5):
        outcome = archive.step(state, [request(f"c{i}"), *chunks(CLIP, f"c{i}")], T0)
        assert len(outcome.contents) == 1 and not outcome.refused
        state = outcome.state
