"""Bundles to install in tests."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

HARDWARE = "test-cpu"


def bundle(path: Path, model: bytes = b"model", **manifest: Any) -> Path:
    """A bundle as edge.bundle writes it; `manifest` overrides fields."""
    fields = {
        "model_version": "m",
        "hardware": HARDWARE,
        "files": {"model.onnx": hashlib.sha256(model).hexdigest()},
        "watts": 20.0,
    }
    return zipped(path, {"manifest.json": json.dumps(fields | manifest).encode(), "model.onnx": model})


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip of these members."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return path
