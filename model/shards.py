"""Samples as a dataset that is read piece by piece from anywhere: shards of frames, and one manifest that names
them.

A shard is one safetensors file of some hundred frames. The manifest is written last: where it is, the dataset is
whole. It holds each shard's size and sha256, so that what is cut short or damaged is found before it is learnt
from, and its weight by manoeuvre, so that the order of all frames is known without reading one
(model/stream_data.py)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from model.data import MANOEUVRES, BadSamples, Samples, check, concatenate, masses
from model.rig import BadRig, Rig, rig_from_dict
from model.samples_file import from_bytes, to_bytes

FORMAT = "fleetwheel.shards/1"
MANIFEST = "shards.json"
MAX_MANIFEST_BYTES = 64 * 1024**2


class BadDataset(ValueError):
    """A dataset that cannot be learnt from: names it and what to do."""


class BadShard(BadDataset):
    """A shard that is gone, cut short or damaged: names it."""


class Files(Protocol):
    """Where a dataset lies: registry.backends has one for every URL. Every call may block on I/O and raises what
    its medium raises."""

    def read(self, key: str) -> Iterator[bytes]:
        """The bytes in pieces."""
        ...

    def write(self, key: str, pieces: Iterable[bytes]) -> None:
        """All bytes or none."""
        ...

    def size(self, key: str) -> int | None:
        """Bytes under a key, None where there are none."""
        ...

    def uri(self, key: str) -> str:
        """For people."""
        ...


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of the dataset."""

    name: str
    frames: int
    bytes: int
    sha256: str
    mass: tuple[float, ...]
    """Weight of its frames by manoeuvre (data.masses)."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What the manifest says."""

    rig: Rig
    shards: tuple[Shard, ...]
    version: str
    """sha256 of the manifest."""

    @property
    def frames(self) -> int:
        """Of all shards."""
        return sum(shard.frames for shard in self.shards)


def write(
    files: Files,
    parts: Iterable[Samples],
    rig: Rig,
    *,
    frames: int = 512,
    told: Callable[[int], None] | None = None,
) -> Dataset:
    """Writes samples of one rig, in their order, as shards of so many frames (the last may have fewer). No more is
    held than a part and a shard; `told` gets the frames written so far. Raises BadDataset where one lies there
    already, where there is no frame, and where images are not of the rig; BadSamples; and what `files` raises."""
    if files.size(MANIFEST) is not None:
        raise BadDataset(f"{files.uri(MANIFEST)} is there already: a dataset is never changed, give another place")
    shards: list[Shard] = []
    for samples in _recut(parts, frames):
        _check_rig(samples, rig)
        shards.append(_write_one(files, f"part-{len(shards):05d}.safetensors", samples))
        if told is not None:
            told(sum(shard.frames for shard in shards))
    if not shards:
        raise BadDataset("there is no frame to write: give clips or scenes that have some")
    document = {"format": FORMAT, "rig": asdict(rig), "shards": [asdict(shard) for shard in shards]}
    content = json.dumps(document, sort_keys=True).encode()
    files.write(MANIFEST, [content])
    return Dataset(rig, tuple(shards), hashlib.sha256(content).hexdigest())


def open_dataset(files: Files) -> Dataset:
    """The dataset that lies there. Raises BadDataset where none does, or its manifest is not one."""
    where, size = files.uri(MANIFEST), files.size(MANIFEST)
    if size is None:
        raise BadDataset(f"{where} is not there: no dataset was written here to its end")
    if size > MAX_MANIFEST_BYTES:
        raise BadDataset(f"{where} has {size} bytes; at most {MAX_MANIFEST_BYTES}")
    content = b"".join(files.read(MANIFEST))
    try:
        document = json.loads(content)
        if document["format"] != FORMAT:
            raise BadDataset(f"{where} is of format {document['format']!r}, not {FORMAT!r}")
        shards = tuple(_shard(entry) for entry in document["shards"])
        dataset = Dataset(rig_from_dict(document["rig"]), shards, hashlib.sha256(content).hexdigest())
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError, BadRig) as error:
        raise BadDataset(f"{where} is not the manifest of a dataset: {error!r}") from error
    if not dataset.frames:
        raise BadDataset(f"{where} has no frame: write it again from clips or scenes that have some")
    return dataset


def read_shard(files: Files, shard: Shard, rig: Rig) -> Samples:
    """The frames of a shard. Raises BadShard, and what `files` raises."""
    where, size = files.uri(shard.name), files.size(shard.name)
    if size != shard.bytes:
        raise BadShard(f"shard {where} has {size or 0} bytes of {shard.bytes}: copy or write the dataset again")
    content = b"".join(files.read(shard.name))
    if hashlib.sha256(content).hexdigest() != shard.sha256:
        raise BadShard(f"shard {where} is damaged, its sha256 is not {shard.sha256}: copy or write it again")
    try:
        samples = from_bytes(content)
        _check_rig(samples, rig)
    except (BadSamples, BadDataset) as error:
        raise BadShard(f"shard {where}: {error}") from error
    if len(samples) != shard.frames:
        raise BadShard(f"shard {where} has {len(samples)} frames, the manifest says {shard.frames}")
    return samples


def _recut(parts: Iterable[Samples], frames: int) -> Iterator[Samples]:
    """The same frames in the same order in pieces of one size."""
    waiting: list[Samples] = []
    for part in parts:
        waiting.append(part)
        while sum(map(len, waiting)) >= frames:
            whole = concatenate(waiting)
            yield whole.head(frames)
            waiting = [whole.take(slice(frames, None))]
    if sum(map(len, waiting)):
        yield concatenate(waiting)


def _write_one(files: Files, name: str, samples: Samples) -> Shard:
    check(samples)
    content = to_bytes(samples)
    files.write(name, [content])
    mass = tuple(float(m) for m in masses(samples))
    return Shard(name, len(samples), len(content), hashlib.sha256(content).hexdigest(), mass)


def _check_rig(samples: Samples, rig: Rig) -> None:
    camera = rig.cameras[0]
    wanted = (len(rig.cameras), camera.height_px, camera.width_px, 3)
    if samples.images.shape[1:] != wanted:
        raise BadDataset(f"images are {list(samples.images.shape[1:])}, those of rig {rig.name!r} {list(wanted)}")


def _shard(entry: dict[str, Any]) -> Shard:
    shard = Shard(**entry | {"mass": tuple(float(m) for m in entry["mass"])})
    if len(shard.mass) != len(MANOEUVRES) or shard.frames < 1 or "/" in shard.name:
        raise TypeError(f"shard {shard.name!r} has {shard.frames} frames and {len(shard.mass)} manoeuvres")
    return shard
