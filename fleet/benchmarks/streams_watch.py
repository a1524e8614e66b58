"""A contender as a process: started, watched until its outputs are there, ended."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.benchmarks.streams_load import OUT, Ends, ends

QUIET_S = 3.0
"""Outputs that have stopped growing for so long are whole."""


class ContenderFailed(OSError):
    """It ended by itself, or said nothing in time: its last words."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What was seen of the process."""

    peak_mb: float
    """Of resident memory, its children's included."""


def watch(
    command: Sequence[str],
    environment: Mapping[str, str],
    kafka: str,
    prefix: str,
    before: Ends,
    events: int,
    timeout_s: float,
) -> Ran:
    """Run until as many outputs as events are there and no more come. Raises ContenderFailed."""
    peak_mb, quiet_since, last = 0.0, time.monotonic(), -1
    limit = time.monotonic() + timeout_s
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as child:
        try:
            while last < events or time.monotonic() - quiet_since < QUIET_S:
                if child.poll() is not None or time.monotonic() > limit:
                    child.kill()
                    said = child.stderr.read()[-1_500:].decode(errors="replace") if child.stderr else ""
                    raise ContenderFailed(f"{' '.join(command[:2])}: {max(last, 0)} of {events} outputs; {said}")
                peak_mb = max(peak_mb, resident_mb(child.pid))
                number = _grown(kafka, prefix, before)
                quiet_since = quiet_since if number == last else time.monotonic()
                last = number
                time.sleep(0.2)
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
    return Ran(peak_mb)


def _grown(kafka: str, prefix: str, before: Ends) -> int:
    """Scenarios since, markers of transactions among them."""
    return sum(offset - before[p] for p, offset in ends(kafka, prefix).items() if p[0].endswith(OUT[0]))


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
