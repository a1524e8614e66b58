"""`fleet` on a machine whose clock is off: `python -m fleet.benchmarks.chaos_clock SECONDS WORDS...`.

Python's clocks of the day are moved before anything of ours is imported; clocks that only count go on as they are,
as they do on such a machine."""

from __future__ import annotations

import sys
import time


def main() -> None:
    """The first word is the shift in seconds; the rest is the command line's."""
    shift_s = float(sys.argv.pop(1))
    true_ns, true_s = time.time_ns, time.time
    time.time_ns = lambda: true_ns() + round(shift_s * 1e9)
    time.time = lambda: true_s() + shift_s
    from fleet.cli import main as fleet  # noqa: PLC0415  # the clock comes first

    fleet()


if __name__ == "__main__":
    main()
