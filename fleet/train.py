"""`fleet model train` and `convert`: a long run, wired to a dataset, a folder and a person."""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any

import typer

from fleet.console import Watcher
from model import checkpoint as checkpoints
from model.checkpoint import Checkpoint
from model.config import BadConfig, TrainingConfig
from model.data import Samples
from model.long_run import Course, Interrupted, Step, Watch, train_long
from model.ranks import Ranks, joined
from model.recipes import recipe
from model.rig import Rig
from model.run_folder import from_checkpoint, to_checkpoint
from model.sharded import share_of
from model.shards import Files, Shard, open_dataset, read_shard
from model.stream_data import Order, Stream
from registry.errors import Retry
from registry.store import open_backend

EXIT_INTERRUPTED = 130
LOGGED_STEPS = 10
"""Every so many steps one line goes to log.jsonl: their mean loss."""
READ_TRIES, READ_WAIT_S = 4, 1.0
"""A shard that cannot be read just now is asked for again, after 1, 2 and 4 s."""
STOPPING = (signal.SIGINT, signal.SIGTERM)


def run_train(
    name: str, url: str, out: Path | None, seed: int, settings: Sequence[str], start: Path | None, *, as_json: bool
) -> int:
    """Trains, or goes on training, to the end; the exit status. Raises what model.long_run.train_long raises."""
    chosen = recipe(name)
    config = overridden(chosen.clone, settings)
    begin = checkpoints.load(start).finished() if start else None
    folder = out or Path("runs") / "train" / name
    with joined() as ranks, Watcher(quiet=not ranks.first) as watch, stopping() as stop:
        files = open_backend(url)
        dataset = open_dataset(files)
        network = begin.network if begin else chosen.network
        course = Course(network, config, dataset.rig, dataset.version, seed, begin)
        lanes = share_of(ranks, config.parts)
        stream = Stream(Order(dataset, config, seed), reader(files, dataset.rig), lanes, network.history)
        report = _Report(folder / "log.jsonl", config, watch, ranks)
        try:
            with stream:
                end = train_long(course, stream.draw, folder / "checkpoints", ranks, report.watching(stop))
        except Interrupted as error:
            watch.say(str(error))
            return EXIT_INTERRUPTED
        finally:
            report.close()
        if end is not None:
            _tell(name, end, folder / "model.safetensors", report, as_json)
    return 0


def run_convert(source: Path, destination: Path, *, as_json: bool) -> None:
    """See `fleet model convert`. Raises BadCheckpoint, OSError."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        digest = checkpoints.save(to_checkpoint(source), destination)
        facts = {"checkpoint": str(destination), "sha256": digest}
    else:
        facts = {"checkpoint": str(from_checkpoint(checkpoints.load(source), destination))}
    typer.echo(json.dumps(facts) if as_json else facts["checkpoint"])


def overridden(config: TrainingConfig, settings: Sequence[str]) -> TrainingConfig:
    """The configuration with FIELD=VALUE set. Raises BadConfig."""
    kinds = {f.name: f.type for f in dataclasses.fields(config) if f.type in _READ}
    changed: dict[str, Any] = {}
    for setting in settings:
        field, _, text = setting.partition("=")
        if field not in kinds:
            raise BadConfig(f"--set {setting!r}: no such field; there are {', '.join(kinds)}")
        try:
            changed[field] = _READ[str(kinds[field])](text)
        except (ValueError, KeyError) as error:
            raise BadConfig(f"--set {setting!r}: {field} is of type {kinds[field]}") from error
    return replace(config, **changed)


_READ: dict[Any, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": {"true": True, "false": False}.__getitem__,
}


def reader(files: Files, rig: Rig) -> Callable[[Shard], Samples]:
    """Reads shards; what fails for now is tried again. Raises BadShard, and Retry when that is of no use."""

    def read(shard: Shard) -> Samples:
        for attempt in range(READ_TRIES - 1):
            try:
                return read_shard(files, shard, rig)
            except Retry:
                time.sleep(READ_WAIT_S * 2**attempt)
        return read_shard(files, shard, rig)

    return read


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Whether a signal asked to stop. The first is heeded after the present step; a second is as it ever was."""
    asked = Event()

    def heed(number: int, frame: FrameType | None) -> None:
        asked.set()
        for each, was in before.items():
            signal.signal(each, was)

    before = {number: signal.signal(number, heed) for number in STOPPING}
    try:
        yield asked.is_set
    finally:
        for number, was in before.items():
            signal.signal(number, was)


@dataclass
class _Report:
    """What becomes of each step: progress for people, log.jsonl for tools. Only the first process speaks."""

    path: Path
    config: TrainingConfig
    watch: Watcher
    ranks: Ranks

    def __post_init__(self) -> None:
        self.begun = time.monotonic()
        self.steps = 0
        self.mean_loss: float | None = None
        self._recent: list[Step] = []
        self._last = self.begun
        if self.ranks.first:
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def watching(self, stop: Callable[[], bool]) -> Watch:
        """As model.long_run wants it."""
        return Watch(self._step, self.watch.say, stop)

    @property
    def samples_per_second(self) -> float:
        """Of this call, over all processes."""
        return self.steps * self.config.batch / max(time.monotonic() - self.begun, 1e-9)

    def close(self) -> None:
        """Write what is left."""
        self._flush()

    def _step(self, step: Step) -> None:
        self.steps += 1
        self._recent.append(step)
        if len(self._recent) >= LOGGED_STEPS or step.done == step.of:
            self._flush()
        self.watch(
            "training", step.done, step.of, f"loss {step.loss:.3f}, {self.samples_per_second:.0f} samples/s"
        )

    def _flush(self) -> None:
        good = [s.loss for s in self._recent if s.applied]
        if not self._recent or not self.ranks.first:
            return
        last, now = self._recent[-1], time.monotonic()
        self.mean_loss = sum(good) / len(good) if good else None
        line = {
            "step": last.done,
            "loss": self.mean_loss,
            "rate": last.rate,
            "gradient": last.gradient if last.applied else None,
            "skipped": len(self._recent) - len(good),
            "samples_per_second": round(len(self._recent) * self.config.batch / max(now - self._last, 1e-9), 1),
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._recent, self._last = [], now


def _tell(name: str, end: Checkpoint, path: Path, report: _Report, as_json: bool) -> None:
    digest = checkpoints.save(end, path)
    facts = {
        "recipe": name,
        "parameters": sum(tensor.numel() for tensor in end.weights.values()),
        "steps": report.config.steps,
        "steps_here": report.steps,
        "processes": report.ranks.world,
        "loss": report.mean_loss,
        "samples_per_second": round(report.samples_per_second, 1) if report.steps else None,
        "model": str(path),
        "sha256": digest,
    }
    text = f"{facts['parameters']:,} parameters, {facts['steps']} steps: {path}"
    typer.echo(json.dumps(facts) if as_json else text)
