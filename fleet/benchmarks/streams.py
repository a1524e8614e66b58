"""The same work on the batch engine and on what else there is: throughput interleaved in one run, latency at a
fixed rate, memory over a long run, and how they grow with partitions and prototypes.

Every contender is a process that reads fleet.events and writes fleet.scenarios and fleet.clip-requests. Nobody
reports its own speed: it is told from the instant at which its events could be read and the times at which the
broker took the committed outputs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from fleet.benchmarks.result import Bar, Measured
from fleet.benchmarks.streams_load import Gate, Keyed, Load, encoded, feed, latencies, prepare, read_outputs
from fleet.benchmarks.streams_watch import ContenderFailed, watch
from fleet.console import Watcher
from fleet.contender import PACED
from fleet.kafka import NativeKafka, missing_tools

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "tests" / "benchmarks" / "peers"
ENVIRONMENTS = ROOT / "build" / "envs"


class NothingToMeasure(OSError):
    """Something is missing that every contender needs."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A program: its interpreter and its script, which gets BOOTSTRAP PREFIX GROUP PROTOTYPES, and WORK where that
    is not its own, and runs until it is ended."""

    name: str
    python: Path
    script: Path
    made_by: str = "make setup"
    guarantee: str = "exactly once"
    work: str = ""
    """"same": Fleetwheel's stages. "rough": what decides with less (tests/benchmarks/peers/work.py)."""
    warms_up: bool = False
    """Its virtual machine compiles for a minute: it is given more events."""

    def missing(self) -> str:
        """What is not here; "" where it can run."""
        return "" if self.python.exists() else f"{self.python} is missing: {self.made_by}"

    def command(self, kafka: str, prefix: str, group: str, prototypes: int) -> list[str]:
        """To start it; -P, as a script's own folder must not hide a package of the same name."""
        work = [self.work] if self.work else []
        return [str(self.python), "-P", str(self.script), kafka, prefix, group, str(prototypes), *work]


HERE = Path(sys.executable)
FLINK = ENVIRONMENTS / "flink" / "bin" / "python"
ENDURANCE = ROOT / "fleet" / "benchmarks" / "streams_endurance.py"
BYTEWAX, QUIX = (ENVIRONMENTS / name / "bin" / "python" for name in ("bytewax", "quixstreams"))
ROUGH = "-rough"


def _peers(work: str, suffix: str = "") -> tuple[Contender, ...]:
    """What our engines are compared to, given this work."""
    return (
        Contender("hand" + suffix, HERE, PEERS / "hand.py", work=work),
        Contender("quixstreams" + suffix, QUIX, PEERS / "quix.py", "make peers", work=work),
        Contender("bytewax" + suffix, BYTEWAX, PEERS / "bytewax_flow.py", "make peers", "at least once", work),
        Contender("pyflink" + suffix, FLINK, PEERS / "pyflink_keyed.py", "make flink", work=work, warms_up=True),
    )


CONTENDERS: tuple[Contender, ...] = (
    Contender("batch", HERE, ROOT / "fleet" / "benchmarks" / "streams_batch.py"),
    *_peers("same"),
    Contender("flink", FLINK, PEERS.parent / "flink_contender.py", "make flink", warms_up=True),
    *_peers("rough", ROUGH),
    Contender("copy", HERE, PEERS / "copy.py", guarantee="at least once; decides nothing"),
    Contender(
        "faust",
        HERE,
        ROOT / "fleet" / "benchmarks" / "streams_faust.py",
        guarantee="at least once; without selection",
    ),
)


FLINK_BAR = "flink over PyFlink that takes events one by one, keyed, both exactly once"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    events: int = 80_000
    first: int = 8_000
    """Events on which contenders warm up before these."""
    more_events: int = 80_000
    more_first: int = 40_000
    """For contenders whose virtual machine warms up."""
    repeats: int = 4
    endured: int = 5_000_000
    """Events of the long run."""
    latency_rate: int = 5_000
    latency_less: tuple[int, ...] = (1_000, 2_500)
    latency_s: float = 20.0
    prototypes: tuple[int, ...] = (64, 256, 1024)
    partitions: tuple[int, ...] = (1, 2, 4, 8)
    timeout_s: float = 300.0


QUICK = Plan(3_000, 500, 4_000, 500, 1, 20_000, 500, (100,), 4.0, (256,), (8,), 120.0)


def measure(seeds: list[int], scratch: Path, quick: bool) -> Measured:
    """A broker of its own; all contenders in turn, as often as the plan says. Raises NothingToMeasure."""
    missing = missing_tools()
    if missing:
        raise NothingToMeasure(f"a native Kafka needs {' and '.join(missing)}")
    plan = QUICK if quick else Plan()
    broker = NativeKafka(heap_mb=768).prepare().start()
    try:
        with Watcher() as watcher:
            return assess(_Bench(broker.bootstrap, plan, seeds[0], watcher.say).all())
    finally:
        broker.remove()


_numbers = count()
"""Topics and groups of a run are its own, whoever measures."""


class _Bench:
    """One broker, one recording, and what was measured on it."""

    def __init__(self, kafka: str, plan: Plan, seed: int, say: Callable[[str], None]) -> None:
        self._kafka, self._plan, self._say, self._seed = kafka, plan, say, seed
        self._failed: dict[str, str] = {}
        self._records: dict[Load, list[Keyed]] = {}

    def all(self) -> dict[str, Any]:
        """Everything, as plain values."""
        self._say(f"recording {self._plan.events} events")
        prepare(self._kafka, "raw.")
        feed(self._kafka, "raw.", Load(self._seed, self._plan.events))
        throughput = self._throughput()
        return {
            "events": self._plan.events,
            "more_events": self._plan.more_events,
            "throughput": throughput,
            "left_out": {c.name: c.missing() for c in CONTENDERS if c.missing()},
            "failed": self._failed,
            "latency_ms": self._latency(),
            "by_prototypes": {str(n): self._run(CONTENDERS[0], prototypes=n) for n in self._plan.prototypes},
            "by_partitions": {
                str(n): self._run(CONTENDERS[0], partitions=n, share=2) for n in self._plan.partitions
            },
            "endurance": self._endurance(),
        }

    def _throughput(self) -> dict[str, list[dict[str, Any]]]:
        """By contender, a run a turn. Who fails is out of the contest, and it is said. Raises ContenderFailed for
        batch, without which there is none."""
        found: dict[str, list[dict[str, Any]]] = {"raw": []}
        for turn in range(self._plan.repeats):
            found["raw"].append(self._raw())
            # Forth and back, so that a machine that becomes slower or faster favours nobody.
            order = CONTENDERS if turn % 2 == 0 else CONTENDERS[::-1]
            for contender in (c for c in order if not c.missing() and c.name not in self._failed):
                try:
                    ran = self._run(contender)
                except ContenderFailed as error:
                    if contender is CONTENDERS[0]:
                        raise
                    self._failed[contender.name] = str(error)
                    self._say(f"turn {turn + 1}: {error}")
                    continue
                found.setdefault(contender.name, []).append(ran)
                self._say(f"turn {turn + 1}: {contender.name} {ran['per_s']:.0f}/s, {ran['peak_mb']:.0f} MB")
        return {name: runs for name, runs in found.items() if name not in self._failed}

    def _raw(self) -> dict[str, Any]:
        command = [str(HERE), str(PEERS / "raw.py"), self._kafka, "raw.", self._group(), str(self._plan.events)]
        done = subprocess.run(command, capture_output=True, check=True, timeout=self._plan.timeout_s)
        told: dict[str, Any] = json.loads(done.stdout)
        return {"per_s": told["events"] / told["seconds"], "outputs": 0, "peak_mb": 0.0}

    def _run(
        self, contender: Contender, prototypes: int = 256, partitions: int = 8, share: int = 1
    ) -> dict[str, Any]:
        """One contender over its events, in topics of its own, or over a share of them; its outputs are counted as
        a reader of committed records sees them."""
        plan = self._plan
        events, first = (plan.more_events, plan.more_first) if contender.warms_up else (plan.events, plan.first)
        events //= share
        prefix = f"{self._group()}."
        gate = Gate(self._kafka, prefix, self._recorded(Load(self._seed, first + events, partitions)), first)
        ran = watch(
            contender.command(self._kafka, prefix, "contender", prototypes), _environment(), gate, plan.timeout_s
        )
        outputs = read_outputs(self._kafka, prefix)
        return {
            "per_s": outputs.per_s(first, ran.opened_ms),
            "scenarios": outputs.scenarios,
            "distinct": outputs.distinct,
            "events": first + events,
            "requests": outputs.requests,
            "peak_mb": ran.peak_mb,
        }

    def _recorded(self, load: Load) -> list[Keyed]:
        if load not in self._records:
            self._records = {known: some for known, some in self._records.items() if known.partitions == 8}
            self._records[load] = encoded(load)
        return self._records[load]

    def _latency(self) -> dict[str, Any]:
        """From the moment a vehicle's event was sent to its decision, read committed, at a fixed rate: the median
        of some stretches and the p99 of each, of batch and of the loop by hand in turn; and of batch at less."""
        rate, found = self._plan.latency_rate, dict[str, list[dict[str, float]]]()
        for _ in range(self._plan.repeats):
            for contender in (c for c in CONTENDERS if c.name in ("batch", "hand")):
                found.setdefault(contender.name, []).append(self._stretch(contender, rate))
        less = {str(r): self._stretch(CONTENDERS[0], r) for r in self._plan.latency_less}
        said: dict[str, Any] = {"rate_per_s": rate, "by_rate": less, "hand": _medians(found["hand"])}
        return said | _medians(found["batch"])

    def _stretch(self, contender: Contender, rate: int) -> dict[str, float]:
        prefix = f"{self._group()}."
        prepare(self._kafka, prefix)
        command = contender.command(self._kafka, prefix, "contender", 256)
        with subprocess.Popen(command, env=_environment() | {PACED: "1"}, cwd=ROOT) as child:
            try:
                told = sorted(latencies(self._kafka, prefix, Load(self._seed, 0), rate, self._plan.latency_s))
            finally:
                child.terminate()
        said = {f"p{share}": told[min(len(told) - 1, len(told) * share // 100)] for share in (50, 90, 99)}
        self._say(f"{contender.name}: {len(told)} events at {rate}/s: p99 {said['p99']:.0f} ms")
        return said

    def _endurance(self) -> list[dict[str, Any]]:
        """The batch engine's states over many events: memory after each fifth."""
        command = [str(HERE), "-P", str(ENDURANCE), str(self._plan.endured), str(self._seed)]
        told: list[dict[str, Any]] = []
        with subprocess.Popen(command, env=_environment(), cwd=ROOT, stdout=subprocess.PIPE) as child:
            for line in child.stdout or ():
                told.append(json.loads(line))
                self._say(f"{told[-1]['events']:,} events: {told[-1]['mb']} MB")
        if child.returncode or not told:
            raise ContenderFailed(f"{ENDURANCE.name} ended with {child.returncode} after {len(told)} parts")
        return told

    def _group(self) -> str:
        return f"bench-{os.getpid()}-{next(_numbers)}"


def _environment() -> dict[str, str]:
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    return {**os.environ, **threads, "PYTHONPATH": str(ROOT)}


def _medians(stretches: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Of each share over the stretches, and the p99 of each."""
    said = {name: statistics.median(one[name] for one in stretches) for name in stretches[0]}
    return {"p99_each": [one["p99"] for one in stretches]} | said


def _median(runs: Sequence[dict[str, Any]], key: str = "per_s") -> float:
    return float(statistics.median(run[key] for run in runs))


def assess(results: dict[str, Any]) -> Measured:
    """Bars and table. Ratios are medians of those within a turn: a busy machine slows neighbours alike."""
    runs: dict[str, list[dict[str, Any]]] = results["throughput"]
    p99 = results["latency_ms"]["p99"]
    bars = [
        *_compared(runs, "", ", all doing the same"),
        *_compared(runs, ROUGH, ", which decides with less"),
        _ratio("batch-raw", "batch over raw consumption", runs, ["raw"], 0.25),
        Bar("latency", "event to decision, p99 at the fixed rate, ms", p99, "<= 100", p99 <= 100),
        _complete(results),
        Bar("contenders", "contenders that failed", len(results["failed"]), "0", not results["failed"]),
        _bounded(results["endurance"]),
    ]
    return Measured(results, bars, _table(results))


def _compared(runs: dict[str, list[dict[str, Any]]], suffix: str, how: str) -> list[Bar]:
    """Our engines to their peers, who were all given the same work."""
    hand, best = (
        "batch over the hand-written loop, both transactional", "batch over the faster of quixstreams and bytewax"
    )  # fmt: skip
    peers = ["quixstreams" + suffix, "bytewax" + suffix]
    bars = [
        _ratio("batch-hand" + suffix, hand + how, runs, ["hand" + suffix], 0.9),
        _ratio("batch-peers" + suffix, best + how, runs, peers, 2.0),
    ]
    if "flink" in runs:
        bars.append(_ratio("flink-pyflink" + suffix, FLINK_BAR + how, runs, ["pyflink" + suffix], 3.0, "flink"))
    return bars


def _ratio(
    name: str,
    what: str,
    runs: dict[str, list[dict[str, Any]]],
    others: Sequence[str],
    least: float,
    ours: str = "batch",
) -> Bar:
    turns = range(len(runs[ours]))
    there = [o for o in others if o in runs]
    ratios = [runs[ours][i]["per_s"] / max(runs[o][i]["per_s"] for o in there) for i in turns if there]
    value = statistics.median(ratios) if ratios else 0.0
    return Bar(name, what, value, f">= {least:g}", value >= least)


def _complete(results: dict[str, Any]) -> Bar:
    """What was decided of what was recorded: nobody is fast by leaving out."""
    runs = [r for name, some in results["throughput"].items() if name != "raw" for r in some]
    least = min(r["distinct"] / r["events"] for r in runs)
    return Bar("complete", "least share of events with a committed decision", least, ">= 1", least >= 1)


def _bounded(told: list[dict[str, Any]]) -> Bar:
    """Whether memory has stopped growing: what is remembered, ids above all, is bounded by number."""
    grown = told[-1]["mb"] / told[-2]["mb"]
    what = f"memory after {told[-1]['events']:,} events over that after {told[-2]['events']:,}"
    return Bar("memory", what, grown, "<= 1.05", grown <= 1.05)


def _row(name: str, runs: list[dict[str, Any]], guarantee: str) -> str:
    rates = [r["per_s"] for r in runs]
    spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
    return f"| {name} | {_median(runs):,.0f} | {spread} | {_median(runs, 'peak_mb'):,.0f} | {guarantee} |"


def _delayed(name: str, rate: int, told: dict[str, Any]) -> str:
    each = ", ".join(f"{one:.0f}" for one in told.get("p99_each", ()))
    p99 = f"{told['p99']:.0f}" + (f" (median of {each})" if each else "")
    return f"| {name} | {rate:,} | {told['p50']:.0f} | {told['p90']:.0f} | {p99} |"


def _endured(told: list[dict[str, Any]]) -> list[str]:
    parts = zip([{"events": 0, "cpu_s": 0.0}, *told], told, strict=False)
    return [
        f"| {b['events']:,} | {b['mb']:,} | {1e6 * (b['cpu_s'] - a['cpu_s']) / (b['events'] - a['events']):.0f} |"
        for a, b in parts
    ]


def _table(results: dict[str, Any]) -> str:
    guarantees = {c.name: c.guarantee for c in CONTENDERS}
    rows = [_row(name, runs, guarantees.get(name, "")) for name, runs in results["throughput"].items()]
    latency = results["latency_ms"]
    rate = int(latency["rate_per_s"])
    grown = [
        f"| {what.removeprefix('by_')} | {number} | {r['per_s']:,.0f} | {r['peak_mb']:,.0f} |"
        for what in ("by_prototypes", "by_partitions")
        for number, r in results[what].items()
    ]
    return "\n".join([
        f"{results['events']:,} events ({results['more_events']:,} on Flink) of about 1 KB with a 64-value "
        "embedding; 256 prototypes; every event is decoded, deduplicated, tagged, scored, considered for the "
        "window and written as a scenario. Each contender warms up on events before these, waits, and is then "
        "given all at once: a rate is events over the time from then to the last output.", "",
        "Peers do the same (Fleetwheel's stages, called from their loops) or rough work: one set of prototypes, "
        "no calibration, no bounds, no caps (tests/benchmarks/peers/work.py).", "",
        "| | events/s (median) | of all turns | peak MB | outputs |", "|---|---|---|---|---|", *rows, "",
        "Latency is told once its rate has held for 20 s: until then the broker's virtual machine compiles.", "",
        "| event to decision, ms | events/s | p50 | p90 | p99 |", "|---|---|---|---|---|",
        _delayed("batch", rate, latency), _delayed("hand", rate, latency["hand"]),
        *(_delayed("batch", int(less), told) for less, told in latency["by_rate"].items()), "",
        "| batch by | number | events/s | peak MB |", "|---|---|---|---|", *grown, "",
        "| batch's states after events | MB | us of CPU an event |", "|---|---|---|",
        *_endured(results["endurance"]),
        *(f"\nLeft out: {name} ({why})." for name, why in results["left_out"].items()),
        *(f"\nFailed: {name} ({why})." for name, why in results["failed"].items()),
    ])  # fmt: skip
