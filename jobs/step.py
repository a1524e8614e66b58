"""What a step is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from jobs.context import JobContext
from registry.store import Store, canonical_json
from streams.contracts.ids import digest
from streams.contracts.jobs import JobRequested

Json = dict[str, Any]
Progress = Callable[[int, int, str], None]
"""Called with (done, of, what). Must not block."""
Document = TypeVar("Document", bound=msgspec.Struct)


def no_progress(done: int, of: int, what: str) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class Step:
    """A line of the catalog: a function from artifacts to artifacts, keyed by content."""

    name: str
    run: str
    """"module:function", called with a `Work`, gives a frozen Struct of documents.py."""
    needs: tuple[str, ...] = ()
    """Earlier steps whose documents it reads, where the job has them, besides the request and the settings."""
    ends: bool = False
    """A document with verdict "fail" ends the job here."""
    version: int = 1
    """Raised when the function's meaning changes, so that old results are not taken for new ones."""
    retries: int = 2
    own_process: bool = False
    """In its own process memory goes back when it ends; but each pays for its imports, some 10 s with torch."""


@dataclass(frozen=True)
class Work:
    """What a step's function is given. Everything it makes goes to the store under its content's name, or is an
    idempotent write to MLflow, the releases or the lineage: it may be killed anywhere and called again."""

    request: JobRequested
    context: JobContext
    inputs: Mapping[str, Json]
    """Documents of the steps it needs, by step."""
    now_ns: int
    """Real time, for signatures and the end of a run."""
    progress: Progress = field(default=no_progress)
    key: str = ""
    """Of the step's result (`key_of`): what an attempt leaves in `scratch` for the next must be named by it."""

    @cached_property
    def store(self) -> Store:
        """The registry store."""
        return Store(self.context.places.store)

    @property
    def fingerprint(self) -> str:
        """The job's."""
        return self.request.fingerprint

    @cached_property
    def scratch(self) -> Path:
        """A folder of this job alone that survives a killed attempt. Created on first use."""
        path = job_folder(self.context, self.fingerprint)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def input(self, step: str, kind: type[Document]) -> Document:
        """The document that an earlier step made."""
        return msgspec.convert(self.inputs[step], kind)


def job_folder(context: JobContext, fingerprint: str) -> Path:
    """Where a job's attempts leave things for one another."""
    return Path(context.places.scratch) / "jobs" / fingerprint


def perform(step: Step, work: Work) -> Json:
    """Call the step's function; its document as JSON-ready values. Raises what the function raises."""
    module, _, function = step.run.partition(":")
    found: Callable[[Work], msgspec.Struct] = getattr(import_module(module), function)
    document: Json = msgspec.to_builtins(found(work))
    return document


def inputs_of(step: Step, results: Mapping[str, Json]) -> dict[str, Json]:
    """The documents that a step reads, of all that there are."""
    return {name: results[name] for name in step.needs if name in results}


def key_of(step: Step, request: JobRequested, context: JobContext, inputs: Mapping[str, Json]) -> str:
    """The name of a step's result: equal for equal content of all it depends on, wherever that lies."""
    settings = canonical_json(context.settings).decode()
    needed = canonical_json(inputs).decode()
    return digest(step.name, str(step.version), context.code, request.fingerprint, settings, needed)
