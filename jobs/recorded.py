"""Samples of what was recorded: the expert's drives, and clips that lie in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.check import problem
from jobs.label import ClipLabels, label_clip
from jobs.samples import from_clips
from jobs.step import Progress
from model.data import BadSamples, Samples, samples_from_arrays
from model.rig import THREE_CAMERAS, Rig
from registry.clips import read_clip
from registry.datasets import DatasetClip
from simulation.episode import Recording
from streams.contracts.ids import sha256_hex


def from_recording(recorded: Recording, source: str | Sequence[str]) -> Samples:
    """Every frame of the expert's drives; `source` is one name for all or one per frame."""
    return samples_from_arrays(
        recorded.images,
        speed_mps=recorded.speed_mps,
        yaw_rate_radps=recorded.yaw_rate_radps,
        command=recorded.command,
        target=recorded.target,
        source=source,
        labels=recorded.labels,
        before=recorded.before,
    )


def from_folder(folder: Path, progress: Progress, rig: Rig = THREE_CAMERAS) -> Samples:
    """The labelled frames of the clips (*.mcap) of a folder, labelled and checked as a job does. Raises BadSamples
    where there is none, and for a clip that must not be learnt from, as one of another rig; Corrupt or Refused for
    one that cannot be read."""
    files = sorted(folder.glob("*.mcap"))
    if not files:
        raise BadSamples(f"{folder} has no clip (*.mcap): `fleet vehicle --log DRIVE --out {folder}` writes some")
    clips: dict[str, DatasetClip] = {}
    labels: dict[str, ClipLabels] = {}
    for path in files:
        content = path.read_bytes()
        frames = read_clip(content)
        clip = DatasetClip(frames.clip_id or path.stem, sha256_hex(content), folder.name)
        facts, labels[clip.clip_id] = label_clip(frames, clip)
        reason = "another file holds it too" if clip.clip_id in clips else problem(facts, rig)
        if reason:
            raise BadSamples(f"clip {clip.clip_id} must not be learnt from: {reason}; move {path} away")
        clips[clip.clip_id] = clip
    paths = {clip.sha256: path for clip, path in zip(clips.values(), files, strict=True)}
    return from_clips(_Folder(paths), list(clips.values()), labels, progress, rig=rig)


@dataclass(frozen=True, slots=True)
class _Folder:
    paths: Mapping[str, Path]
    """By sha256 of the content."""

    def get(self, sha256: str) -> bytes:
        return self.paths[sha256].read_bytes()
