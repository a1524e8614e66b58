"""A stage: what every engine runs. Values in, values out; no clock, no file, no broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from streams.contracts.codec import Message

State = TypeVar("State")


class Emit(Struct, frozen=True, gc=False):
    """A message for a stream: a topic of topics.py or an edge inside the process (topology.py)."""

    stream: str
    message: Message


def at_least(config: object, least: int, *names: str) -> None:
    """Raises ValueError where one of these fields of a stage's configuration is below `least`."""
    for name in names:
        if (given := getattr(config, name)) < least:
            raise ValueError(f"{name} is {given}: give {least} or more")


@dataclass(frozen=True, slots=True)
class Refused:
    """A message the stage cannot accept; the engine writes it to the dead letters."""

    message: Message
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that must lie in the store before the emits are published; their sha256 is their name."""

    sha256: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Outcome(Generic[State]):
    """The state after the batch, what follows from it, and what was refused.

    An engine stores `contents`, then publishes `emits` and dead letters, then commits state and offsets. Each of
    these may happen again after a crash: storing is idempotent by hash, readers are by message id.
    """

    state: State
    emits: tuple[Emit, ...] = ()
    refused: tuple[Refused, ...] = ()
    contents: tuple[Content, ...] = ()


class Stage(Protocol[State]):
    """One verb on a stream.

    `step` never blocks, never does I/O, never raises for a message that passed the codec; it does not change the
    state it was given; equal arguments give equal results. An empty batch lets time pass (timers). A message whose
    id was seen already changes nothing. A state is plain values, frozen structs of them and arrays, which `pack`
    (state.py) writes; `load` reads them after a restart: load(pack(s)) behaves like s.
    """

    name: str

    def initial(self) -> State: ...

    def step(self, state: State, batch: Sequence[Message], now_ns: int) -> Outcome[State]: ...

    def load(self, data: bytes) -> State: ...


AnyStage = Stage[Any]


def step_all(
    stage: AnyStage, states: Sequence[Any], batches: Sequence[Sequence[Message]], now_ns: int
) -> list[Outcome[Any]]:
    """A stage's step in several lanes. Where a step costs much however little it is given, the stage has a method
    of this name, whose result is that of `step` in each."""
    together = getattr(stage, "step_all", None)
    if together is not None:
        outcomes: list[Outcome[Any]] = together(states, batches, now_ns)
        return outcomes
    return [stage.step(state, batch, now_ns) for state, batch in zip(states, batches, strict=True)]
