"""The Flink engine as a contender: `flink_contender.py BOOTSTRAP PREFIX GROUP PROTOTYPES [TASK_MANAGERS [SLOTS]]`,
until it is ended. 0 task managers: a cluster within the process. For the Flink environment's Python."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from fleet.contender import work
from fleet.flink import FlinkEnvironment
from fleet.flink_cluster import FlinkCluster
from registry.store import Store
from streams.engines.flink.config import FlinkConfig
from streams.stage import AnyStage

STAGES = ("dedup", "tagging", "novelty", "selection")
PROTOTYPES = "FLEET_BENCHMARK_PROTOTYPES"
"""How the tasks learn it: they inherit the environment."""


def stages(names: Sequence[str], _store: Store) -> list[AnyStage]:
    """As the batch engine's contender has them."""
    return [s for s in work(int(os.environ[PROTOTYPES])) if s.name in names]


def main(
    bootstrap: str, prefix: str, group: str, prototypes: str, task_managers: str = "0", slots: str = "1"
) -> None:
    """Until SIGTERM, also while all is only starting."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with TemporaryDirectory(prefix="flink-") as name, ExitStack() as ends:
        folder, environment, workers = Path(name), FlinkEnvironment().check(), int(task_managers)
        os.environ[PROTOTYPES] = prototypes
        cluster = FlinkCluster(folder / "cluster", workers=workers, slots=int(slots))
        if workers:
            ends.enter_context(cluster)
        os.environ.update(environment.variables(folder / "logs"))
        config = FlinkConfig(
            kafka=bootstrap,
            stages=STAGES,
            checkpoints=(folder / "checkpoints").as_uri(),
            jars=environment.jars,
            python=str(environment.python),
            make="tests.benchmarks.flink_contender:stages",
            store=str(folder / "store"),
            group=group,
            prefix=prefix,
            parallelism=max(workers, 1) * int(slots),
            master=cluster.master if workers else "",
        )
        # Flink is of another environment, and reads its own while it is imported.
        from streams.engines.flink_job import run

        run([config])


if __name__ == "__main__":
    main(*sys.argv[1:])
