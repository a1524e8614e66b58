"""Samples to learn from: built from archived clips, or fetched as files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from jobs.label import ClipLabels
from jobs.step import Progress
from model.data import ARRAYS, BadSamples, Samples, check, empty
from model.labels import joined
from model.policy import PLAN_PERIOD_S
from model.rig import THREE_CAMERAS, Rig
from model.samples_file import open_file
from registry.clips import read_clip
from registry.datasets import DatasetClip
from registry.store import Store

PERIOD_NS = round(PLAN_PERIOD_S * 1e9)


class Contents(Protocol):
    """Where clips are: a registry.store.Store, or a folder."""

    def get(self, sha256: str) -> bytes:
        """The content of that name."""
        ...


def from_clips(
    store: Contents,
    clips: Sequence[DatasetClip],
    labels: Mapping[str, ClipLabels],
    progress: Progress,
    most: int = 2**31,
    rig: Rig = THREE_CAMERAS,
) -> Samples:
    """The labelled frames of clips, at most `most`, each weighted as its clip is; memory is taken at once. Images
    are in the rig's order, whatever the clip's is.
    Raises BadSamples where there is none, and what the store and the reader raise."""
    chosen = [c for c in clips if c.clip_id in labels and labels[c.clip_id].valid.any()]
    room = min(most, sum(int(labels[c.clip_id].valid.sum()) for c in chosen))
    whole: Samples | None = None
    before = np.full(room, -1)
    at = 0
    for number, clip in enumerate(chosen):
        frames, label = read_clip(store.get(clip.sha256), clip.clip_id), labels[clip.clip_id]
        order = [frames.cameras.index(camera.name) for camera in rig.cameras]
        if whole is None:
            whole = empty(room, *frames.images.shape[1:4])
        kept = np.flatnonzero(label.valid)[: room - at]
        rows = slice(at, at + len(kept))
        whole.images[rows] = frames.images[kept][:, order]
        whole.speed_mps[rows], whole.yaw_rate_radps[rows] = frames.speed_mps[kept], frames.yaw_rate_radps[kept]
        whole.command[rows], whole.target[rows] = frames.command[kept], label.target[kept]
        whole.weight[rows], whole.source[rows] = clip.weight, number
        before[rows] = _before(frames.times_ns[kept], at)
        at += len(kept)
        progress(number + 1, len(chosen), "clips read")
    if whole is None:
        raise BadSamples(f"none of {len(clips)} clips has a labelled frame")
    samples = replace(whole, sources=tuple(c.clip_id for c in chosen), before=before)
    check(samples)
    return samples


def _before(times_ns: NDArray[np.int64], first: int) -> NDArray[np.int64]:
    """Of a clip's frames, numbered from `first`: which was seen PLAN_PERIOD_S earlier, -1 where none was."""
    gap_ns = np.diff(times_ns, prepend=times_ns[:1])
    return np.where(np.abs(gap_ns - PERIOD_NS) < PERIOD_NS / 4, first + np.arange(len(times_ns)) - 1, -1)


def fetch(store: Store, sha256s: Iterable[str], folder: Path) -> list[Samples]:
    """Samples files of the store, by way of a local cache that is safe to share and to lose."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for sha256 in sha256s:
        path = folder / f"{sha256}.safetensors"
        if not path.exists():
            store.get_file(sha256, path)
        parts.append(open_file(path))
    return parts


def subset(parts: Sequence[Samples], most: int, seed: int, instants: int = 1) -> Samples:
    """At most `most` frames of all parts, drawn evenly and copied to memory, in their order, each with so many
    instants (Samples.with_history)."""
    total = sum(map(len, parts))
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(total)[:most])
    edges = np.concatenate([[0], np.cumsum([len(p) for p in parts])])
    cameras, height, width = parts[0].images.shape[1:4]
    whole = empty(len(chosen), instants * cameras, height, width)
    names = tuple(dict.fromkeys(name for p in parts for name in p.sources))
    at, taken = 0, []
    for part, low, high in zip(parts, edges[:-1], edges[1:], strict=True):
        some = part.with_history(chosen[(chosen >= low) & (chosen < high)] - low, instants)
        rows = slice(at, at + len(some))
        for name in ARRAYS[:-1]:
            getattr(whole, name)[rows] = getattr(some, name)
        whole.source[rows] = np.array([names.index(n) for n in part.sources], np.int32)[some.source]
        at += len(some)
        taken.append((some.labels, len(some), some.past))
    labels, counts, past = zip(*taken, strict=True)
    stacked = np.concatenate(past) if instants > 1 else None
    return replace(whole, sources=names, labels=joined(labels, counts), past=stacked)
