"""The batch engine in three processes: `streams_shared.py BOOTSTRAP PREFIX GROUP PROTOTYPES`, until it is ended.

Two share the partitions (dedup, tagging, novelty), the third selects from what they tell, and from that alone.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from fleet.benchmarks.streams_load import pass_over

SHARING = 2
ONE = Path(__file__).with_name("streams_batch.py")


def main(bootstrap: str, prefix: str, group: str, prototypes: str) -> None:
    """Until SIGTERM, or until one of them ends; then none is left."""
    # What other contenders told of the same recording is not this one's to select from.
    pass_over(bootstrap, prefix, f"{prefix}{group}-selection")
    command = [sys.executable, "-P", str(ONE), bootstrap, prefix, group, prototypes]
    parts = ["dedup,tagging,novelty"] * SHARING + ["selection"]
    children = [subprocess.Popen([*command, stages]) for stages in parts]

    def end(*_: object) -> None:
        for child in children:
            child.terminate()

    signal.signal(signal.SIGTERM, end)
    status = children[0].wait()
    end()
    sys.exit(max(abs(status), *(abs(child.wait()) for child in children)))


if __name__ == "__main__":
    main(*sys.argv[1:])
