"""The agent over a recorded drive: what this vehicle would have said, and its clips as MCAP files."""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edge.agent.files import write_atomic
from edge.agent.frame import Frame
from edge.agent.main import Agent, AgentConfig
from edge.agent.readings import speed_mps, yaw_rate_radps
from edge.agent.spool import Spool
from edge.agent.triggers import Sampling
from edge.sources.comma2k19 import Comma2k19Drive
from edge.sources.source import BadSource, Drive, rig_json
from edge.sources.video import VideoDrive
from model.policy import Memory, Observation, Policy, frames_seen, needs_signals
from model.rig import Rig
from streams.contracts.clips import MAX_CLIP_BYTES
from streams.contracts.codec import Message
from streams.contracts.drive import Trigger, TriggerEvent
from streams.contracts.ids import digest

NEUTRAL_SPEED_MPS = 10.0
"""What a policy is told where speed is not known; its trajectory is then thrown away."""
SAMPLE_S = 10.0
"""One clip per so many seconds is kept whatever happens, on drives of at least twice that length."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class WrittenClip:
    """A clip that the vehicle would offer."""

    clip_id: str
    kind: str
    cause: str
    time_ns: int
    bytes: int
    path: str
    """"" where no folder was given."""


@dataclass(frozen=True, slots=True)
class DriveSummary:
    """What a drive came to."""

    name: str
    frames: int
    seconds: float
    """From the first frame to the last."""
    km: float | None
    """None: the recording does not tell."""
    policy: bool
    """Whether a policy ran on it."""
    hard_brakes: int
    events: dict[str, int]
    """By kind."""
    clips: list[WrittenClip]
    frames_per_second: float
    """Frames over the time it took."""
    warnings: list[str]
    problem: str = ""
    """Why the recording could not be read to its end; what came before is counted. "" if it could."""
    messages: list[Message] = field(default_factory=list)
    """All that the vehicle would stream."""

    @property
    def clip_bytes(self) -> int:
        """Of all clips."""
        return sum(clip.bytes for clip in self.clips)


def open_drive(path: Path) -> Drive:
    """A comma2k19 segment folder or a video file. Raises BadSource naming the path and what is expected."""
    if path.is_dir():
        if not (path / "global_pose").is_dir() and not (path / "processed_log").is_dir():
            raise BadSource(
                f"{path}: neither global_pose/ nor processed_log/ in it; a comma2k19 segment is the folder of one "
                "minute, such as ROUTE/40"
            )
        return Comma2k19Drive(path)
    if path.exists():
        return VideoDrive(path)
    raise BadSource(f"{path}: there is no such file or folder")


def run_drive(
    drive: Drive,
    policy_for: Callable[[Rig], Policy] | None = None,
    out: Path | None = None,
    model_version: str = "",
    clock: Callable[[], float] = time.perf_counter,
) -> DriveSummary:
    """Runs the agent over a drive, with a policy if one is given and there are images for it; clips go to `out` as
    ID.mcap. Raises BadSource where not even one frame can be read, and OSError where `out` cannot be written."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    policy = policy_for(drive.rig) if policy_for and drive.rig else None
    started, times_ns, problem = clock(), list[int](), ""
    with tempfile.TemporaryDirectory(prefix="fleetwheel-drive-") as scratch:
        log = _Log(drive, Path(scratch), out)
        try:
            for frame in _planned(drive.frames(), policy, model_version, clock):
                times_ns.append(frame.time_ns)
                log.take(log.agent.observe(frame), frame.time_ns)
        except BadSource as error:
            problem = str(error)
        if not times_ns:
            raise BadSource(problem or f"{drive.name}: not one frame in it")
        log.take(log.agent.end_drive(times_ns[-1]), times_ns[-1])
    return DriveSummary(
        name=drive.name,
        frames=len(times_ns),
        seconds=(times_ns[-1] - times_ns[0]) / 1e9,
        km=drive.km,
        policy=policy is not None,
        hard_brakes=log.kinds[Trigger.HARD_BRAKE],
        events=dict(sorted(log.kinds.items())),
        clips=log.clips,
        frames_per_second=len(times_ns) / max(clock() - started, 1e-9),
        warnings=[*drive.warnings, *_policy_warnings(drive, policy)],
        problem=problem or log.problem,
        messages=log.messages,
    )


class _Log:
    """An agent whose every clip is asked for, and written at once."""

    def __init__(self, drive: Drive, scratch: Path, out: Path | None) -> None:
        self._spool = Spool(scratch, limit_bytes=4 * MAX_CLIP_BYTES, durability="none")
        self.agent = Agent(_config(drive), self._spool)
        self._out = out
        self.messages: list[Message] = []
        self.clips: list[WrittenClip] = []
        self.kinds: Counter[str] = Counter()
        self.problem = ""

    def take(self, messages: list[Message], now_ns: int) -> None:
        """Messages that the vehicle would send."""
        self.messages += messages
        for event in messages:
            if isinstance(event, TriggerEvent):
                self.kinds[str(event.kind)] += 1
                self._write(event, now_ns)
        self.agent.delivered(messages, now_ns)

    def _write(self, event: TriggerEvent, now_ns: int) -> None:
        if event.clip is None:
            self.problem = "the disk for temporary files is full: not every event has its clip"
            return
        path = self._out / f"{event.event_id}.mcap" if self._out else None
        if path:
            write_atomic(path, self._spool.read(event.event_id, now_ns))
        self._spool.remove(event.event_id, "written", now_ns)
        self.clips.append(
            WrittenClip(
                event.event_id, str(event.kind), event.cause, event.time_ns, event.clip.bytes, str(path or "")
            )
        )


def _config(drive: Drive) -> AgentConfig:
    vehicle = _UNSAFE.sub("-", f"log-{drive.name}")[:64]
    period_s = SAMPLE_S if drive.duration_s >= 2 * SAMPLE_S else max(drive.duration_s / 3, 1.0)
    return AgentConfig(
        vehicle=vehicle,
        boot=digest("drive", drive.name)[:16],
        region=drive.region,
        rig_json=rig_json(drive.rig),
        sampling=Sampling(period_s, 1.0),
    )


def _planned(
    frames: Iterator[Frame], policy: Policy | None, model_version: str, clock: Callable[[], float]
) -> Iterator[Frame]:
    """Frames with what the policy makes of them."""
    memory = Memory()
    for frame in frames:
        if policy is None or frame.images is None:
            yield frame
            continue
        started = clock()
        plan = policy.plan(memory.recall(_observation(frame, policy), frame.time_ns, frames_seen(policy)))
        latency_ms = (clock() - started) * 1e3
        known = np.isfinite(speed_mps(frame)) or not needs_signals(policy)
        yield replace(
            frame,
            plan_m=plan.best[0] if known else None,
            scale_m=plan.best_scale_m[0],
            embedding=plan.embedding[0],
            model_version=model_version,
            latency_ms=latency_ms,
        )


def _observation(frame: Frame, policy: Policy) -> Observation:
    """What a policy is given; see NEUTRAL_SPEED_MPS."""
    speed, yaw_rate = speed_mps(frame), yaw_rate_radps(frame)
    if needs_signals(policy):
        speed = speed if np.isfinite(speed) else NEUTRAL_SPEED_MPS
        yaw_rate = yaw_rate if np.isfinite(yaw_rate) else 0.0
    assert frame.images is not None
    return Observation(
        images=frame.images[None],
        speed_mps=np.array([speed], np.float32),
        yaw_rate_radps=np.array([yaw_rate], np.float32),
        command=np.array([frame.command], np.int64),
    )


def _policy_warnings(drive: Drive, policy: Policy | None) -> list[str]:
    if policy is None or not needs_signals(policy) or drive.km is not None:
        return []
    return [
        f"the policy was told {NEUTRAL_SPEED_MPS:g} m/s for want of a speed: its trajectories are not used, only "
        "its uncertainty and its embedding"
    ]
