"""The ring buffer: the last seconds of frames, from which windows around triggers are cut."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from edge.agent.frame import Frame
from edge.agent.triggers import RANK
from streams.contracts.clock import SECOND_NS
from streams.contracts.drive import Trigger

UNBIASED = (Trigger.SAMPLE, Trigger.CAMPAIGN)
"""Windows that no other may push aside: each stands for others by its probability."""


@dataclass(frozen=True, slots=True)
class Window:
    """A slice of time around a trigger: start_ns <= time < end_ns."""

    kind: Trigger
    cause: str
    time_ns: int
    start_ns: int
    end_ns: int
    collection_probability: float = 1.0

    def holds(self, time_ns: int) -> bool:
        """Whether the instant lies inside."""
        return self.start_ns <= time_ns < self.end_ns


@dataclass(frozen=True, slots=True)
class Recording:
    """A window and its frames, in order of time."""

    window: Window
    frames: tuple[Frame, ...]


def arbitrate(pending: tuple[Window, ...], new: Window, limit: int) -> tuple[Window, ...]:
    """The pending windows after a new trigger: of overlapping ones the worthier stands, an equal one absorbs
    the later. A disengagement, a sample and a campaign's window always stand: the first must be told, the others
    must stay unbiased. At most `limit` besides those of campaigns, of which each has one at a time; a further one
    is not taken."""
    if new.kind is Trigger.CAMPAIGN:
        return (*pending, new)
    stands = new.kind in (Trigger.DISENGAGEMENT, Trigger.SAMPLE)
    rivals = [w for w in pending if w.kind not in UNBIASED and w.holds(new.time_ns)]
    if not stands and any(RANK[w.kind] >= RANK[new.kind] for w in rivals):
        return pending
    if new.kind is not Trigger.SAMPLE:
        pending = tuple(w for w in pending if w not in rivals or RANK[w.kind] >= RANK[new.kind])
    return pending if sum(w.kind is not Trigger.CAMPAIGN for w in pending) >= limit else (*pending, new)


class Recorder:
    """Keeps frames for as long as a window may still want them. Not durable: the spool is."""

    def __init__(
        self, pre_s: float = 2.0, post_s: float = 2.0, max_frames: int = 400, max_windows: int = 8
    ) -> None:
        """At most `max_frames` are held, the oldest goes first; raises ValueError for an empty window."""
        if pre_s < 0 or post_s <= 0 or max_frames < 1:
            raise ValueError(f"window of {pre_s} s + {post_s} s in {max_frames} frames holds nothing")
        self._pre_ns, self._post_ns = int(pre_s * SECOND_NS), int(post_s * SECOND_NS)
        self._keep_ns = self._pre_ns + self._post_ns
        self._frames: deque[Frame] = deque(maxlen=max_frames)
        self._pending: tuple[Window, ...] = ()
        self._max_windows = max_windows

    @property
    def last_ns(self) -> int:
        """Time of the newest frame; -1 before the first."""
        return self._frames[-1].time_ns if self._frames else -1

    def trigger(self, kind: Trigger, time_ns: int, cause: str = "", probability: float = 1.0) -> None:
        """Opens a window around an instant; see `arbitrate` for what becomes of overlapping ones."""
        window = Window(kind, cause, time_ns, time_ns - self._pre_ns, time_ns + self._post_ns, probability)
        self._pending = arbitrate(self._pending, window, self._max_windows)

    def open(self, window: Window) -> None:
        """A window of its own measure; what the ring no longer has of it is missing (see `keep`)."""
        self._pending = arbitrate(self._pending, window, self._max_windows)

    def keep(self, pre_s: float) -> None:
        """Hold at least this much before the newest frame from now on."""
        self._keep_ns = max(self._pre_ns + self._post_ns, int(pre_s * SECOND_NS))

    def drop(self, cause: str) -> None:
        """Close the windows of this cause without a recording."""
        self._pending = tuple(w for w in self._pending if w.cause != cause)

    def add(self, frame: Frame) -> list[Recording]:
        """Takes the next frame; returns the windows that it closes. Raises ValueError for a step back in time."""
        if frame.time_ns <= self.last_ns:
            raise ValueError(f"frame at {frame.time_ns} ns is not later than {self.last_ns} ns")
        done = self._close([w for w in self._pending if w.end_ns <= frame.time_ns])
        self._frames.append(frame)
        self._forget(frame.time_ns)
        return done

    def flush(self) -> list[Recording]:
        """The open windows as far as they got, and an empty ring: the drive is over."""
        done = self._close(list(self._pending))
        self._frames.clear()
        return done

    def _close(self, windows: list[Window]) -> list[Recording]:
        if not windows:
            return []
        self._pending = tuple(w for w in self._pending if w not in windows)
        cut = [Recording(w, tuple(f for f in self._frames if w.holds(f.time_ns))) for w in windows]
        return [recording for recording in cut if recording.frames]

    def _forget(self, now_ns: int) -> None:
        oldest = min((w.start_ns for w in self._pending), default=now_ns)
        keep_from = min(oldest, now_ns - self._keep_ns)
        while self._frames[0].time_ns < keep_from:
            self._frames.popleft()
