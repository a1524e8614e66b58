"""Files that are whole or absent, whenever the power goes."""

from __future__ import annotations

import os
from pathlib import Path

TEMPORARY = ".tmp-"
"""Prefix of what is not finished yet; anything so named may be deleted at start."""


def write_atomic(path: Path, data: bytes, durable: bool = True) -> None:
    """Puts `data` at `path` in one step: readers see the old file or the new one. With `durable` it survives a
    power cut too. Raises OSError (a full disk); then `path` is as it was and nothing is left behind."""
    temporary = path.with_name(TEMPORARY + path.name)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames, creations and deletions in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def point_symlink(link: Path, to: str) -> None:
    """Makes `link` point at `to` in one step, durably."""
    temporary = link.with_name(TEMPORARY + link.name)
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(to)
    temporary.replace(link)
    sync_folder(link.parent)


def remove_temporaries(folder: Path) -> None:
    """Deletes the unfinished files that a crash left in a folder."""
    for path in folder.glob(TEMPORARY + "*"):
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
