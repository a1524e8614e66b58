"""A small disk that can be filled and freed: a file system in memory, mounted; what is full is really full."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

_FILLER = "filler"
_PIECE = bytes(64 * 1024)


class NotPermitted(OSError):
    """Nothing can be mounted here: that takes root, and a container that allows it."""


class SmallDisk:
    """Mounted at a folder while the context lasts."""

    def __init__(self, folder: Path, size_kb: int) -> None:
        self.folder, self._size_kb = folder, size_kb

    def __enter__(self) -> SmallDisk:
        """Raises NotPermitted."""
        self.folder.mkdir(parents=True, exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self._size_kb}k", "tmpfs", str(self.folder)]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
            raise NotPermitted(f"no file system can be mounted at {self.folder}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Lazily, as a process that is just ending may still hold a file.
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def fill(self, dice: random.Random, most_left: int = 100_000) -> None:
        """To the last byte, or to one of the last `most_left`."""
        filler = self.folder / _FILLER
        try:
            with filler.open("ab", buffering=0) as file:
                while True:
                    file.write(_PIECE)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        if filler.exists():
            os.truncate(filler, max(0, filler.stat().st_size - dice.randrange(most_left)))

    def free(self) -> None:
        """As it was before."""
        (self.folder / _FILLER).unlink(missing_ok=True)
