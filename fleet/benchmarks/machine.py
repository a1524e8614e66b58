"""What a benchmark ran on, and how much of it there was: a shared machine varies from minute to minute."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
STOLEN_AT = 7
"""Among the columns of its first line (proc_stat(5)): what a hypervisor gave to other guests."""
COLUMNS = 8
"""The later ones are parts of the first two."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine from one instant on."""

    begun_s: float
    ticks: tuple[int, int]
    """Of all cores, and those stolen among them."""

    def told(self) -> str:
        """In words, with the time since and the share of it that others had. What the system does not tell is left
        out."""
        words = [
            f"{os.cpu_count()} cores {platform.machine()}",
            platform.system(),
            f"Python {platform.python_version()}",
            f"{max(round((time.monotonic() - self.begun_s) / 60), 1)} min",
        ]
        passed, stolen = (now - then for now, then in zip(_ticks(), self.ticks, strict=True))
        if passed:
            words.append(f"{stolen / passed:.0%} of its time stolen by other guests")
        return ", ".join(words)


def this_machine() -> Machine:
    """As it is from now on."""
    return Machine(time.monotonic(), _ticks())


def _ticks() -> tuple[int, int]:
    try:
        columns = [int(word) for word in STAT.read_text().splitlines()[0].split()[1 : COLUMNS + 1]]
        return sum(columns), columns[STOLEN_AT]
    except (OSError, ValueError, IndexError):
        return 0, 0
