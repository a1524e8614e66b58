"""An adapter and the base that it belongs to, as files: what one region or vehicle type changes of a base
model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from model.checkpoint import BadCheckpoint, Checkpoint, from_bytes, to_bytes
from model.tensor_file import BadTensorFile, decode, digest, encode, read, write

FORMAT = "fleetwheel.adapter/1"
UP, DOWN = ".up", ".down"


class BadAdapter(ValueError):
    """An adapter that cannot be used: says what is wrong with it."""


class WrongBase(BadAdapter):
    """An adapter of another base model: names both."""


@dataclass(frozen=True, slots=True)
class Base:
    """A finished model that adapters belong to."""

    checkpoint: Checkpoint
    sha256: str
    """Of its file, in hex."""

    @property
    def parameters(self) -> int:
        """How many it has."""
        return sum(weight.numel() for weight in self.checkpoint.weights.values())


@dataclass(frozen=True, slots=True)
class Adapter:
    """What is added to a base's weights."""

    name: str
    """Of the region or vehicle type."""
    base_sha256: str
    weights: dict[str, Tensor]
    """For each adapted weight of the base, `<weight>.up` [out, r] and `<weight>.down` [r, in]."""

    @property
    def parameters(self) -> int:
        """How many it has."""
        return sum(weight.numel() for weight in self.weights.values())

    @property
    def adapted(self) -> list[str]:
        """Names of the base's weights that it changes."""
        return [name.removesuffix(UP) for name in self.weights if name.endswith(UP)]


def base_of(checkpoint: Checkpoint) -> Base:
    """A model in memory as a base; its sha256 is that of the file which `checkpoint.save` writes of it."""
    finished = checkpoint.finished()
    return Base(finished, digest(to_bytes(finished)))


def load_base(path: Path) -> Base:
    """A model's file as a base. Raises BadCheckpoint."""
    try:
        data = read(path)
        return Base(from_bytes(data).finished(), digest(data))
    except (BadTensorFile, BadCheckpoint) as error:
        raise BadCheckpoint(f"checkpoint {path}: {error}") from error


def content(adapter: Adapter) -> bytes:
    """The file's content; equal adapters give equal bytes."""
    return encode(adapter.weights, {"format": FORMAT, "name": adapter.name, "base": adapter.base_sha256})


def save(adapter: Adapter, path: Path) -> str:
    """Writes the file so that a reader sees all of it or none, and returns its sha256 in hex."""
    return write(content(adapter), path)


def load(path: Path) -> Adapter:
    """Reads what `save` wrote. Raises BadAdapter for a file that is absent, cut short, of another format, or not
    finite."""
    try:
        weights, header = decode(read(path), FORMAT)
        adapter = Adapter(str(header["name"]), str(header["base"]), weights)
    except KeyError as error:
        raise BadAdapter(f"adapter {path}: its header has no {error}") from error
    except BadTensorFile as error:
        raise BadAdapter(f"adapter {path}: {error}") from error
    pairs = {name + end for name in adapter.adapted for end in (UP, DOWN)}
    if set(weights) != pairs:
        raise BadAdapter(f"adapter {path}: its tensors are no pairs of *{UP} and *{DOWN}")
    return adapter
