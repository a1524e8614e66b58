"""What a stopped run leaves beside its result for the next attempt at the same run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model import checkpoint
from model.checkpoint import BadCheckpoint, Checkpoint
from streams.contracts.ids import digest


@dataclass(frozen=True, slots=True)
class Unfinished:
    """One file, hidden beside the result's; there is none when the run is over."""

    path: Path

    def keep(self, at: Checkpoint) -> None:
        """Put down where the run is. Raises OSError."""
        checkpoint.save(at, self.path)

    def left(self) -> Checkpoint | None:
        """Where an earlier attempt was; None where there was none, or what it left is damaged."""
        try:
            return checkpoint.load(self.path)
        except BadCheckpoint:
            return None

    def over(self) -> None:
        """The result is written."""
        self.path.unlink(missing_ok=True)


def unfinished(out: Path, *run: object) -> Unfinished:
    """Of a run that writes `out`. `run` is all that its result depends on: another run does not go on from it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return Unfinished(out.with_name(f".{out.name}.{digest('run', *map(str, run))[:12]}"))
