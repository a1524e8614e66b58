"""What is lost when things die: kills, a broker that goes away, slow workers, duplicates, poison, full disks and
clocks that are off, on every engine. After each trial the decisions must be those of an undisturbed run.

`fleet benchmark chaos`, or `make chaos`; tests/chaos runs a short form of it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fleet.benchmarks.chaos_disk import NotPermitted
from fleet.benchmarks.chaos_faults import FAULTS
from fleet.benchmarks.chaos_load import WINDOW_NS
from fleet.benchmarks.chaos_run import Outcome, Trial, run_trial
from fleet.benchmarks.chaos_workers import BESIDE, BUG, SETUPS
from fleet.benchmarks.result import Bar, Measured
from fleet.console import Watcher
from fleet.flink import FlinkEnvironment
from fleet.kafka import NativeKafka, missing_tools

Row = tuple[str, str, int]
"""Setup, fault, rounds."""
FULL: tuple[Row, ...] = (
    ("inline", "none", 1),
    ("batch", "poison", 3),
    ("inline", "poison", 2),
    ("faust", "poison", 2),
    ("batch", "store full", 2),
    ("faust", "store full", 2),
    ("inline", "state full", 3),
    ("batch", "spool full", 3),
    ("batch x2", "clock", 3),
    ("faust", "clock", 2),
    ("batch", "usurped", 1),
    ("batch", "slow", 1),
    ("batch x2", "slow", 1),
    ("faust x2", "slow", 1),
    ("batch", "broker", 1),
    ("faust", "broker", 1),
    ("flink", "kill", 1),
    ("batch", "kill", 6),
    ("batch x2", "kill", 5),
    ("inline", "kill", 5),
    ("faust", "kill", 5),
    ("faust x2", "kill", 3),
    ("batch", "again", 3),
    ("faust", "again", 2),
    ("batch x2", "late", 3),
    ("batch", "skew", 2),
)
QUICK: tuple[Row, ...] = (("batch", "kill", 2), ("inline", "poison", 1))
KILLS = 50
ENGINES_KILLED = {"batch", "inline", "faust", "flink"}


class NothingToBreak(OSError):
    """What every trial needs is missing."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A trial that could not be carried out here, and why."""

    trial: Trial
    why: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A trial that itself went wrong: nothing is known of its decisions."""

    trial: Trial
    why: str


Carried = Outcome | LeftOut | Broken


def measure(seeds: list[int], scratch: Path, quick: bool) -> Measured:
    """All trials, one after another, on one broker; the seeds take turns. Raises NothingToBreak."""
    missing = missing_tools()
    if missing:
        raise NothingToBreak(f"a native Kafka needs {' and '.join(missing)}")
    shutil.rmtree(scratch, ignore_errors=True)
    rows = QUICK if quick else FULL
    with Watcher() as watcher:
        trials = [Trial(s, FAULTS[f], rounds, seeds[i % len(seeds)]) for i, (s, f, rounds) in enumerate(rows)]
        return assess(carry_out(trials, scratch.resolve(), watcher.say))


def carry_out(trials: Sequence[Trial], scratch: Path, say: Callable[[str], None]) -> list[Carried]:
    """On a broker of their own."""
    broker = NativeKafka().prepare().start()
    done: list[Carried] = []
    try:
        for number, trial in enumerate(trials):
            done.append(carry(trial, broker, scratch, f"chaos{number}."))
            say(f"{number + 1}/{len(trials)} {_line(done[-1])}")
    finally:
        broker.remove()
    return done


def carry(trial: Trial, broker: NativeKafka, scratch: Path, prefix: str) -> Carried:
    """One trial, whatever comes of it."""
    why = FlinkEnvironment().missing() if SETUPS[trial.setup].engine == "flink" else ""
    if why:
        return LeftOut(trial, why)
    now_ns = time.time_ns()
    start_ns = now_ns // WINDOW_NS * WINDOW_NS - 10 * WINDOW_NS if trial.fault.recorded else now_ns
    try:
        return run_trial(trial, broker, scratch, prefix, start_ns)
    except NotPermitted as error:
        return LeftOut(trial, str(error))
    except Exception as error:  # the others go on; this one counts as lost
        return Broken(trial, f"{type(error).__name__}: {error}")


def assess(carried: Sequence[Carried]) -> Measured:
    """Bars, table and plain values."""
    outcomes = [c for c in carried if isinstance(c, Outcome)]
    broken = [c for c in carried if isinstance(c, Broken)]
    kills = sum(o.counts.in_flight for o in outcomes)
    losses = sum(o.losses for o in outcomes) + len(broken)
    killed = {SETUPS[o.trial.setup].engine for o in outcomes if o.counts.in_flight}
    faults = {o.trial.fault.name for o in outcomes}
    bugs = [words for o in outcomes for words in o.ended if any(sign in words for sign in (BUG, BESIDE))]
    bars = [
        Bar("losses", "decisions lost, extra or different, and trials that broke", losses, "= 0", losses == 0),
        Bar("kills", "kill -9 of workers with work in flight", kills, f">= {KILLS}", kills >= KILLS),
        Bar(
            "engines",
            "engines whose workers were killed so",
            len(killed),
            f"= {len(ENGINES_KILLED)}",
            killed == ENGINES_KILLED,
        ),
        Bar("workers", "workers that ended by a bug, or went on in another's place", len(bugs), "= 0", not bugs),
        Bar("faults", "kinds of faults tried", len(faults), f"= {len(FAULTS)}", faults == FAULTS.keys()),
    ]
    results = {
        "trials": [_entry(o) for o in outcomes],
        "left_out": [{"engine": c.trial.setup, "fault": c.trial.fault.name, "why": c.why}
                     for c in carried if isinstance(c, LeftOut)],
        "broken": [{"engine": c.trial.setup, "fault": c.trial.fault.name, "why": c.why} for c in broken],
    }  # fmt: skip
    return Measured(results, bars, _table(carried))


def _entry(o: Outcome) -> dict[str, Any]:
    counts = asdict(o.counts)
    verdict = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(o.verdict).items()}
    return {
        "engine": o.trial.setup,
        "fault": o.trial.fault.name,
        "seed": o.trial.seed,
        "rounds": o.trial.rounds,
        "seconds": round(o.seconds, 1),
        "losses": o.losses,
        "ended": list(o.ended),
        **counts,
        **verdict,
    }


def _line(c: Carried) -> str:
    name = f"{c.trial.setup}, {c.trial.fault.name}"
    if isinstance(c, LeftOut):
        return f"{name}: left out: {c.why}"
    if isinstance(c, Broken):
        return f"{name}: BROKEN: {c.why}"
    done = f"{c.counts.kills} kills ({c.counts.in_flight} in flight), {c.counts.others} others"
    ended = f"; {len(c.ended)} ended by themselves: {c.ended[-1]}" if c.ended else ""
    return f"{name}: {done}, {c.verdict.found} decisions, {c.losses} losses, {c.seconds:.0f} s{ended}"


_HEAD = (
    "engine",
    "what goes wrong",
    "kills (in flight)",
    "others",
    "decisions",
    "lost",
    "extra",
    "other",
    "again",
)
_ABOUT = (
    "Decisions are compared by name and content with an undisturbed run of the inline engine over memory. A kill "
    "is in flight where decisions were still to be told after it. Other: with another content. Again: told twice, "
    "word for word; batch and flink promise that it does not happen, and there it counts as a loss."
)


def _table(carried: Sequence[Carried]) -> str:
    outcomes = [c for c in carried if isinstance(c, Outcome)]
    sums = [sum(column) for column in zip(*(_numbers(o) for o in outcomes), strict=True)] or [0] * 8
    rows = [
        _HEAD,
        ["---"] * len(_HEAD),
        *([o.trial.setup, o.trial.fault.what, *_cells(_numbers(o))] for o in outcomes),
        [f"**{len(outcomes)} trials**", "**all**", *(f"**{cell}**" for cell in _cells(sums))],
    ]
    others = [f"- {_line(c)}" for c in carried if not isinstance(c, Outcome) or c.ended]
    return "\n".join([_ABOUT, "", *("| " + " | ".join(row) + " |" for row in rows), "", *others])


def _numbers(o: Outcome) -> list[int]:
    v, c = o.verdict, o.counts
    return [c.kills, c.in_flight, c.others, v.expected, len(v.lost), len(v.extra), len(v.different), v.twice]


def _cells(numbers: Sequence[int]) -> list[str]:
    kills, in_flight, *rest = numbers
    return [f"{kills} ({in_flight})", *map(str, rest)]
