"""From labelled clips to a checkpoint; killed, it goes on from its last one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.documents import Checked, Labelled, Recorded, Trained
from jobs.label import unpack
from jobs.naming import BASE_SAMPLES, CHECKPOINT, GRAPH, open_models
from jobs.samples import fetch, from_clips, subset
from jobs.step import Work
from model import checkpoint as checkpoints
from model.checkpoint import BadCheckpoint, Checkpoint
from model.data import concatenate
from model.recipes import recipe
from model.rig import THREE_CAMERAS
from model.training import Hooks
from model.training import fine_tune as run_fine_tuning
from model.training import train as run_cloning
from registry.datasets import TRAIN, load_dataset
from registry.errors import Refused
from registry.models import Models, ModelVersion

KEEP_EVERY = 50
"""Steps that a killed attempt loses at most."""


def fine_tune(work: Work) -> Trained:
    """The step of `learn`: the base model taught from the checked clips, with replay of its base samples."""
    settings, models = work.context.settings, open_models(work)
    base = models.version(work.request.base_model)
    clips = load_dataset(work.store, work.input("check", Checked).dataset)
    labels = unpack(work.store.get(work.input("label", Labelled).labels))
    start = checkpoints.from_bytes(work.store.get(base.files[CHECKPOINT]))
    instants = start.network.history
    taught = from_clips(work.store, clips.split(TRAIN), labels, work.progress).with_history(slice(None), instants)
    base_samples = list(settings.base_samples) or _base_samples(base)
    cache = Path(work.context.places.scratch) / "samples"
    replay = subset(fetch(work.store, base_samples, cache), settings.replay_frames, settings.seed, instants)
    run = _Run(work, models, {"dataset": clips.version, "base_model": base.id, "frames": len(taught)})
    config = recipe(work.request.recipe).fine_tune
    end = run_fine_tuning(start, replay, taught, THREE_CAMERAS, config, seed=settings.seed, hooks=run.hooks())
    return run.end(end, base_samples, len(taught), base.files[GRAPH])


def clone(work: Work) -> Trained:
    """The step of `clone`: a first model from recorded expert driving."""
    settings, recorded = work.context.settings, work.input("record", Recorded)
    samples = concatenate(fetch(work.store, recorded.samples, Path(work.context.places.scratch) / "samples"))
    chosen = recipe(work.request.recipe)
    run = _Run(work, open_models(work), {"frames": recorded.frames, "km": round(recorded.km, 3)})
    end = run_cloning(samples, THREE_CAMERAS, chosen.network, chosen.clone, seed=settings.seed, hooks=run.hooks())
    return run.end(end, recorded.samples, recorded.frames, "")


@dataclass
class _Run:
    """The job's run in MLflow, fed while the training goes on."""

    work: Work
    models: Models
    params: dict[str, object]

    def __post_init__(self) -> None:
        request = self.work.request
        self.id = self.models.run(request.fingerprint, request.time_ns, {"fleetwheel.kind": request.kind}).id
        self.params |= {
            "recipe": request.recipe,
            "seed": self.work.context.settings.seed,
            "code": self.work.context.code,
        }
        self.models.log(self.id, time_ns=request.time_ns, params=self.params)
        self._path = self.work.scratch / f"training-{self.work.key[:16]}.safetensors"
        self._losses: list[float] = []

    def hooks(self) -> Hooks:
        """Progress, checkpoints to go on from, and the one that a killed attempt left."""
        return Hooks(self._progress, self._keep, KEEP_EVERY, self._left_over())

    def end(self, checkpoint: Checkpoint, base_samples: list[str], frames: int, champion_graph: str) -> Trained:
        """Keep the finished model."""
        kept = self.work.store.put(checkpoints.to_bytes(checkpoint.finished()))
        return Trained(kept.sha256, self.id, base_samples, frames, champion_graph)

    def _progress(self, done: int, of: int, loss: float) -> None:
        self._losses.append(loss)
        self.work.progress(done, of, f"loss {loss:.3f}")

    def _keep(self, checkpoint: Checkpoint) -> None:
        checkpoints.save(checkpoint, self._path)
        if self._losses:
            # The request's time: logged again after a crash, a point is the same point.
            mean = {"loss": float(np.mean(self._losses))}
            self.models.log(self.id, time_ns=self.work.request.time_ns, metrics=mean, step=checkpoint.step)
        self._losses.clear()

    def _left_over(self) -> Checkpoint | None:
        try:
            return checkpoints.load(self._path)
        except BadCheckpoint:
            return None


def _base_samples(base: ModelVersion) -> list[str]:
    try:
        found: list[str] = json.loads(base.tags[BASE_SAMPLES])
    except KeyError as error:
        raise Refused(
            f"model {base.id} does not say what it was cloned from: give settings.base_samples for replay"
        ) from error
    return found
