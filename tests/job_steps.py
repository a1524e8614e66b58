"""Small steps for tests of the worker. They run in real processes and write to a real store."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from msgspec import Struct

from jobs.step import Work
from registry.errors import Retry


class Out(Struct, frozen=True):
    """What each of these steps makes."""

    value: int
    verdict: str = "pass"
    reasons: list[str] = []
    pid: int = 0


def count(work: Work) -> Out:
    """One more than the sum of what it reads; notes that it ran."""
    note(work, "count")
    work.progress(1, 2, "half")
    return Out(1 + sum(v["value"] for v in work.inputs.values()), pid=os.getpid())


def flaky(work: Work) -> Out:
    """Succeeds the third time."""
    if note(work, "flaky") < 3:
        raise Retry("the disk is busy")
    return Out(7)


def broken(work: Work) -> Out:
    """Never succeeds, unless it is repaired."""
    if (work.scratch / "repaired").exists():
        return Out(9)
    raise ValueError("frame 7 of 'c1' is not finite")


def dies(work: Work) -> Out:
    """Is killed from outside the first time, as by a machine without memory."""
    if note(work, "dies") < 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return Out(3)


def refuses(work: Work) -> Out:
    """A verdict."""
    note(work, "refuses")
    return Out(0, "fail", ["worse in fog"])


def sleeps(work: Work) -> Out:
    """Takes long; says who it is first."""
    (work.scratch / "sleeper").write_text(str(os.getpid()))
    time.sleep(60)
    return Out(0)


def note(work: Work, name: str) -> int:
    """Write down that a step ran; how often it has."""
    path: Path = work.scratch / f"{name}.notes"
    with path.open("a") as file:
        file.write("x")
    return len(path.read_text())
