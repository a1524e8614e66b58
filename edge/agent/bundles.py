"""A bundle: one uncompressed zip of model.onnx and manifest.json. Unpacked with limits, believed by its hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import struct
import zipfile
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from edge.agent.files import sync_folder
from streams.contracts.types import Name, Sha256

MODEL, MANIFEST = "model.onnx", "manifest.json"
MAX_MEMBERS, MAX_MANIFEST_BYTES = 64, 1 << 20
MAX_BUNDLE_BYTES = 4 << 30

_ODD_ZIP = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, struct.error)
"""What zipfile raises for a tampered archive or an encrypted member; a seek before its start is an EINVAL."""


class BadBundle(ValueError):
    """A bundle that must not be installed, though it may be signed: says which member and why."""


class Manifest(msgspec.Struct, frozen=True):
    """What the vehicle reads of a manifest; the rest (parity, latency, watts, lineage) is for people."""

    model_version: Name
    hardware: Name
    files: Annotated[dict[Name, Sha256], Meta(max_length=MAX_MEMBERS)]
    """Member -> sha256, of all members but the manifest."""


def unpack(
    bundle: Path, into: Path, hardware: str, limit_bytes: int = MAX_BUNDLE_BYTES
) -> tuple[Manifest, dict[str, str]]:
    """Unpacks a bundle into a new folder and makes it durable; returns its manifest and each file's sha256, the
    manifest's too. Raises BadBundle, and OSError for the disk; what is at `into` then is not to be used."""
    try:
        with zipfile.ZipFile(bundle) as archive:
            manifest = _inspect(archive, hardware, limit_bytes)
            shutil.rmtree(into, ignore_errors=True)
            into.mkdir(parents=True)
            hashes = {info.filename: _extract(archive, info, into) for info in archive.infolist()}
    except BadBundle:
        raise
    except (*_ODD_ZIP, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise BadBundle(f"{bundle.name} is not a whole zip archive: {error}") from error
    for name, expected in manifest.files.items():
        if hashes[name] != expected:
            raise BadBundle(f"{name}: sha256 {hashes[name]} is not the manifest's {expected}")
    sync_folder(into)
    return manifest, hashes


def verify(folder: Path, files: dict[str, str]) -> str:
    """What is wrong with an unpacked bundle; "" if every byte is what was installed."""
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if found != set(files):
        return f"holds {sorted(found)}, not {sorted(files)}"
    for name, expected in files.items():
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                return f"{name} is not what was installed"
    return ""


def _inspect(archive: zipfile.ZipFile, hardware: str, limit_bytes: int) -> Manifest:
    """Everything that can be refused before a byte is unpacked."""
    members = archive.infolist()
    names = [info.filename for info in members]
    if len(members) > MAX_MEMBERS or len(set(names)) != len(names):
        raise BadBundle(f"{len(members)} members, {len(set(names))} names; at most {MAX_MEMBERS}, each once")
    for info in members:
        _check_member(info)
    if (total := sum(info.file_size for info in members)) > limit_bytes:
        raise BadBundle(f"{total} bytes unpacked; at most {limit_bytes}")
    if MANIFEST not in names or archive.getinfo(MANIFEST).file_size > MAX_MANIFEST_BYTES:
        raise BadBundle(f"no {MANIFEST} of at most {MAX_MANIFEST_BYTES} bytes")
    try:
        manifest = msgspec.json.decode(archive.read(MANIFEST), type=Manifest)
    except msgspec.MsgspecError as error:
        raise BadBundle(f"{MANIFEST}: {error}") from error
    if set(manifest.files) != set(names) - {MANIFEST} or MODEL not in names:
        raise BadBundle(f"members {sorted(names)} are not the manifest's {sorted(manifest.files)} with {MODEL}")
    if manifest.hardware != hardware:
        raise BadBundle(f"built for hardware {manifest.hardware!r}, this is {hardware!r}")
    return manifest


def _check_member(info: zipfile.ZipInfo) -> None:
    name = info.filename
    plain = name and not name.startswith(".") and not set(name) & set("/\\:\0")
    if not plain or info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
        raise BadBundle(f"member {name!r} is not a plain file name")
    if info.compress_type != zipfile.ZIP_STORED:
        raise BadBundle(f"member {name!r} is compressed; bundles are stored")


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, into: Path) -> str:
    """Writes a member durably; its sha256."""
    hasher = hashlib.sha256()
    with archive.open(info) as source, (into / info.filename).open("wb") as file:
        while block := source.read(1 << 20):
            hasher.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return hasher.hexdigest()
