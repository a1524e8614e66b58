"""`fleet model data`: a dataset to train from, out of the expert's drives or archived clips."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

import typer

from fleet.console import Watcher
from jobs.label import ClipLabels, label_clip
from jobs.record_base import EPISODE_S
from jobs.recorded import from_recording
from jobs.samples import from_clips
from jobs.step import no_progress
from model.data import Samples
from model.policy import PLAN_PERIOD_S
from model.rig import THREE_CAMERAS, Rig, rig_named
from model.shards import write
from registry.clips import read_clip
from registry.datasets import TRAIN, DatasetClip, load_dataset
from registry.errors import Corrupt, Missing, Refused
from registry.store import Store, open_backend
from simulation.episode import record_expert
from simulation.labels import LABELLERS
from simulation.scenarios import CONDITIONS, Split, scenes

WORLDS_AT_ONCE = 8
"""Recorded together: some 60 MB of frames with three cameras."""
CLIPS_AT_ONCE = 16


class BadChoice(ValueError):
    """What to take samples from was not said rightly: names what was wrong."""


@dataclass(frozen=True, slots=True)
class FromExpert:
    """Disturbed drives of the simulated expert (simulation/episode.py)."""

    frames: int
    seed: int
    rig: str
    conditions: str
    split: str


@dataclass(frozen=True, slots=True)
class FromClips:
    """The training clips of a dataset version in a registry store."""

    store: str
    dataset: str


def run_data(url: str, source: FromExpert | FromClips, shard_frames: int, *, as_json: bool) -> None:
    """Writes the dataset and tells what is in it. Raises BadChoice, BadDataset, BadSamples and what stores
    raise."""
    rig = rig_named(source.rig) if isinstance(source, FromExpert) else THREE_CAMERAS
    with Watcher() as watch:
        parts = recorded(source, rig, watch) if isinstance(source, FromExpert) else taken(source, watch)
        files = open_backend(url)
        dataset = write(files, parts, rig, frames=shard_frames)
    facts = {"url": url, "frames": dataset.frames, "shards": len(dataset.shards), "version": dataset.version}
    text = f"{dataset.frames} frames in {len(dataset.shards)} shards at {url}, version {dataset.version}"
    typer.echo(json.dumps(facts) if as_json else text)


def recorded(source: FromExpert, rig: Rig, watch: Watcher) -> Iterator[Samples]:
    """The drives, some worlds at a time. Raises BadChoice."""
    names = source.conditions.split(",")
    if unknown := [name for name in names if name not in CONDITIONS]:
        raise BadChoice(f"no conditions {unknown}; there are {', '.join(CONDITIONS)}")
    if source.split not in ("train", "heldout"):
        raise BadChoice(f"no split {source.split!r}; there are train and heldout")
    split: Split = "train" if source.split == "train" else "heldout"
    worlds = math.ceil(source.frames / round(EPISODE_S / PLAN_PERIOD_S))
    drawn = scenes(dict.fromkeys(names, 1.0 / len(names)), worlds, source.seed, split)
    for at in range(0, worlds, WORLDS_AT_ONCE):
        some = drawn[at : at + WORLDS_AT_ONCE]
        got = record_expert(some, rig, EPISODE_S, source.seed, labels=tuple(LABELLERS))
        yield from_recording(got, [f"{condition}-{source.seed}" for condition in got.condition])
        watch("worlds recorded", at + len(some), worlds, "")


def taken(source: FromClips, watch: Watcher) -> Iterator[Samples]:
    """The labelled frames of the clips, some clips at a time; those that cannot be read are told and left out.
    Raises BadChoice where none is left, and what stores raise."""
    if not source.store or not source.dataset:
        raise BadChoice("archived clips need both --store URL and --dataset SHA256")
    store = Store(source.store)
    clips = load_dataset(store, source.dataset).split(TRAIN)
    any_frame = False
    for at in range(0, len(clips), CLIPS_AT_ONCE):
        some = clips[at : at + CLIPS_AT_ONCE]
        labels = {clip.clip_id: found for clip in some if (found := _labels(store, clip, watch)) is not None}
        if any(found.valid.any() for found in labels.values()):
            any_frame = True
            yield from_clips(store, some, labels, no_progress)
        watch("clips read", at + len(some), len(clips), "")
    if not any_frame:
        raise BadChoice(f"none of the {len(clips)} training clips of {source.dataset} has a labelled frame")


def _labels(store: Store, clip: DatasetClip, watch: Watcher) -> ClipLabels | None:
    try:
        return label_clip(read_clip(store.get(clip.sha256), clip.clip_id), clip)[1]
    except (Corrupt, Refused, Missing) as error:
        watch.say(f"clip {clip.clip_id} left out: {error}")
        return None
