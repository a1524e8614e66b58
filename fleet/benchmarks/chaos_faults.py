"""Everything that goes wrong in the trials of chaos: one table."""

from __future__ import annotations

import time

from fleet.benchmarks.chaos_load import DATA_PLANE, again, around_now, clips, late, poisoned, skewed, usual
from fleet.benchmarks.chaos_run import Fault, Run, leave_alone
from fleet.benchmarks.chaos_spool import spooled
from fleet.benchmarks.chaos_workers import BESIDE

EARLY = 0.2
"""Share of kills in the first seconds of a worker: while it takes up its state."""
SHIFTS_S = (200.0, -200.0, 0.0)
"""Off by less than the five minutes by which an event may be ahead."""


def kill(run: Run, shift_s: float = 0.0) -> None:
    """kill -9 at a random instant of the burst's work, or of the worker's start; then it is started again."""
    if run.dice.random() < EARLY and run.counts.kills:
        time.sleep(run.dice.uniform(0.2, 3.0))
        run.wire.listen()
    else:
        run.midway()
    member = run.dice.choice(run.workers.members)
    run.workers.kill(member)
    run.wire.hear_out()
    run.counts.kills += 1
    run.counts.in_flight += run.left() > 0
    run.workers.start(member, shift_s)


def away(run: Run) -> None:
    """The broker ends, by a power cut or in order, and comes back a little later."""
    run.midway()
    (run.broker.kill if run.dice.random() < 0.5 else run.broker.stop)()
    run.counts.others += 1
    time.sleep(run.dice.uniform(0, 3))
    run.broker.start()


def slow(run: Run) -> None:
    """A worker does nothing for so long that it loses its place, and then goes on as if it had it."""
    run.midway(0.6)
    member = run.dice.choice(run.workers.members)
    run.workers.suspend(member)
    run.counts.others += 1
    ends = time.monotonic() + run.setup.silence_s
    run.until(lambda: time.monotonic() > ends)
    run.workers.resume(member)


def usurp(run: Run) -> None:
    """A second worker takes the place of one that does nothing; that one goes on later, and must end, where it had
    anything left to do: who says nothing more is not told that it may not."""
    run.midway(0.6)
    (old,) = run.workers.members
    young = f"{old}'"
    run.workers.suspend(old)
    run.wire.hear_out()
    busy = run.left() > 0
    run.counts.others += 1
    run.workers.start(young)
    run.until(lambda: run.left() == 0)
    run.workers.resume(old)
    if not run.workers.forget(old, 60 if busy else 5) and busy:
        run.workers.ended.append(f"{old} {BESIDE} {young} and had to be killed")


def shift(run: Run) -> None:
    """The worker is killed, and comes up on a machine whose clock is off."""
    kill(run, SHIFTS_S[run.counts.kills % len(SHIFTS_S)])


def fill(run: Run) -> None:
    """The disk becomes full before the burst comes."""
    assert run.disk is not None
    run.disk.fill(run.dice)


def free(run: Run) -> None:
    """After a while there is room again."""
    assert run.disk is not None
    ends = time.monotonic() + run.dice.uniform(3, 6)
    run.until(lambda: time.monotonic() > ends)
    run.counts.others += 1
    run.disk.free()


FAULTS: dict[str, Fault] = {
    f.name: f
    for f in (
        Fault("none", "nothing goes wrong", usual, leave_alone),
        Fault("kill", "kill -9 at a random instant", usual, kill),
        Fault("broker", "the broker is killed or stopped, and started again", usual, away),
        Fault("slow", "a worker stops for longer than its place is kept (SIGSTOP)", usual, slow),
        Fault("usurped", "a second process takes the place of one that hangs", usual, usurp),
        Fault("again", "everything up to four times, partitions in any order; with kills", again, kill),
        Fault("late", "events overtake each other by up to 30 places; with kills", late, kill),
        Fault("poison", "as much poison as good events; with kills", poisoned, kill),
        Fault("skew", "vehicles' clocks off by up to 400 days; with kills", skewed, kill),
        Fault("clock", "the worker's clock off by 200 s either way; with kills", around_now, shift,
              stages=DATA_PLANE, recorded=False),
        Fault("store full", "the archive's disk is full (ENOSPC)", clips, free, fill, ("archive",), "store"),
        Fault("state full", "the disk of the state file is full (ENOSPC)", usual, free, fill, (), "state"),
        Fault("spool full", "the vehicle's disk is full (ENOSPC), its agent dies; with kills", spooled, kill),
    )
}  # fmt: skip
