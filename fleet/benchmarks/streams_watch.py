"""A contender as a process: started, watched until its outputs are there, ended."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.benchmarks.streams_load import Gate

QUIET_S, WARM_QUIET_S = 3.0, 1.0
"""Outputs that have stopped growing for so long are whole, or whoever writes them waits for more."""


class ContenderFailed(OSError):
    """It ended by itself, or said nothing in time: its last words."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What was seen of the process."""

    peak_mb: float
    """Of resident memory, its children's included."""
    opened_ms: int
    """When the gate was opened."""


def watch(command: Sequence[str], environment: Mapping[str, str], gate: Gate, timeout_s: float) -> Ran:
    """Run until the first outputs are there and no more come, open the gate, then until as many outputs as events
    are there and no more come. Raises ContenderFailed."""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as child:
        watched = _Watched(child, command, gate, time.monotonic() + timeout_s)
        try:
            watched.wait(gate.first, WARM_QUIET_S)
            opened_ms = gate.open()
            watched.wait(gate.records, QUIET_S)
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
    return Ran(watched.peak_mb, opened_ms)


class _Watched:
    """A process, and what it has written."""

    def __init__(self, child: subprocess.Popen[bytes], command: Sequence[str], gate: Gate, limit: float) -> None:
        self._child, self._command, self._gate, self._limit = child, command, gate, limit
        self.peak_mb = 0.0

    def wait(self, outputs: int, quiet_s: float) -> None:
        """Until so many are there and no more have come for a while. Raises ContenderFailed."""
        quiet_since, last = time.monotonic(), -1
        while last < outputs or time.monotonic() - quiet_since < quiet_s:
            if self._child.poll() is not None or time.monotonic() > self._limit:
                raise ContenderFailed(
                    f"{' '.join(self._command[:2])}: {max(last, 0)} of {outputs} outputs; {self._last_words()}"
                )
            self.peak_mb = max(self.peak_mb, resident_mb(self._child.pid))
            number = self._gate.written()
            quiet_since = quiet_since if number == last else time.monotonic()
            last = number
            time.sleep(0.2)

    def _last_words(self) -> str:
        self._child.kill()
        return self._child.stderr.read()[-1_500:].decode(errors="replace") if self._child.stderr else ""


def resident_mb(pid: int) -> float:
    """Peak resident memory of a process and its children, MB; 0 where the system does not tell."""
    total = 0.0
    for one in (pid, *_children(pid)):
        try:
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    return total


def _children(pid: int) -> list[int]:
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
