"""Base driving for a first model: the expert, disturbed and recovering, in base worlds."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
from msgspec import Struct

from jobs.documents import Recorded
from jobs.launchers.local import call_all
from jobs.recorded import from_recording
from jobs.step import Json, Progress, Work
from model.policy import PLAN_PERIOD_S
from model.recipes import recipe
from model.rig import THREE_CAMERAS
from model.samples_file import save
from registry.store import Store
from simulation.episode import record_expert
from simulation.scenarios import BASE, scenes

EPISODE_S = 38.0
"""Driven in each world."""


class Part(Struct, frozen=True):
    """What one process records."""

    store: str
    path: str
    worlds: int
    seconds: float
    seed: int


def record(work: Work) -> Recorded:
    """The step: as many frames as the recipe asks for, recorded by several processes."""
    frames, processes = recipe(work.request.recipe).base_frames, work.context.processes
    per_world = round(EPISODE_S / PLAN_PERIOD_S)
    worlds = math.ceil(frames / per_world / processes)
    seconds = EPISODE_S if worlds > 1 else math.ceil(frames / processes) * PLAN_PERIOD_S
    parts = [
        Part(
            work.context.places.store,
            str(work.scratch / f"base-{i}.safetensors"),
            worlds,
            seconds,
            work.context.settings.base_seed * 1000 + i,
        )
        for i in range(processes)
    ]
    shares = dict.fromkeys(range(processes), 0)

    def progress(done: int, of: int, what: str) -> None:
        shares[int(what)] = done
        work.progress(sum(shares.values()), of * processes, "frames")

    answers = call_all(
        [("jobs.record_base:record_part", p, work.scratch / f"record-{i}.log") for i, p in enumerate(parts)],
        progress,
    )
    return Recorded(
        samples=[a["sha256"] for a in answers],
        frames=sum(a["frames"] for a in answers),
        km=sum(a["km"] for a in answers),
    )


def record_part(argument: bytes, progress: Progress) -> Json:
    """What a process does: record, and keep the samples file."""
    part = msgspec.json.decode(argument, type=Part)
    total = part.worlds * round(part.seconds / PLAN_PERIOD_S)
    lane = str(part.seed % 1000)
    drawn = scenes({BASE: 1.0}, part.worlds, part.seed, "train")
    recorded = record_expert(
        drawn,
        THREE_CAMERAS,
        part.seconds,
        part.seed,
        progress=lambda share: progress(round(share * total), total, lane),
    )
    samples = from_recording(recorded, f"base-{part.seed}")
    path = Path(part.path)
    save(samples, path)
    stored = Store(part.store).put_file(path)
    path.unlink()
    return {"sha256": stored.sha256, "frames": len(samples), "km": recorded.metres / 1000}
