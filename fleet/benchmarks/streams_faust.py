"""The Faust engine as a contender: `streams_faust.py BOOTSTRAP PREFIX GROUP PROTOTYPES`, until it is ended.

Without selection, which others run inside the same process: Faust's flows meet through topics.
"""

from __future__ import annotations

import sys

from fleet.benchmarks.streams_batch import now
from fleet.contender import work
from streams.engines.faust_app import FaustConfig, run_worker


def main(bootstrap: str, prefix: str, group: str, prototypes: str) -> None:
    """Until SIGTERM."""
    *stages, _selection = work(int(prototypes))
    run_worker(FaustConfig(bootstrap, prefix, group, web_port=0, limit=2000), stages, now=now)


if __name__ == "__main__":
    main(*sys.argv[1:])
