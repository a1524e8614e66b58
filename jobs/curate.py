"""Which archived clips make a dataset version."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.context import Curation
from jobs.documents import Curated
from jobs.naming import DATASET, open_models
from jobs.step import Work
from registry.clips import ClipIndex
from registry.datasets import (
    TRAIN,
    VALIDATION,
    Dataset,
    DatasetClip,
    load_dataset,
    make_dataset,
    save_dataset,
    split_of,
)
from registry.errors import Missing
from streams.contracts.clips import ArchivedClip
from streams.contracts.drive import Trigger
from streams.contracts.ids import digest


@dataclass(frozen=True, slots=True)
class Choice:
    """The clips of a dataset, and why the others are not in it."""

    clips: tuple[DatasetClip, ...]
    left_out: dict[str, str]


def curate(work: Work) -> Curated:
    """The step: a manifest of the requested clips that are archived, and of those that the base model was taught
    from: what is not shown again is forgotten."""
    before = taught_from(work)
    known = [c.clip_id for c in before.clips] if before else []
    index = ClipIndex(Path(work.context.places.clip_index))
    try:
        found, missing = _look_up(index, [*work.request.clips, *known])
    finally:
        index.close()
    curation = work.context.settings.curation
    choice = choose(found, curation)
    parents = [before.version] if before else []
    dataset = make_dataset(choice.clips, recipe=work.request.recipe, parents=parents)
    train = dataset.split(TRAIN)
    enough = len(train) >= curation.least_clips
    return Curated(
        dataset=save_dataset(work.store, dataset),
        clips=len(dataset.clips),
        vehicles=len({c.vehicle for c in dataset.clips}),
        left_out=missing | choice.left_out,
        verdict="pass" if enough else "fail",
        reasons=[] if enough else [f"{len(train)} clips to train on; at least {curation.least_clips} are needed"],
    )


def taught_from(work: Work) -> Dataset | None:
    """The dataset of the model that the job starts from; None for a first model."""
    if not work.request.base_model:
        return None
    version = open_models(work).version(work.request.base_model).tags.get(DATASET)
    return load_dataset(work.store, version) if version else None


def choose(clips: Iterable[ArchivedClip], curation: Curation) -> Choice:
    """A dataset's clips: each content once, no vehicle with more than its share, vehicles kept apart by split.
    Depends on the set of clips alone, not on their order."""
    ordered = sorted(clips, key=_worth)
    left_out: dict[str, str] = {}
    kept: list[ArchivedClip] = []
    contents: set[str] = set()
    for clip in ordered:
        if clip.sha256 in contents:
            left_out[clip.clip_id] = "the same content is in the dataset already"
        else:
            contents.add(clip.sha256)
            kept.append(clip)
    capped, over = _cap_vehicles(kept, curation)
    shares = {TRAIN: 1 - curation.validation_share, VALIDATION: curation.validation_share}
    members = (DatasetClip(c.clip_id, c.sha256, c.vehicle, split_of(c.vehicle, shares)) for c in capped)
    return Choice(tuple(sorted(members, key=lambda c: c.clip_id)), left_out | over)


def _cap_vehicles(clips: Sequence[ArchivedClip], curation: Curation) -> tuple[list[ArchivedClip], dict[str, str]]:
    most = max(curation.vehicle_least, math.floor(curation.vehicle_share * len(clips)))
    taken: Counter[str] = Counter()
    kept, over = [], {}
    for clip in clips:
        taken[clip.vehicle] += 1
        if taken[clip.vehicle] <= most:
            kept.append(clip)
        else:
            over[clip.clip_id] = f"vehicle {clip.vehicle} gives {most} clips already"
    return kept, over


def _worth(clip: ArchivedClip) -> tuple[bool, str]:
    """Disengagements first, the rest in an order that favours nobody."""
    return clip.kind != Trigger.DISENGAGEMENT, digest("curate", clip.clip_id)


def _look_up(index: ClipIndex, clip_ids: Iterable[str]) -> tuple[list[ArchivedClip], dict[str, str]]:
    found, missing = [], {}
    for clip_id in dict.fromkeys(clip_ids):
        try:
            found.append(index.get(clip_id))
        except Missing:
            missing[clip_id] = "it is not archived"
    return found, missing
