"""The processes that train one model together, as torchrun starts them; or this one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

Value = TypeVar("Value")
STARTED_BY_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class BadRanks(ValueError):
    """Processes that cannot work together: says what is wrong."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among the others. Every method must be called by all of them, in the same order; each blocks
    until all have."""

    rank: int = 0
    world: int = 1
    """How many there are."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    mesh: DeviceMesh | None = None
    """Over which parameters are sharded; None: they are whole in this one process."""

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over all processes."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def gather(self, value: Value) -> list[Value]:
        """What each process gave, by rank."""
        if self.world == 1:
            return [value]
        values: list[Value | None] = [None] * self.world
        dist.all_gather_object(values, value)
        return [v for v in values if v is not None]


ALONE = Ranks()


@contextmanager
def joined(environment: Mapping[str, str] = os.environ) -> Iterator[Ranks]:
    """The processes that torchrun started, each with a GPU of its own where there are some; without torchrun this
    one. Raises BadRanks for an environment that is half torchrun's."""
    given = [name for name in STARTED_BY_TORCHRUN if name in environment]
    if given and len(given) < len(STARTED_BY_TORCHRUN):
        absent = set(STARTED_BY_TORCHRUN) - set(given)
        raise BadRanks(
            f"the environment has {given} but not {sorted(absent)}: start it with torchrun, or unset them"
        )
    gpu = torch.cuda.is_available()
    if not given and not gpu:
        yield ALONE
        return
    rank, local, world = (_number(environment, name) for name in STARTED_BY_TORCHRUN[:3])
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu and local >= torch.cuda.device_count():
        raise BadRanks(f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}")
    if gpu:
        torch.cuda.set_device(device)
    # Alone there is nobody to meet at an address: a group of one keeps its own store.
    with grouped(rank, world, device, store=None if given else dist.HashStore()) as ranks:
        yield ranks


@contextmanager
def grouped(rank: int, world: int, device: torch.device, store: dist.Store | None) -> Iterator[Ranks]:
    """A group of processes over whose devices parameters are sharded; without a store they meet at torchrun's
    address."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world)
    try:
        yield Ranks(rank, world, device, init_device_mesh(device.type, (world,)))
    finally:
        dist.destroy_process_group()


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "1" if name == "WORLD_SIZE" else "0")
    if not text.isdecimal():
        raise BadRanks(f"{name} is {text!r}, not a whole number: start it with torchrun")
    return int(text)
