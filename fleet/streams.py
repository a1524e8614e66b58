"""`fleet streams`: run stages on an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Annotated, Protocol, TypeVar

import typer

from fleet.operations import Broker, Prefix
from streams.engines.round import Counts
from streams.topology import BY_STAGE

ENGINES: dict[str, str] = {
    "batch": "fleet.run_batch:run",
    "faust": "fleet.run_faust:run",
    "flink": "fleet.run_flink:run",
    "inline": "fleet.run_inline:run",
}
"""Engine -> "module:function"; the function takes RunOptions and returns when it was stopped. Modules are imported
only when their engine is asked for: each has its own libraries."""

app = typer.Typer(
    name="streams", help="Run the stages of the streams.", no_args_is_help=True, rich_markup_mode=None
)


Number = TypeVar("Number", int, float, str)


class UnknownEngine(ValueError):
    """No engine of that name, or its libraries are not installed."""


class BadOption(ValueError):
    """An option of `streams run` that says nothing usable: names it."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What `fleet streams run` was asked for."""

    engine: str
    stages: tuple[str, ...]
    kafka: str
    prefix: str
    group: str
    instance: str
    store: str
    settings: dict[str, str]
    """Of the engine or its client: NAME=VALUE."""
    idle_s: float | None
    """Stop after so long without a record; None: run until stopped."""
    master: str = ""
    """flink: a session cluster; empty: a cluster inside the process."""
    parallelism: int = 1
    checkpoints: str = "runs/flink/checkpoints"
    restore: str = ""
    """flink: "latest", a checkpoint, or empty."""
    of_stages: dict[str, str] = field(default_factory=dict)
    """Settings of stages: STAGE.FIELD=VALUE."""


@app.command(
    epilog="Examples:  fleet streams run --kafka 127.0.0.1:9092  |  "
    "fleet streams run --engine batch --stages dedup,tagging,novelty --kafka HOST:9092 --instance a"
)
def run(
    kafka: Broker,
    engine: Annotated[str, typer.Option(help=f"One of: {', '.join(ENGINES)}.")] = "batch",
    stages: Annotated[
        str, typer.Option(help="Stages, comma-separated, as in streams/topology.py.")
    ] = "dedup,tagging,novelty,selection",
    prefix: Prefix = "",
    group: Annotated[str, typer.Option(help="Consumer group; what it has done is kept under this name.")] = "",
    instance: Annotated[
        str, typer.Option(help="Name of this process among its group's: it takes its place back after a restart.")
    ] = "",
    store: Annotated[str, typer.Option(help="Folder or URL of the clip store (stage archive).")] = "runs/store",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of the client or engine, or of a stage: selection.hour_bytes=2000000000.",
        ),
    ] = None,
    idle: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Stop after so long without a record.")
    ] = None,
    master: Annotated[str, typer.Option(metavar="HOST:PORT", help="flink: submit to this session cluster.")] = "",
    parallelism: Annotated[int, typer.Option(min=1, max=128, help="flink: subtasks of each stage.")] = 1,
    checkpoints: Annotated[
        str, typer.Option(metavar="URI", help="flink: folder or URL of the checkpoints.")
    ] = "runs/flink/checkpoints",
    restore: Annotated[
        str, typer.Option(metavar="latest|PATH", help="flink: go on from the newest checkpoint, or from this one.")
    ] = "",
) -> None:
    """Run stages on an engine until Ctrl-C or SIGTERM.

    Stages of scope "partition" (dedup, tagging, novelty) alone: start as many processes as there are partitions,
    they share the work. With a stage of scope "fleet" (selection and what follows): one process does all; a second
    one takes its place.
    """
    given = dict(_setting(s) for s in settings or ())
    of_stages = {name: value for name, value in given.items() if name.partition(".")[0] in BY_STAGE}
    of_flink = {"--master": master, "--restore": restore, "--parallelism": parallelism > 1}
    if engine != "flink" and (alone := [option for option, value in of_flink.items() if value]):
        raise BadOption(f"{alone[0]}: only --engine flink takes it")
    names = tuple(s.strip() for s in stages.split(",") if s.strip())
    if not names:
        raise BadOption(f"--stages names none; there are {', '.join(BY_STAGE)}")
    options = RunOptions(
        engine=engine,
        stages=names,
        kafka=kafka,
        prefix=prefix,
        group=group or f"fleetwheel-{'-'.join(names)}",
        instance=instance,
        store=store,
        settings={name: value for name, value in given.items() if name not in of_stages},
        of_stages=of_stages,
        idle_s=idle,
        master=master,
        parallelism=parallelism,
        checkpoints=checkpoints,
        restore=restore,
    )
    runner(engine)(options)


def runner(engine: str) -> Callable[[RunOptions], None]:
    """The function that runs an engine. Raises UnknownEngine."""
    if engine not in ENGINES:
        raise UnknownEngine(f"no engine {engine!r}; there are: {', '.join(ENGINES)}")
    module, _, function = ENGINES[engine].partition(":")
    try:
        found: Callable[[RunOptions], None] = getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        raise UnknownEngine(f"engine {engine!r} needs {error.name}, which is not installed here") from error
    return found


class Counting(Protocol):
    """An engine that tells what it did."""

    taken: int
    rejected: int

    @property
    def counts(self) -> dict[str, Counts]:
        """By stage."""


@dataclass(slots=True)
class Tally:
    """What engines did one after the other. Work that was taken back and repeated counts twice."""

    taken: int = 0
    rejected: int = 0
    counts: dict[str, Counts] = field(default_factory=dict)

    def add(self, engine: Counting) -> Tally:
        """And what this one did."""
        self.taken += engine.taken
        self.rejected += engine.rejected
        for name, more in engine.counts.items():
            count = self.counts.setdefault(name, Counts())
            count.taken += more.taken
            count.emitted += more.emitted
            count.refused += more.refused
        return self

    def __str__(self) -> str:
        """In words, for the log."""
        lost = f", {self.rejected} of them rejected (dead letters)" if self.rejected else ""
        counts = [f"{n} {c.taken} -> {c.emitted} ({c.refused} refused)" for n, c in self.counts.items()]
        return f"{self.taken} records{lost}: {', '.join(counts)}"


def number(name: str, text: str, kind: Callable[[str], Number]) -> Number:
    """The value of --set NAME=TEXT. Raises BadOption."""
    try:
        return kind(text)
    except ValueError as error:
        raise BadOption(f"--set {name}={text}: give a number") from error


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise BadOption(f"--set {text!r}: give NAME=VALUE, such as compression.type=lz4")
    return name.strip(), value
