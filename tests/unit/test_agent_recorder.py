"""The ring buffer and its windows."""

from __future__ import annotations

import pytest

from edge.agent.recorder import Recorder, Recording, Window, arbitrate
from streams.contracts.drive import Trigger
from tests.unit.vehicle_frames import PERIOD_NS, START_NS, frame


def at(number: float) -> int:
    return START_NS + round(number * PERIOD_NS)


def run(recorder: Recorder, count: int, triggers: dict[int, Trigger], start: int = 0) -> list[Recording]:
    out = []
    for i in range(start, start + count):
        out += recorder.add(frame(i))
        if i in triggers:
            recorder.trigger(triggers[i], at(i))
    return out


def numbers(recording: Recording) -> list[int]:
    return [(f.time_ns - START_NS) // PERIOD_NS for f in recording.frames]


def test_a_window_holds_two_seconds_before_and_after() -> None:
    done = run(Recorder(), 60, {30: Trigger.HARD_BRAKE})
    assert [numbers(r) for r in done] == [list(range(20, 40))]
    assert done[0].window.time_ns == at(30)


def test_it_closes_with_the_first_frame_after_its_end() -> None:
    recorder = Recorder()
    assert run(recorder, 40, {30: Trigger.HARD_BRAKE}) == []
    assert len(recorder.add(frame(40))) == 1


def test_at_the_start_of_a_drive_it_holds_what_there_is() -> None:
    assert numbers(run(Recorder(), 30, {3: Trigger.HARD_BRAKE})[0]) == list(range(13))


def test_flush_gives_open_windows_and_empties_the_ring() -> None:
    recorder = Recorder()
    run(recorder, 32, {30: Trigger.HARD_BRAKE})
    assert [numbers(r) for r in recorder.flush()] == [list(range(20, 32))]
    assert recorder.flush() == [] and recorder.last_ns == -1


def test_the_ring_is_bounded_in_time_and_in_frames() -> None:
    recorder = Recorder(max_frames=15)
    done = run(recorder, 60, {30: Trigger.HARD_BRAKE})
    assert numbers(done[0]) == list(range(25, 40))
    assert len(Recorder()._frames) == 0
    long = Recorder()
    run(long, 1000, {})
    assert len(long._frames) <= 21


def test_a_window_before_now_still_finds_its_frames() -> None:
    recorder = Recorder()
    run(recorder, 31, {})
    recorder.trigger(Trigger.SHADOW_DISAGREEMENT, at(24))
    assert numbers(run(recorder, 20, {}, start=31)[0]) == list(range(14, 34))


def test_overlapping_the_worthier_stands_whichever_came_first() -> None:
    late = run(Recorder(), 60, {30: Trigger.UNCERTAINTY, 34: Trigger.DISENGAGEMENT})
    early = run(Recorder(), 60, {30: Trigger.DISENGAGEMENT, 34: Trigger.HARD_BRAKE})
    assert [(r.window.kind, r.window.time_ns) for r in late] == [(Trigger.DISENGAGEMENT, at(34))]
    assert [(r.window.kind, r.window.time_ns) for r in early] == [(Trigger.DISENGAGEMENT, at(30))]


def test_every_disengagement_is_told() -> None:
    done = run(Recorder(), 60, {30: Trigger.DISENGAGEMENT, 34: Trigger.DISENGAGEMENT})
    assert [r.window.time_ns for r in done] == [at(30), at(34)]


def test_a_sample_neither_absorbs_nor_is_absorbed() -> None:
    done = run(Recorder(), 60, {30: Trigger.SAMPLE, 32: Trigger.DISENGAGEMENT, 33: Trigger.SAMPLE})
    assert [r.window.kind for r in done] == [Trigger.SAMPLE, Trigger.DISENGAGEMENT, Trigger.SAMPLE]


def test_apart_both_stand() -> None:
    done = run(Recorder(), 80, {30: Trigger.UNCERTAINTY, 45: Trigger.HARD_BRAKE})
    assert [r.window.kind for r in done] == [Trigger.UNCERTAINTY, Trigger.HARD_BRAKE]


def test_open_windows_are_bounded() -> None:
    windows: tuple[Window, ...] = ()
    for i in range(20):
        windows = arbitrate(windows, Window(Trigger.DISENGAGEMENT, "", i, i - 10, i + 10), limit=8)
    assert len(windows) == 8


def test_time_only_goes_forward() -> None:
    recorder = Recorder()
    recorder.add(frame(1))
    with pytest.raises(ValueError, match="not later"):
        recorder.add(frame(1))


@pytest.mark.parametrize(("pre", "post", "most"), [(-1, 2, 10), (2, 0, 10), (2, 2, 0)])
def test_an_empty_window_is_refused(pre: float, post: float, most: int) -> None:
    with pytest.raises(ValueError, match="holds nothing"):
        Recorder(pre, post, most)
