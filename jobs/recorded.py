"""Samples of what was recorded: the expert's drives, and clips that lie in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.label import ClipLabels, label_clip
from jobs.samples import from_clips
from jobs.step import Progress
from model.data import BadSamples, Samples, samples_from_arrays
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
        before=recorded.before,
    )


def from_folder(folder: Path, progress: Progress) -> Samples:
    """The labelled frames of the clips (*.mcap) of a folder, as a job labels them. Raises BadSamples where there
    is none, and Corrupt or Refused for a clip that cannot be read."""
    files = {path.stem: path for path in sorted(folder.glob("*.mcap"))}
    if not files:
        raise BadSamples(f"{folder} has no clip (*.mcap): `fleet vehicle --log DRIVE --out {folder}` writes some")
    clips: list[DatasetClip] = []
    labels: dict[str, ClipLabels] = {}
    for clip_id, path in files.items():
        content = path.read_bytes()
        clips.append(DatasetClip(clip_id, sha256_hex(content), folder.name))
        labels[clip_id] = label_clip(read_clip(content, clip_id), clips[-1])[1]
    paths = {clip.sha256: files[clip.clip_id] for clip in clips}
    return from_clips(_Folder(paths), clips, labels, progress)


@dataclass(frozen=True, slots=True)
class _Folder:
    paths: Mapping[str, Path]
    """By sha256 of the content."""

    def get(self, sha256: str) -> bytes:
        return self.paths[sha256].read_bytes()
