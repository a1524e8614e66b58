"""Workers of a trial: processes of `fleet streams run`, which are killed, stopped and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from rich.text import Text

from fleet.benchmarks.chaos_load import DATA_PLANE, WHOLE, fed_to
from fleet.benchmarks.chaos_wire import Group
from fleet.kafka import free_port
from streams.engines.flink.config import plan
from streams.topology import topics_read

ROOT = Path(__file__).resolve().parents[2]
GROUP = "chaos"
_CLOCK = "fleet.benchmarks.chaos_clock"
_OWN_STORE = "store"


def _set(**settings: object) -> tuple[str, ...]:
    """Two underscores stand for a dot."""
    named = (f"{name.replace('__', '.')}={value}" for name, value in settings.items())
    return tuple(word for setting in named for word in ("--set", setting))


BUG = "with status 70"
BESIDE = "went on beside"
"""In the last words of workers: those that no fault excuses."""


@dataclass(frozen=True, slots=True)
class Setup:
    """An engine, how it is started and what it promises."""

    name: str
    engine: str
    words: tuple[str, ...]
    """Small batches and short patience, so that a kill finds work begun. FOLDER stands for the trial's."""
    groups: Callable[[Sequence[str]], list[Group]]
    recorded: tuple[str, ...] = _set(now="records")
    """Lets time pass as the records say."""
    stages: tuple[str, ...] = WHOLE
    members: tuple[str, ...] = ("a",)
    exactly_once: bool = False
    silence_s: float = 8.0
    """A worker that says nothing for so long has lost its place."""
    at_once_s: float = 0.0
    """What it decides in so long becomes visible at one instant."""
    tells: bool = False
    """Its workers tell by a web view how far they are: commits may stay behind. PORT stands for a free one."""


def _one_group(stages: Sequence[str]) -> list[Group]:
    return [(GROUP, topics_read(tuple(stages)))]


def _fused_group(stages: Sequence[str]) -> list[Group]:
    """What the process itself writes it does not read back."""
    return [(GROUP, tuple(fed_to(stages)))]


def _flink_groups(stages: Sequence[str]) -> list[Group]:
    return [(f"{GROUP}-{g.name}", g.topics) for g in plan(tuple(stages)) if g.topics]


_BATCH = _set(limit=40, snapshot_records=300)
_SHARED = (*_BATCH, *_set(session__timeout__ms=6000, heartbeat__interval__ms=1000))
_INLINE = _set(limit=40, state="FOLDER/state")
_FAUST = _set(limit=40, web__port="PORT", session_s=6, period_s=0.2, commit_s=0.1)
_FLINK = _set(checkpoint_ms=500, batch_ms=20, batch_records=40)
_TWO = ("a", "b")
SETUPS: dict[str, Setup] = {
    s.name: s
    for s in (
        # One process for the fleet keeps its place by its transactions, which the broker gives up after 15 s.
        Setup("batch", "batch", _BATCH, _fused_group, exactly_once=True, silence_s=17.0),
        Setup("batch x2", "batch", _SHARED, _fused_group, stages=DATA_PLANE, members=_TWO, exactly_once=True),
        # What it reads back of its own carries the machine's time: a recording's windows are not told apart.
        Setup("inline", "inline", _INLINE, _one_group, stages=DATA_PLANE),
        Setup("faust", "faust", _FAUST, _one_group, tells=True),
        Setup("faust x2", "faust", _FAUST, _one_group, members=_TWO, tells=True),
        Setup(
            "flink",
            "flink",
            (*_FLINK, "--checkpoints", "FOLDER/checkpoints", "--restore", "latest"),
            _flink_groups,
            recorded=_set(time="recorded"),
            exactly_once=True,
            at_once_s=0.5,
        ),
    )
}


@dataclass(slots=True)
class Workers:
    """The processes of one trial. Whoever ends unasked is started again, as a service manager would do it."""

    setup: Setup
    stages: tuple[str, ...]
    bootstrap: str
    prefix: str
    folder: Path
    recorded: bool = True
    """False: time is the machine's."""
    ended: list[str] = field(default_factory=list)
    """Last words of those that ended by themselves."""
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _shift_s: dict[str, float] = field(default_factory=dict)
    _port: dict[str, int] = field(default_factory=dict)

    @property
    def members(self) -> list[str]:
        """Those that run."""
        return sorted(self._running)

    def start(self, member: str, shift_s: float = 0.0) -> None:
        """Its clock is off by so much."""
        self._shift_s[member], self._port[member] = shift_s, free_port()
        clock = ["-m", _CLOCK, str(shift_s)] if shift_s else ["-c", "from fleet.cli import main; main()"]
        command = [sys.executable, *clock, "streams", "run", "--engine", self.setup.engine, *self._words(member)]
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with self._log(member).open("ab") as log:
            self._running[member] = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, member: str) -> None:
        """As the end of its machine would: it and all that it has started, at once."""
        process = self._running.pop(member)
        _signal(process.pid, signal.SIGKILL)
        process.wait()

    def suspend(self, member: str) -> None:
        """It does nothing more, and does not know it."""
        _signal(self._running[member].pid, signal.SIGSTOP)

    def resume(self, member: str) -> None:
        """It goes on as if no time had passed."""
        _signal(self._running[member].pid, signal.SIGCONT)

    def tend(self) -> None:
        """Start again who ended by himself."""
        for member, process in list(self._running.items()):
            if process.poll() is not None:
                self.ended.append(f"{member} with status {process.returncode}: {self._last_words(member)}")
                self.start(member, self._shift_s[member])

    def forget(self, member: str, timeout_s: float) -> bool:
        """Whether it ended by itself in time; it is not started again, and killed where it did not."""
        process = self._running.pop(member)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _signal(process.pid, signal.SIGKILL)
            process.wait()
            return False
        return True

    def stop(self) -> None:
        """All of them, in order where they still can."""
        for process in self._running.values():
            process.terminate()
        for member in self.members:
            try:
                self._running[member].wait(20)
                del self._running[member]
            except subprocess.TimeoutExpired:
                self.kill(member)

    def positions(self) -> dict[tuple[str, int], int]:
        """Where the workers go on, as they tell; nothing while one of them cannot."""
        found: dict[tuple[str, int], int] = {}
        for member in self._running:
            try:
                with urlopen(f"http://127.0.0.1:{self._port[member]}/streams/", timeout=5) as answer:
                    flows = json.load(answer)
            except (OSError, ValueError):
                return {}
            for name, offset in _told(flows):
                topic, _, partition = name.rpartition("/")
                found[topic, int(partition)] = offset
        return found

    def _words(self, member: str) -> list[str]:
        words = ["--kafka", self.bootstrap, "--prefix", self.prefix, "--group", GROUP, "--instance", member]
        words += ["--stages", ",".join(self.stages), "--store", str(self.folder / _OWN_STORE)]
        places = {"FOLDER": str(self.folder), "PORT": str(self._port[member])}
        words += [_filled(w, places) for w in self.setup.words]
        return [*words, *(self.setup.recorded if self.recorded else ())]

    def _log(self, member: str) -> Path:
        return self.folder / f"{member}.log"

    def _last_words(self, member: str) -> str:
        return last_words(self._log(member).read_text(errors="replace"))


def last_words(log: str) -> str:
    """The last line that says something; what tells a terminal to show its cursor does not."""
    lines = Text.from_ansi(log).plain.strip().splitlines()
    return (lines or ["nothing was said"])[-1][-300:]


def _told(flows: dict[str, Any]) -> Iterator[tuple[str, int]]:
    return (
        place for flow in flows.values() for lane in flow["lanes"].values() for place in lane["positions"].items()
    )


def _filled(word: str, places: Mapping[str, str]) -> str:
    for name, value in places.items():
        word = word.replace(name, value)
    return word


def _signal(pid: int, number: signal.Signals) -> None:
    """To a process and all below it; whoever ended meanwhile needs none."""
    for one in (pid, *_below(pid)):
        try:
            os.kill(one, number)
        except ProcessLookupError:
            continue


def _below(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in thread.read_text().split()]
        except OSError:
            continue
        found += [p for child in children for p in (child, *_below(child))]
    return found
