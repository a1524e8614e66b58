"""What each process of a sharded run of the training benchmark does; torchrun starts them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from fleet.train import overridden
from model.checkpoint import save
from model.long_run import Course, Interrupted, Step, Watch, train_long
from model.ranks import ALONE, Ranks, joined
from model.recipes import recipe
from model.sharded import share_of
from model.shards import open_dataset, read_shard
from model.stream_data import Order, Stream
from registry.store import open_backend


def run(
    name: str, url: str, folder: Path, settings: list[str], ranks: Ranks = ALONE, stop_at: int = 0
) -> list[float]:
    """Trains a recipe in these processes and returns the end of each step, in s; where it is
    asked to stop after a step, it goes on from there at once. The first process saves the model."""
    config = overridden(recipe(name).clone, settings)
    files = open_backend(url)
    dataset = open_dataset(files)
    history = recipe(name).network.history
    course = Course(recipe(name).network, config, dataset.rig, dataset.version, seed=1)
    ends: list[float] = []

    def step(done: Step) -> None:
        ends.append(time.perf_counter())

    for watch in (Watch(step, stop=lambda: len(ends) + 1 == stop_at), Watch(step)):
        order = Order(dataset, config, course.seed)
        lanes = share_of(ranks, config.parts)
        with Stream(order, lambda shard: read_shard(files, shard, dataset.rig), lanes, history) as stream:
            try:
                end = train_long(course, stream.draw, folder / "checkpoints", ranks, watch)
            except Interrupted:
                continue
        if end is not None:
            save(end, folder / "model.safetensors")
        return ends
    raise AssertionError("a run that nobody stops does not stop")


def main() -> None:
    """RECIPE URL FOLDER STOP_AT FIELD=VALUE...: a whole run and one that is stopped and goes on. Writes both
    models and the first one's ends.json."""
    name, url, folder, stop_at, *settings = sys.argv[1:]
    whole, stopped = Path(folder) / "two", Path(folder) / "stopped"
    with joined() as ranks:
        ends = run(name, url, whole, settings, ranks)
        run(name, url, stopped, settings, ranks, int(stop_at))
        if ranks.first:
            (whole / "ends.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    main()
