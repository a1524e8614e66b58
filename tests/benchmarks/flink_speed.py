"""The Flink engine beside PyFlink that takes events one by one, in two slots beside one, and on two task managers
beside one: `python -m tests.benchmarks.flink_speed [EVENTS [TURNS [NAME...]]]` prints a line for each run, then
the ratios.

Longer than what `fleet benchmark streams` plays, and told from the second half of the outputs alone: a JVM
compiles while it runs, and both would be judged by their start. CPU time is told too, that of the whole process
tree: on a busy machine the wall clock tells about its neighbours.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import NamedTuple

import psutil

from fleet.benchmarks.streams import CONTENDERS, ROOT
from fleet.benchmarks.streams_load import Load, ends, feed, prepare, read_outputs
from fleet.kafka import NativeKafka

PATIENCE_S = 300.0
PROTOTYPES = 256
SETTINGS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "flink": ("flink", ()),
    "pyflink": ("pyflink", ()),
    "pyflink-rough": ("pyflink-rough", ()),
    "flink in 2 slots": ("flink", ("0", "2")),
    "flink on 1": ("flink", ("1",)),
    "flink on 2": ("flink", ("2",)),
}
"""Contender, and what its script gets beside what all get: for flink the number of task managers and that
of the slots of each."""
RATIOS = (
    ("flink", "pyflink"),
    ("flink", "pyflink-rough"),
    ("flink in 2 slots", "flink"),
    ("flink on 2", "flink on 1"),
)


class Look(NamedTuple):
    """What stood in the topic at an instant, and what it had cost."""

    time_s: float
    outputs: int
    cpu_s: float


class Speed(NamedTuple):
    """Over the second half of the outputs."""

    per_s: float
    cpu_us: float
    """For each event."""


@dataclass(slots=True)
class Bench:
    """One broker, one recording."""

    kafka: str
    events: int
    found: dict[str, list[Speed]] = field(default_factory=dict)

    def run(self, name: str, turn: int) -> Speed:
        """One run; every event must have its scenario, once."""
        contender = next(c for c in CONTENDERS if c.name == RUNS[name][0])
        before = ends(self.kafka, "")
        command = contender.command(self.kafka, "", f"{name.replace(' ', '-')}-{turn}", PROTOTYPES)
        with TemporaryFile("w+") as log:
            child = subprocess.Popen(
                [*command, *RUNS[name][1]],
                env=os.environ | SETTINGS,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
            try:
                speed = _speed(self._watch(child, sum(before.values())), self.events)
            except TimeoutError as error:
                log.seek(0)
                raise SystemExit(f"{name}: {error}; {log.read()[-1500:]}") from error
            finally:
                child.terminate()
                child.wait(60)
        told = read_outputs(self.kafka, "", before)
        if (told.scenarios, told.distinct) != (self.events, self.events):
            raise SystemExit(f"{name}: {told.scenarios} scenarios of {told.distinct} events, not {self.events}")
        return speed

    def _watch(self, child: subprocess.Popen[bytes], before: int) -> list[Look]:
        """Until all is written and nothing more comes for three seconds, a look a quarter of a second. Raises
        TimeoutError where nothing comes for much longer."""
        looks = [Look(time.monotonic(), 0, 0.0)]
        last = looks[0].time_s
        while looks[-1].outputs < self.events or looks[-1].time_s - last < 3:
            number = sum(ends(self.kafka, "").values()) - before
            if number > looks[-1].outputs:
                last = time.monotonic()
            looks.append(Look(time.monotonic(), number, _cpu_s(child.pid)))
            if child.poll() is not None or looks[-1].time_s - last > PATIENCE_S:
                raise TimeoutError(f"{number} of {self.events} outputs")
            time.sleep(0.25)
        return looks


def _speed(looks: list[Look], events: int) -> Speed:
    """From half to all; markers of transactions are too few to count."""
    half = next(look for look in looks if look.outputs >= events / 2)
    whole = next(look for look in looks if look.outputs >= events)
    outputs = whole.outputs - half.outputs
    return Speed(outputs / (whole.time_s - half.time_s), (whole.cpu_s - half.cpu_s) / outputs * 1e6)


def _cpu_s(pid: int) -> float:
    total = 0.0
    try:
        for process in (top := psutil.Process(pid), *top.children(recursive=True)):
            times = process.cpu_times()
            total += times.user + times.system
    except psutil.NoSuchProcess:
        pass
    return total


def _ratio(ours: list[Speed], others: list[Speed], of: str) -> float:
    """Median over the turns: a busy machine slows neighbours in time alike."""
    return float(statistics.median(getattr(a, of) / getattr(b, of) for a, b in zip(ours, others, strict=True)))


def main(events: str = "200000", turns: str = "3", *names: str) -> None:
    """Raises SystemExit where a run fails."""
    broker = NativeKafka(heap_mb=768).prepare()
    try:
        broker.start()
        prepare(broker.bootstrap, "")
        feed(broker.bootstrap, "", Load(11, int(events)))
        bench = Bench(broker.bootstrap, int(events))
        for turn in range(int(turns)):
            for name in names or RUNS:
                speed = bench.run(name, turn)
                bench.found.setdefault(name, []).append(speed)
                _say(f"turn {turn + 1}: {name}: {speed.per_s:,.0f} events/s, {speed.cpu_us:.0f} us CPU an event")
    finally:
        broker.remove()
    for ours, other in RATIOS:
        if ours in bench.found and other in bench.found:
            wall = _ratio(bench.found[ours], bench.found[other], "per_s")
            cpu = _ratio(bench.found[other], bench.found[ours], "cpu_us")
            _say(f"{ours} over {other}: {wall:.2f} by the wall clock, {cpu:.2f} by CPU time")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
