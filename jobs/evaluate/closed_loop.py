"""Driving a model on held-out worlds, in shards that are kept one by one and shared by several processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from edge.runtimes.onnx import OnnxPolicy
from jobs.context import Budget
from jobs.documents import Tally
from jobs.launchers.local import call_all
from jobs.record import put_document
from jobs.step import Json, Progress
from model.policy import Observation, Plan, Policy
from model.rig import THREE_CAMERAS
from monitoring.disengagements import dispersion_index
from registry.errors import Missing
from registry.store import Store
from simulation.episode import Outcome, drive
from simulation.scenarios import BASE, CONDITIONS, scenes
from simulation.world import World
from streams.contracts.ids import digest


class Shard(Struct, frozen=True):
    """Some vehicles of one condition, driven by one model."""

    graph: str
    """sha256 of the ONNX file."""
    condition: str
    first: int
    vehicles: int
    seconds: float
    seed: int
    code: str

    @property
    def document(self) -> str:
        """Where the store keeps its result: found again by whoever asks for the same driving."""
        parts = (
            self.graph,
            self.condition,
            str(self.first),
            str(self.vehicles),
            str(self.seconds),
            str(self.seed),
        )
        return f"evaluations/{digest('shard', self.code, *parts)}"


class ShardResult(Struct, frozen=True):
    """By vehicle: engaged driving, and disengagements by cause."""

    km: list[float]
    hours: list[float]
    causes: list[dict[str, int]]


class ShardTask(Struct, frozen=True):
    """What one process is asked to drive."""

    store: str
    scratch: str
    shards: list[Shard]


def plan_shards(graph: str, budget: Budget, code: str) -> list[Shard]:
    """All conditions, base with its own number of vehicles, cut into shards."""
    shards = []
    for name in CONDITIONS:
        vehicles = round(budget.vehicles * (budget.base_factor if name == BASE else 1))
        for first in range(0, vehicles, budget.shard_vehicles):
            count = min(budget.shard_vehicles, vehicles - first)
            shards.append(Shard(graph, name, first, count, budget.seconds, budget.seed, code))
    return shards


def drive_all(
    store_url: str, shards: Sequence[Shard], scratch: Path, processes: int, progress: Progress
) -> dict[Shard, ShardResult]:
    """Drive what was not driven before, in several processes; the results of all shards. Raises StepRetry and
    StepFailed."""
    store = Store(store_url)
    open_shards = [s for s in dict.fromkeys(shards) if _kept(store, s) is None]
    done = len(set(shards)) - len(open_shards)

    def count(_: int, __: int, what: str) -> None:
        nonlocal done
        done += 1
        progress(done, len(set(shards)), what)

    lots = [open_shards[i::processes] for i in range(processes)]
    tasks = [ShardTask(store_url, str(scratch), lot) for lot in lots if lot]
    call_all(
        [("jobs.evaluate.closed_loop:drive_shards", t, scratch / f"drive-{i}.log") for i, t in enumerate(tasks)],
        count,
    )
    return {s: _required(store, s) for s in shards}


def drive_shards(argument: bytes, progress: Progress) -> Json:
    """What a process does: drive its shards one by one, keeping each result as it comes."""
    task = msgspec.json.decode(argument, type=ShardTask)
    store = Store(task.store)
    for shard in task.shards:
        path = Path(task.scratch) / f"{shard.graph}.onnx"
        if not path.exists():
            store.get_file(shard.graph, path)
        put_document(store, shard.document, drive_shard(OnnxPolicy(path, THREE_CAMERAS), shard))
        progress(1, 1, shard.condition)
    return {}


def drive_shard(policy: Policy, shard: Shard) -> ShardResult:
    """Drive one shard here."""
    chosen = scenes({shard.condition: 1.0}, shard.first + shard.vehicles, shard.seed, "heldout")[shard.first :]
    metres, seconds = np.zeros(shard.vehicles), np.zeros(shard.vehicles)

    def add(world: World, observation: Observation, plan: Plan, outcome: Outcome) -> None:
        metres[:] += outcome.metres
        seconds[:] += outcome.seconds

    result = drive(policy, chosen, THREE_CAMERAS, shard.seconds, shard.seed, on_frame=add, batch=shard.vehicles)
    causes: list[Counter[str]] = [Counter() for _ in chosen]
    for event in result.disengagements:
        causes[event.vehicle][event.cause] += 1
    return ShardResult((metres / 1e3).tolist(), (seconds / 3600).tolist(), [dict(c) for c in causes])


def tally(results: Iterable[ShardResult]) -> Tally:
    """The sum over vehicles, with how much they differ."""
    km = [x for r in results for x in r.km]
    hours = [x for r in results for x in r.hours]
    causes = [x for r in results for x in r.causes]
    total: Counter[str] = Counter()
    for each in causes:
        total.update(each)
    return Tally(
        km=sum(km),
        hours=sum(hours),
        causes=dict(sorted(total.items())),
        dispersion=dispersion_index([sum(c.values()) for c in causes], km),
        vehicles=len(km),
    )


def tallies(results: Mapping[Shard, ShardResult], graph: str) -> dict[str, Tally]:
    """By condition, for one model."""
    own = {s: r for s, r in results.items() if s.graph == graph}
    names = dict.fromkeys(s.condition for s in own)
    return {n: tally([r for s, r in own.items() if s.condition == n]) for n in names}


def _kept(store: Store, shard: Shard) -> ShardResult | None:
    try:
        return msgspec.convert(store.read(shard.document).value, ShardResult)
    except Missing:
        return None


def _required(store: Store, shard: Shard) -> ShardResult:
    found = _kept(store, shard)
    if found is None:
        raise Missing(f"the result of {shard} was not kept")
    return found
