"""What the store keeps of a job: one document for each finished step, and one for its end."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from jobs.step import Json
from registry.errors import Conflict, Missing
from registry.store import Store
from streams.contracts.jobs import JobFinished


class StepDone(Struct, frozen=True):
    """A finished step: its key (jobs.step.key_of), its document, and what it took."""

    key: str
    result: Json
    seconds: float
    attempts: int


class JobRecord:
    """Documents jobs/<fingerprint>/…. Raises Retry where the store cannot be reached."""

    def __init__(self, store: Store, fingerprint: str) -> None:
        self._store = store
        self._folder = f"jobs/{fingerprint}"

    def step(self, name: str) -> StepDone | None:
        """A finished step, None where it is not finished."""
        value = self._read(f"{self._folder}/steps/{name}")
        return None if value is None else msgspec.convert(value, StepDone)

    def keep_step(self, name: str, done: StepDone) -> None:
        """Keep a step's end; the newest stays."""
        put_document(self._store, f"{self._folder}/steps/{name}", done)

    def finished(self) -> JobFinished | None:
        """The job's end, None where it has not come."""
        value = self._read(f"{self._folder}/finished")
        return None if value is None else msgspec.convert(value, JobFinished)

    def keep_finished(self, finished: JobFinished) -> None:
        """Keep the job's end."""
        put_document(self._store, f"{self._folder}/finished", finished)

    def forget_finished(self) -> None:
        """Take the end back; the finished steps stay."""
        put_document(self._store, f"{self._folder}/finished", None)

    def _read(self, name: str) -> Json | None:
        try:
            value: Json | None = self._store.read(name).value
        except Missing:
            return None
        return value


def put_document(store: Store, name: str, value: object) -> None:
    """Create or replace a document, whoever else writes it. Raises Retry where the store cannot be reached."""
    while True:
        try:
            try:
                store.replace(name, value, store.read(name).version)
            except Missing:
                store.create(name, value)
        except Conflict:
            continue
        return
