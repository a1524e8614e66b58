"""Samples as one file (safetensors), read from memory or in place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as encode
from safetensors.numpy import save_file

from model.data import ARRAYS, BadSamples, Samples, check

MAX_HEADER_BYTES = 100_000_000
"""safetensors' own bound."""
_LENGTH_BYTES = 8
"""A file begins with the length of its header."""
_KINDS = {"U8": np.uint8, "I8": np.int8, "F32": np.float32, "I64": np.int64, "I32": np.int32}
_OF: Mapping[str, np.dtype[Any]] = {
    **dict.fromkeys(ARRAYS, np.dtype(np.float32)),
    "images": np.dtype(np.uint8),
    "command": np.dtype(np.int64),
    "source": np.dtype(np.int32),
    "before": np.dtype(np.int64),
}
"""Of what every file has; check_labels knows those of labels."""
_LABEL = "label."
"""Before the names of labels."""


_Natural = Annotated[int, msgspec.Meta(ge=0)]


class _Entry(msgspec.Struct):
    """Of a header."""

    dtype: str
    shape: tuple[_Natural, ...]
    data_offsets: tuple[_Natural, _Natural]


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
        header = json.loads(raw[_LENGTH_BYTES:begin].tobytes())
        sources = msgspec.json.decode(header.pop("__metadata__")["sources"], type=tuple[str, ...])
        entries = msgspec.convert(header, dict[str, _Entry])
        _check_whole(entries, len(raw) - begin)
        arrays = {name: _array(raw[begin:], name, entry) for name, entry in entries.items()}
        samples = Samples(
            **{name: arrays[name] for name in ARRAYS},
            sources=sources,
            labels={name.removeprefix(_LABEL): a for name, a in arrays.items() if name.startswith(_LABEL)},
            before=arrays.get("before"),
        )
        check(samples)
        if samples.source.min() < 0 or samples.source.max() >= len(sources):
            raise BadSamples(f"source is not in 0..{len(sources) - 1}")
    except BadSamples:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadSamples(f"not a file of samples: {error!r}") from error
    return samples


def _check_whole(entries: Mapping[str, _Entry], size: int) -> None:
    """Arrays lie one behind the other and fill the file. Raises ValueError."""
    edge = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        if begin != edge or end < begin:
            raise ValueError(f"{name} lies at {begin} to {end}, not from {edge} on")
        edge = end
    if edge != size:
        raise ValueError(f"{size} bytes, of which arrays are {edge}")


def _array(data: NDArray[np.uint8], name: str, entry: _Entry) -> NDArray[Any]:
    kind = np.dtype(_KINDS[entry.dtype])
    if kind != _OF.get(name, kind):
        raise ValueError(f"{name} is {kind}, must be {_OF[name]}")
    begin, end = entry.data_offsets
    return data[begin:end].view(kind).reshape(entry.shape)
