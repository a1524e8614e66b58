"""The whole wheel in one process: every role, wired. The one place where packages meet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fleet.config import WINDOW_NS, WheelConfig
from fleet.ledger import Clip, Ledger
from fleet.places import places_below
from fleet.vehicles import VirtualFleet
from jobs import service
from jobs.code import code_version
from jobs.context import JobContext, Places
from jobs.documents import Compiled, Evaluated
from jobs.record import JobRecord
from jobs.register import step_down
from jobs.runner import Worker
from monitoring.exporter import Exporter
from registry.clips import ClipIndex
from registry.lineage import Kind, Lineage, Node
from registry.models import Models
from registry.releases import Releases
from registry.store import Store
from simulation.scenarios import scenes
from streams.archive import Archive
from streams.contracts.clips import ArchivedClip
from streams.contracts.clock import SECOND_NS, VirtualClock
from streams.contracts.codec import Message
from streams.contracts.drive import TriggerEvent
from streams.contracts.ids import job_fingerprint
from streams.contracts.jobs import JobFinished, JobRequested, Release
from streams.contracts.releases import Rollout, RolloutState
from streams.coverage import Coverage
from streams.dedup import Dedup
from streams.engines.inline import InlineEngine
from streams.novelty import NoveltyStage
from streams.rollouts import Rollouts
from streams.selection import Selection
from streams.stage import AnyStage
from streams.tagging import Tagging
from streams.topics import TOPICS
from streams.topology import BY_STAGE, topics_read
from streams.transport.base import Transport
from streams.transport.messages import Inbox, send
from streams.triggers import Triggers

EPOCH_NS = 1_767_225_600 * SECOND_NS
"""Virtual time begins on 2026-01-01: the same seed sees the same instants."""
TOPIC_OF = {kind: topic.name for topic in TOPICS for kind in topic.carries if kind.__name__ != "LostClip"}
ENGINE_GROUP = "streams"
WORKERS = (service.GROUP, (service.TOPIC,))
MONITORED = tuple(t.name for t in TOPICS if t.name != "fleet.clips")

Watch = Callable[[str, int, int, str], None]
"""Called with (what, done, of, detail). Must not block."""


class WheelStuck(RuntimeError):
    """The loop did not go on where it must: says what was waited for."""


class FirstModelFailed(RuntimeError):
    """Without a first model there is nothing to turn: says why it did not pass."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn came to."""

    number: int
    finished: JobFinished
    evaluated: Evaluated | None
    """None where the job ended before it evaluated."""
    compiled: Compiled | None
    rollouts: tuple[Rollout, ...]
    """Each state that was told of its release, in order."""

    @property
    def drives(self) -> bool:
        """Whether its model is what the fleet goes on with: it passed the gate and was not thrown back."""
        halted = any(r.state is RolloutState.HALTED for r in self.rollouts)
        return self.finished.verdict == "pass" and not halted


@dataclass(slots=True)
class Seconds:
    """Wall time by what it was spent on."""

    spent: dict[str, float] = field(default_factory=dict)

    def add(self, what: str, started: float) -> None:
        """Count the time since `started` (time.monotonic)."""
        self.spent[what] = self.spent.get(what, 0.0) + time.monotonic() - started


class Wheel:
    """Vehicles, streams, jobs and releases over one transport, in virtual time."""

    def __init__(
        self, config: WheelConfig, out: Path, transport: Transport, watch: Watch, places: Places | None = None
    ) -> None:
        """`places`: default, all below `out`."""
        self.config, self.out, self.transport, self.watch = config, out, transport, watch
        self.clock, self.seconds, self.ledger = VirtualClock(EPOCH_NS), Seconds(), Ledger()
        self.turns: list[Turn] = []
        places = places or places_below(out)
        self.context = JobContext(places, config.settings, config.processes, code_version())
        self.store = Store(places.store, durable=False)
        self.index, self.lineage = ClipIndex(Path(places.clip_index)), Lineage(Path(places.lineage))
        releases = Releases(Path(places.releases), Path(places.keys))
        releases.create(time.time_ns())
        self.engine = InlineEngine(
            transport, _stages(config, self.store.uri), self.clock, sink=self.store, group=ENGINE_GROUP
        )
        self.exporter = Exporter()
        self.fleet = VirtualFleet(
            out / "vehicles",
            config.vehicles,
            config.sample_s,
            config.spool_bytes,
            Path(places.releases),
            releases.trusted_root(),
            config.settings.hardware,
        )
        self.worker = Worker(self.context, clock=self.clock, watch=self._watch_job)
        self._gateway = Inbox(transport, "gateway", ("fleet.clip-requests", "fleet.releases", "fleet.campaigns"))
        self._registrar = Inbox(transport, "registrar", ("fleet.archive",))
        self._monitor = Inbox(transport, "monitor", MONITORED)
        self._rollouts: list[Rollout] = []
        self._number = 0
        """The turn whose selection what is offered now belongs to."""
        self._begin_at_the_end()

    def bootstrap(self) -> Turn:
        """Turn 0: a first model cloned from the expert, tested, signed, installed everywhere. Raises
        FirstModelFailed."""
        recipe = self.config.recipe
        request = JobRequested(
            fingerprint=job_fingerprint([], f"seed-{self.config.seed}", recipe, self.context.code),
            kind="clone",
            time_ns=self.clock.now_ns(),
            base_model="",
            recipe=recipe,
            clips=[],
            reason="the first model",
        )
        self.send([request])
        turn = self._learn(0)
        if turn.finished.verdict != "pass":
            raise FirstModelFailed(f"the first model did not pass: {'; '.join(turn.finished.reasons)}")
        return turn

    def turn(self) -> Turn:
        """Drive, select, upload, learn, roll out. Raises WheelStuck."""
        number = self._number = len(self.turns)
        self._drive(number)
        self._upload(number)
        return self._learn(number)

    def send(self, messages: Sequence[Message]) -> None:
        """Publish messages, each on its type's topic."""
        for message in messages:
            topic = TOPIC_OF.get(type(message), "fleet.clips")
            send(self.transport, topic, message, f"fleetwheel/{getattr(message, 'vehicle', 'fleet')}")
            if isinstance(message, TriggerEvent) and message.clip is not None:
                self._offered(message)

    def exchange(self) -> None:
        """Let the streams run, and hand on what they say."""
        self.transport.flush()
        self.engine.run_until_idle()
        for message in self._drain(self._gateway):
            if isinstance(message, Rollout):
                self._rolled(message)
            self.fleet.receive(message, self.clock.now_ns(), self.send)
        for message in self._drain(self._registrar):
            if isinstance(message, ArchivedClip):
                self.index.add(message)
                self.lineage.link([Node(Kind.EVENT, message.event_id)], Node(Kind.CLIP, message.clip_id))
        for message in self._drain(self._monitor):
            self.ledger.observe(message)
            self.exporter.observe(message)

    def _drive(self, number: int) -> None:
        """The turn's trips, in the selection window in which the last rollout was watched."""
        started = time.monotonic()
        for trip in range(self.config.trips):
            seed = (self.config.seed * 1000 + number) * 100 + trip
            self._trip(seed, self.config.trip_s, f"turn {number}: drive {trip + 1} of {self.config.trips}")
        self.seconds.add("drive", started)

    def _trip(self, seed: int, seconds: float, what: str) -> None:
        drawn = scenes(self.config.mix, self.config.vehicles, seed, "fleet")

        def progress(done: int, of: int) -> None:
            self.watch(what, done, of, f"{len(self.ledger.clips)} clips offered")

        self.fleet.drive(drawn, seconds, self.clock, self.send, self.exchange, progress)
        self.clock.advance(60 * SECOND_NS)

    def _upload(self, number: int) -> None:
        """The window ends: requests go down, clips come up, until each has come or is told lost."""
        started = time.monotonic()
        self._advance_to((self.clock.now_ns() // WINDOW_NS + 1) * WINDOW_NS)
        self.engine.step()
        self.exchange()
        wanted = max(self.ledger.open_requests(), 1)
        for _ in range(200):
            waiting = self.ledger.open_requests()
            self.watch(f"turn {number}: upload", wanted - waiting, wanted, "clips")
            if not waiting:
                break
            self.fleet.upload(self.clock.now_ns(), self.send)
            self.clock.advance(SECOND_NS)
            self.exchange()
        self.seconds.add("upload", started)

    def _learn(self, number: int) -> Turn:
        """Wait for the triggers, run the job, roll its release out."""
        finished = self._await_job(number)
        started = time.monotonic()
        self._rollouts, self._number = [], number + 1
        self._roll_out(number, finished)
        self.seconds.add("roll out", started)
        record = JobRecord(self.store, finished.fingerprint)
        evaluated, compiled = record.step("evaluate"), record.step("compile")
        turn = Turn(
            number,
            finished,
            msgspec.convert(evaluated.result, Evaluated) if evaluated else None,
            msgspec.convert(compiled.result, Compiled) if compiled else None,
            tuple(r for r in self._rollouts if finished.release and r.release.version == finished.release.version),
        )
        self.turns.append(turn)
        return turn

    def _await_job(self, number: int) -> JobFinished:
        """Let time pass until the triggers ask for a job, and run it."""
        for _ in range(120):
            self.exchange()
            started = time.monotonic()
            if ends := service.work_off(self.worker, self.transport, timeout_s=0.2):
                self.seconds.add("learn" if number else "first model", started)
                return ends[-1]
            self.clock.advance(10 * SECOND_NS)
            self.engine.step()
        raise WheelStuck("no learning job was asked for within 20 minutes of the last clip: too little evidence")

    def _roll_out(self, number: int, finished: JobFinished) -> None:
        """Watched trips until the release's rollout is over; a job without a release changes nothing. One that is
        not over by then stays as it is: the next turn's driving goes on deciding it."""
        self.exchange()
        if finished.release is None:
            return
        for trip in range(self.config.rollout_trips):
            self.fleet.park(self.clock.now_ns())
            if self._over(finished.release):
                break
            seed = (self.config.seed * 1000 + number) * 100 + 50 + trip
            what = f"turn {number}: {self._standing(finished.release)}, trip {trip + 1}"
            self._trip(seed, self.config.rollout_trip_s, what)
        self.fleet.park(self.clock.now_ns())
        self._installed()

    def _standing(self, release: Release) -> str:
        told = [r for r in self._rollouts if r.release.version == release.version]
        return (
            f"rollout of release {release.version}, {told[-1].state}" if told else "rollout waits for the last one"
        )

    def _over(self, release: Release) -> bool:
        final = (RolloutState.COMPLETE, RolloutState.HALTED)
        return any(r.release.version == release.version and r.state in final for r in self._rollouts)

    def _rolled(self, rollout: Rollout) -> None:
        """A rollout that was halted takes the champion's title back."""
        self._rollouts.append(rollout)
        if rollout.state is RolloutState.HALTED and rollout.previous is not None:
            models = Models(self.context.places.mlflow, self.config.settings.model_name)
            step_down(models, rollout.release.model_version, rollout.previous.model_version)

    def _installed(self) -> None:
        """Which vehicles run which release is part of the lineage."""
        for vehicle, release in self.fleet.releases_installed().items():
            if release:
                self.lineage.link([Node(Kind.RELEASE, release)], Node(Kind.VEHICLE, vehicle))

    def _offered(self, event: TriggerEvent) -> None:
        spool = next(v.spool for v in self.fleet.vehicles if v.name == event.vehicle)
        stored = spool.clips.get(event.event_id)
        scene = self.fleet.scene_of[event.vehicle, event.boot]
        if stored is not None:
            self.ledger.offer(Clip(self._number, scene.condition.name, stored.sha256, event))

    def _drain(self, inbox: Inbox) -> list[Message]:
        messages: list[Message] = []
        while inbox.lag():
            messages += inbox.receive(self.clock.now_ns(), timeout_s=0.2)
        inbox.done()
        return messages

    def _advance_to(self, time_ns: int) -> None:
        self.clock.advance(max(0, time_ns - self.clock.now_ns()))

    def _begin_at_the_end(self) -> None:
        """On a broker that was used before, this run begins behind what is there."""
        engine = (ENGINE_GROUP, topics_read(tuple(BY_STAGE)))
        inboxes = (self._gateway, self._registrar, self._monitor)
        for group, topics in (engine, WORKERS, *((i.group, i.topics) for i in inboxes)):
            ends = self.transport.end_offsets(topics)
            self.transport.seek(group, topics, ends)
            self.transport.commit(group, ends)

    def _watch_job(self, step: str, done: int, of: int, what: str) -> None:
        self.watch(f"turn {len(self.turns)}: {step}", done, of, what)


def _stages(config: WheelConfig, uri_of: Callable[[str], str]) -> list[AnyStage]:
    return [
        Dedup(),
        Tagging(),
        NoveltyStage(),
        Selection(config.selection),
        Archive(uri_of),
        Coverage(config.coverage),
        Triggers(config.triggers),
        Rollouts(config.rollouts),
    ]
