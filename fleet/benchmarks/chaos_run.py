"""A trial of chaos: feed, disturb, wait until all is decided, compare."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from fleet.benchmarks.chaos_disk import SmallDisk
from fleet.benchmarks.chaos_load import Load, Make, reference, written_by
from fleet.benchmarks.chaos_verdict import CONTENTS, Verdict, Word, judge
from fleet.benchmarks.chaos_wire import Wire
from fleet.benchmarks.chaos_workers import SETUPS, Setup, Workers
from fleet.kafka import NativeKafka
from registry.store import Store
from streams.contracts.ids import sha256_hex

PATIENCE_S = 90.0
"""Without any progress for so long, what is missing is lost."""
LINGER_S = 1.0
"""What is told too much comes within it."""


@dataclass(slots=True)
class Counts:
    """What was done to a trial's workers and broker."""

    kills: int = 0
    in_flight: int = 0
    """Kills after which decisions were still to be told."""
    others: int = 0
    """Stops, suspensions, full disks."""


@dataclass(slots=True)
class Run:
    """What a disturbance has in its hands."""

    setup: Setup
    workers: Workers
    wire: Wire
    broker: NativeKafka
    dice: random.Random
    disk: SmallDisk | None = None
    counts: Counts = field(default_factory=Counts)
    _due: set[tuple[str, str]] = field(default_factory=set)
    _fresh: set[tuple[str, str]] = field(default_factory=set)
    _found: set[tuple[str, str]] = field(default_factory=set)
    _read: int = 0

    def expect(self, words: Sequence[Word]) -> None:
        """A burst is fed, and these decisions follow."""
        self._fresh = {(w.topic, w.name) for w in words if w.topic != CONTENTS} - self._due
        self._due |= self._fresh

    def left(self) -> int:
        """Decisions that are still to come."""
        self._found |= {(w.topic, w.name) for w in self.wire.words[self._read :]}
        self._read = len(self.wire.words)
        return len(self._due - self._found)

    def until(self, done: Callable[[], bool], timeout_s: float = PATIENCE_S) -> bool:
        """Listen, and tend the workers, until it is so; False where nothing at all was heard for so long."""
        heard_s = time.monotonic()
        while not done():
            if self.wire.listen():
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > timeout_s:
                return False
            self.workers.tend()
        return True

    def midway(self, most: float = 0.8) -> None:
        """Wait for a random share of the last burst's decisions, and then a moment; where they come at once, only
        a moment."""
        if self.setup.at_once_s:
            time.sleep(self.dice.uniform(0, self.setup.at_once_s))
            return
        still = len(self._fresh) * (1 - self.dice.uniform(0.02, most))
        self.until(lambda: self.left() <= still)
        time.sleep(self.dice.uniform(0, 0.03))

    def settle(self) -> bool:
        """Wait until everything that was fed is taken and decided."""
        return self.until(lambda: self.left() == 0) and self.until(self._taken)

    def _taken(self) -> bool:
        groups = self.setup.groups(self.workers.stages)
        if not self.setup.tells:
            return self.wire.taken(groups)
        told = self.workers.positions()
        return bool(told) and all(
            told.get(at, 0) >= end for _, topics in groups for at, end in self.wire.ends(topics).items()
        )


Disturb = Callable[[Run], None]


def leave_alone(_run: Run) -> None:
    """Nothing happens."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong in a trial."""

    name: str
    what: str
    load: Make
    after: Disturb = leave_alone
    """Once a burst was fed."""
    before: Disturb = leave_alone
    """Before it is."""
    stages: tuple[str, ...] = ()
    """Instead of the setup's."""
    small_disk: str = ""
    """Folder of the trial that is on a small disk."""
    recorded: bool = True


@dataclass(frozen=True, slots=True)
class Trial:
    """One engine, one fault, so many bursts with a disturbance each."""

    setup: str
    fault: Fault
    rounds: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A trial that was carried out."""

    trial: Trial
    verdict: Verdict
    counts: Counts
    ended: tuple[str, ...]
    """Last words of workers that ended by themselves."""
    seconds: float

    @property
    def losses(self) -> int:
        """Decisions that are not as in the undisturbed run; told twice, too, where the engine promises once."""
        once = SETUPS[self.trial.setup].exactly_once
        return self.verdict.losses + (self.verdict.twice if once else 0)


def run_trial(trial: Trial, broker: NativeKafka, scratch: Path, prefix: str, start_ns: int) -> Outcome:
    """On a broker that may be stopped and started meanwhile; `start_ns`: when the recorded events happened.
    Raises NotPermitted, BadReference."""
    began, dice = time.monotonic(), _dice(trial)
    setup, fault = SETUPS[trial.setup], trial.fault
    stages, folder = fault.stages or setup.stages, scratch / prefix.strip(".")
    load = fault.load(dice, start_ns, trial.rounds)
    store = Store(folder / "store")
    expected = reference(load, stages, store)
    with ExitStack() as stack:
        disk = None
        if fault.small_disk:
            disk = stack.enter_context(SmallDisk(folder / fault.small_disk, 6 * 1024))
        wire = Wire(broker.bootstrap, prefix, written_by(stages))
        stack.callback(wire.close)
        workers = Workers(setup, stages, broker.bootstrap, prefix, folder, fault.recorded)
        stack.callback(workers.stop)
        run = Run(setup, workers, wire, broker, dice, disk)
        _play(run, fault, load, expected)
        workers.stop()
        found = wire.words + _contents(store, expected)
    verdict = judge(found, [w for words in expected for w in words])
    return Outcome(trial, verdict, run.counts, tuple(workers.ended), time.monotonic() - began)


def _dice(trial: Trial) -> random.Random:
    """No secret hangs on them."""
    return random.Random(f"{trial.setup}/{trial.fault.name}/{trial.seed}")  # noqa: S311


def _play(run: Run, fault: Fault, load: Load, expected: Sequence[Sequence[Word]]) -> None:
    for member in run.setup.members:
        run.workers.start(member)
    for number, (burst, words) in enumerate(zip(load.bursts, expected, strict=True)):
        if number and burst.time_ns != load.bursts[number - 1].time_ns and not run.settle():
            break  # time may pass only when all that happened before is decided; what is missing is told as lost
        fault.before(run)
        run.wire.feed(burst)
        run.expect(words)
        fault.after(run)
    run.settle()
    ends = time.monotonic() + LINGER_S
    run.until(lambda: time.monotonic() > ends)
    run.wire.hear_out()


def _contents(store: Store, expected: Sequence[Sequence[Word]]) -> list[Word]:
    """Of what must be stored, what is, with the bytes that lie there."""
    names = [w.name for words in expected for w in words if w.topic == CONTENTS]
    return [Word(CONTENTS, name, sha256_hex(store.get(name))) for name in names if store.has(name)]
