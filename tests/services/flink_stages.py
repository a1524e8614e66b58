"""The stages of each recording, by the recording's name: what a job's `make` names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from registry.store import Store
from streams.stage import AnyStage
from tests.contract.recordings import RECORDINGS, Recording

Make = Callable[[Sequence[str], Store], list[AnyStage]]


def _make(recording: Callable[[], Recording]) -> Make:
    def stages(names: Sequence[str], _store: Store) -> list[AnyStage]:
        return [s for s in recording().stages() if s.name in names]

    return stages


globals().update({name: _make(recording) for name, recording in RECORDINGS.items()})
