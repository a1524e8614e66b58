"""A safetensors file with a header of ours: written whole or not at all, read only if it is whole and finite.
Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as _decode
from safetensors.torch import save as _encode
from torch import Tensor

_ENTRY = "fleetwheel"
Header = dict[str, Any]
"""JSON; its `format` says what the file is."""


class BadTensorFile(ValueError):
    """A file that cannot be used: says what is wrong with it."""


def encode(tensors: Mapping[str, Tensor], header: Header) -> bytes:
    """The file's content; equal tensors and headers give equal bytes."""
    # One entry: safetensors writes several in an order that changes from process to process.
    metadata = {_ENTRY: json.dumps(header, sort_keys=True)}
    content: bytes = _encode({k: tensors[k].detach().contiguous() for k in sorted(tensors)}, metadata)
    return content


def decode(content: bytes, kind: str) -> tuple[dict[str, Tensor], Header]:
    """Tensors and header of a file of format `kind`. Raises BadTensorFile for a file that is cut short, of another
    format, or not finite."""
    try:
        tensors: dict[str, Tensor] = _decode(content)
    except (SafetensorError, struct.error, ValueError) as error:
        raise BadTensorFile(f"not a whole safetensors file ({error})") from error
    try:
        header = _header(content)
        found = header["format"]
    except (KeyError, TypeError, ValueError) as error:
        raise BadTensorFile(f"it has no header of ours ({error})") from error
    if found != kind:
        raise BadTensorFile(f"format is {found!r}, not {kind!r}")
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise BadTensorFile(f"{bad[0]} and {len(bad) - 1} other tensors are not finite")
    return tensors, header


def write(content: bytes, path: Path) -> str:
    """Writes so that a reader sees all of it or none; returns the content's sha256 in hex."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return digest(content)


def read(path: Path, sha256: str | None = None) -> bytes:
    """A file's content. Raises BadTensorFile where it cannot be read, or is not of the given sha256."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadTensorFile(f"cannot be read: {error.strerror}") from error
    if sha256 is not None and (actual := digest(content)) != sha256:
        raise BadTensorFile(f"has sha256 {actual}, expected {sha256}: fetch it again")
    return content


def digest(content: bytes) -> str:
    """sha256 in hex."""
    return hashlib.sha256(content).hexdigest()


def _header(content: bytes) -> Header:
    """Our entry in the metadata of a safetensors file: 8 bytes of length, then JSON with `__metadata__`."""
    (length,) = struct.unpack("<Q", content[:8])
    header: Header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_ENTRY])
    return header
