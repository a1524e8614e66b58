"""The stages of each recording, by the recording's name: what a job's `make` names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from registry.store import Store
from streams.selection import Selection, SelectionConfig
from streams.stage import AnyStage
from tests.contract.recordings import RECORDINGS, WINDOW, Recording, phase
from tests.samples import event

Make = Callable[[Sequence[str], Store], list[AnyStage]]


def _make(recording: Callable[[], Recording]) -> Make:
    def stages(names: Sequence[str], _store: Store) -> list[AnyStage]:
        return [s for s in recording().stages() if s.name in names]

    return stages


FLOW = "flow"


def _flow() -> Recording:
    """Lanes and the fleet in one job: selection's windows over what novelty tells of dedup's recording."""
    events = RECORDINGS["dedup"]()
    config = SelectionConfig(window_ns=WINDOW, clips=9, per_vehicle=3)
    return Recording(
        lambda: [*events.stages(), Selection(config)],
        (*events.phases, phase(3700, event(999, "car-1"))),
    )


PLAYED = RECORDINGS | {FLOW: _flow}
globals().update({name: _make(recording) for name, recording in PLAYED.items()})
