"""Samples as one file (safetensors), read from memory or in place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as encode
from safetensors.numpy import save_file

from model.data import ARRAYS, BadSamples, Samples, check

MAX_HEADER_BYTES = 100_000_000
"""safetensors' own bound."""
_LENGTH_BYTES = 8
"""A file begins with the length of its header."""
_TYPES = {"U8": np.uint8, "I8": np.int8, "F32": np.float32, "I64": np.int64, "I32": np.int32}
_LABEL = "label."
"""Before the names of labels."""


def to_bytes(samples: Samples) -> bytes:
    """The file's content."""
    content: bytes = encode(*_content(samples))
    return content


def save(samples: Samples, path: Path) -> None:
    """Write the file."""
    arrays, metadata = _content(samples)
    save_file(arrays, path, metadata)


def from_bytes(content: bytes) -> Samples:
    """Reads `to_bytes`. Raises BadSamples."""
    return _read(np.frombuffer(content, np.uint8))


def open_file(path: Path) -> Samples:
    """Reads a file in place: frames come from the disk when they are drawn. Raises BadSamples."""
    try:
        return _read(np.memmap(path, np.uint8, "r"))
    except (OSError, ValueError) as error:
        raise BadSamples(f"{path}: {error}") from error


def _content(samples: Samples) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    given = {name: getattr(samples, name) for name in ARRAYS}
    given |= {_LABEL + name: label for name, label in samples.labels.items()}
    given |= {} if samples.before is None else {"before": samples.before}
    return {name: np.ascontiguousarray(a) for name, a in given.items()}, {"sources": json.dumps(samples.sources)}


def _read(raw: NDArray[np.uint8]) -> Samples:
    try:
        length = int.from_bytes(raw[:_LENGTH_BYTES].tobytes(), "little")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"a header of {length} bytes; at most {MAX_HEADER_BYTES}")
        begin = _LENGTH_BYTES + length
        header: dict[str, Any] = json.loads(raw[_LENGTH_BYTES:begin].tobytes())
        metadata = header.pop("__metadata__")
        arrays = {name: _array(raw[begin:], entry) for name, entry in header.items()}
        samples = Samples(
            **{name: arrays[name] for name in ARRAYS},
            sources=tuple(json.loads(metadata["sources"])),
            labels={name.removeprefix(_LABEL): a for name, a in arrays.items() if name.startswith(_LABEL)},
            before=arrays.get("before"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadSamples(f"not a file of samples: {error!r}") from error
    check(samples)
    return samples


def _array(data: NDArray[np.uint8], entry: Mapping[str, Any]) -> NDArray[Any]:
    begin, end = entry["data_offsets"]
    return data[begin:end].view(_TYPES[entry["dtype"]]).reshape(entry["shape"])
