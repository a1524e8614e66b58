"""Checkpoints of a run that goes on: a folder for each, written by all processes together, and their end as one
file.

Each process writes its shards by torch.distributed.checkpoint as safetensors: nothing is pickled, and what few
processes wrote, many can read. A manifest, written last, names every file with its size and sha256, the run it
belongs to and where that was. Tensors have the names that model/checkpoint.py gives them, so either form becomes
the other."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from model.checkpoint import OPTIMIZER, BadCheckpoint, Checkpoint
from model.config import NetworkConfig, network_from_json
from model.ranks import ALONE, Ranks

FORMAT = "fleetwheel.run/1"
MANIFEST = "manifest.json"
KEPT = 2
"""Checkpoints that stay: a second one for the case that the newest is damaged."""
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run is."""

    step: int = 0
    """Steps that are done."""
    applied: int = 0
    """Those that changed the weights; in the others the loss was not finite."""
    shift: int = 0
    """Batches that were passed over: step k sees batch k + shift."""
    rollbacks: int = 0
    skipped: int = 0
    """Steps in a row, up to here, whose loss was not finite."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint's folder says about itself."""

    network: NetworkConfig
    standing: Standing
    course: dict[str, Any] = field(default_factory=dict)
    """What decides the run (long_run.Course); {}: of no run, converted from a file."""
    interim: bool = False
    """Made because the run was stopped: it resumes from here, but never rolls back to it."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> bytes, sha256."""


def keep(folder: Path, tensors: Mapping[str, Tensor], manifest: Manifest, ranks: Ranks = ALONE) -> Path:
    """Writes a checkpoint below `folder`, all of it or nothing, and removes those that are not needed any more.
    All processes call it together, each with its shards. Raises OSError."""
    final = folder / f"step-{manifest.standing.step:08d}"
    partial = folder / f".{final.name}.partial"
    if ranks.first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    ranks.gather(0)
    writer = HuggingFaceStorageWriter(str(partial), save_distributed=True)
    with _named(partial, "cannot be written"):
        dcp.save(dict(tensors), storage_writer=writer, no_dist=ranks.world == 1)
    mine = sorted(partial.glob(f"shard-{ranks.rank + 1:05d}-*"))
    files = {
        name: entry for part in ranks.gather({p.name: _entry(p) for p in mine}) for name, entry in part.items()
    }
    if ranks.first:
        _write_manifest(partial / MANIFEST, manifest, files)
        _replace(final, partial)
        _prune(folder)
    ranks.gather(0)
    return final


def restore(path: Path, tensors: Mapping[str, Tensor], ranks: Ranks = ALONE) -> None:
    """Fills the tensors, whole or sharded, from a checkpoint, whoever wrote it. Raises BadCheckpoint."""
    with _named(path, "does not fit"), torch.no_grad():
        dcp.load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(path)), no_dist=ranks.world == 1)


def newest(folder: Path, told: Told, ranks: Ranks = ALONE, interim: bool = True) -> tuple[Path, Manifest] | None:
    """The newest whole checkpoint, None where there is none at all; `told` hears of each that is damaged, and why.
    Raises BadCheckpoint where there are some and all are damaged."""
    complaints = []
    for path in reversed(_all(folder)):
        try:
            manifest = read_manifest(path)
            _verify(path, manifest, ranks)
        except BadCheckpoint as error:
            complaints.append(str(error))
            told(f"{error}; going back to the one before")
            continue
        if interim or not manifest.interim:
            return path, manifest
    if complaints:
        raise BadCheckpoint(f"no checkpoint in {folder} can be used: {complaints[0]}. Train into another folder")
    return None


def drop_after(path: Path, ranks: Ranks = ALONE) -> None:
    """Removes the checkpoints newer than this one: a run that went back to it has left them behind."""
    if ranks.first:
        for newer in (p for p in _all(path.parent) if p.name > path.name):
            shutil.rmtree(newer)
    ranks.gather(0)


def read_manifest(path: Path) -> Manifest:
    """What the checkpoint in this folder says about itself. Raises BadCheckpoint."""
    try:
        document = json.loads((path / MANIFEST).read_bytes())
        if document["format"] != FORMAT:
            raise BadCheckpoint(f"checkpoint {path} is of format {document['format']!r}, not {FORMAT!r}")
        known = {f.name: document[f.name] for f in fields(Manifest)}
        known |= {"network": network_from_json(document["network"]), "standing": Standing(**document["standing"])}
        return Manifest(**known)
    except OSError as error:
        raise BadCheckpoint(
            f"checkpoint {path} was not written to its end: {MANIFEST}: {error.strerror}"
        ) from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadCheckpoint(f"checkpoint {path}: {MANIFEST} is not that of a run ({error!r})") from error


def to_checkpoint(path: Path) -> Checkpoint:
    """A folder's content as model/checkpoint.py has it. Raises BadCheckpoint."""
    manifest = read_manifest(path)
    _verify(path, manifest, ALONE)
    with _named(path, "cannot be read"):
        described = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
        tensors = {
            name: torch.empty(found.size, dtype=found.properties.dtype)
            for name, found in described.items()
            if isinstance(found, TensorStorageMetadata)
        }
    restore(path, tensors)
    weights = {k: v for k, v in tensors.items() if not k.startswith(OPTIMIZER)}
    moments = {k.removeprefix(OPTIMIZER): v for k, v in tensors.items() if k.startswith(OPTIMIZER)}
    return Checkpoint(manifest.network, weights, manifest.standing.step, moments)


def from_checkpoint(checkpoint: Checkpoint, folder: Path) -> Path:
    """The other way round: writes a checkpoint's content as a folder below `folder`. Raises OSError."""
    moments = {OPTIMIZER + name: tensor for name, tensor in checkpoint.optimizer.items()}
    standing = Standing(checkpoint.step, checkpoint.step)
    return keep(folder, checkpoint.weights | moments, Manifest(checkpoint.network, standing))


def _write_manifest(path: Path, manifest: Manifest, files: dict[str, dict[str, Any]]) -> None:
    plain: dict[str, Any] = {
        "format": FORMAT,
        "network": manifest.network.to_json(),
        "standing": asdict(manifest.standing),
    }
    plain |= {"course": manifest.course, "interim": manifest.interim, "files": dict(sorted(files.items()))}
    with path.open("w") as file:
        json.dump(plain, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())


def _verify(path: Path, manifest: Manifest, ranks: Ranks) -> None:
    """Each process looks at some of the files; all come to the same verdict."""
    mine = sorted(manifest.files)[ranks.rank :: ranks.world]
    wrong = [
        name for part in ranks.gather([n for n in mine if _differs(path / n, manifest.files[n])]) for name in part
    ]
    if wrong or not manifest.files:
        names = ", ".join(wrong) or "all files"
        raise BadCheckpoint(f"checkpoint {path}: {names} missing, cut short or damaged")


def _differs(path: Path, entry: Mapping[str, Any]) -> bool:
    try:
        return _entry(path) != entry
    except OSError:
        return True


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-????????"))


def _prune(folder: Path) -> None:
    """Leaves the newest KEPT that a run may roll back to, and what is newer."""
    steady = [path for path in _all(folder) if not _is_interim(path)]
    for path in _all(folder):
        if steady and path not in steady[-KEPT:] and path.name < steady[-1].name:
            shutil.rmtree(path)


def _is_interim(path: Path) -> bool:
    try:
        return read_manifest(path).interim
    except BadCheckpoint:
        return True


def _replace(final: Path, partial: Path) -> None:
    """The new one in the place of an old one of that name, which is there until then."""
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    partial.rename(final)
    _sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    """What torch and safetensors raise, named by the folder. torch's own errors of checkpoints are not Exceptions,
    and it warns of every checkpoint that one process writes alone."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            yield
    except (CheckpointException, SafetensorError, RuntimeError, KeyError, AssertionError) as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise BadCheckpoint(f"checkpoint {path} {what}: {reason}") from error
