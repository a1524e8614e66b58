"""Dataset versions: immutable manifests of clips, named by the sha256 of their content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from registry.errors import Corrupt, Refused
from registry.store import NOT_JSON, Store, canonical_json
from streams.contracts.ids import bucket, sha256_hex
from streams.contracts.types import Id, Name, Sha256

TRAIN, VALIDATION, TEST = "train", "validation", "test"


class DatasetClip(Struct, frozen=True):
    """A clip's place in a dataset."""

    clip_id: Id
    sha256: Sha256
    vehicle: Id
    split: Name = TRAIN
    weight: Annotated[float, Meta(gt=0.0, le=1e6)] = 1.0
    """How often it is drawn, relative to the others."""


class Dataset(Struct, frozen=True, tag="fleetwheel.dataset.v1", tag_field="type"):
    """A dataset version. Two with the same clips, weights and recipe are the same version."""

    clips: tuple[DatasetClip, ...]
    """By clip id; no vehicle and no content is in two splits."""
    recipe: Name = ""
    """How the clips were chosen and weighted."""
    parents: tuple[Sha256, ...] = ()
    """Versions that it continues, sorted."""

    @property
    def version(self) -> str:
        """sha256 of the canonical JSON: the name under which a store holds the manifest."""
        return sha256_hex(canonical_json(self))

    def split(self, name: str) -> tuple[DatasetClip, ...]:
        """The clips of a split, by clip id."""
        return tuple(c for c in self.clips if c.split == name)


def make_dataset(clips: Iterable[DatasetClip], recipe: str = "", parents: Iterable[str] = ()) -> Dataset:
    """A dataset version of these clips, in whatever order they come.

    Raises Refused for a clip id that comes twice, a value out of bounds, and where a vehicle or a clip's content
    is in two splits: what is learned from must not be what is measured on.
    """
    ordered = tuple(sorted(clips, key=lambda c: c.clip_id))
    dataset = Dataset(ordered, recipe, tuple(sorted(set(parents))))
    _check(dataset)
    try:
        return msgspec.convert(msgspec.to_builtins(dataset), Dataset)
    except msgspec.ValidationError as error:
        raise Refused(f"dataset: {error}") from error


def split_of(vehicle: str, shares: Mapping[str, float], salt: str = "dataset") -> str:
    """The split of a vehicle: a fixed draw with probability `shares` (which sum to 1), so that a vehicle keeps its
    split in every later version. Raises Refused for shares that do not sum to 1."""
    if not shares or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise Refused(f"shares {dict(shares)} do not sum to 1")
    place, above = bucket(salt, vehicle), 0.0
    for name, share in shares.items():
        above += share
        if place < above:
            return name
    return [name for name, share in shares.items() if share > 0][-1]


def save_dataset(store: Store, dataset: Dataset) -> str:
    """Keep the manifest; its version. The same manifest twice is kept once."""
    return store.put(canonical_json(dataset), dataset.version).sha256


def load_dataset(store: Store, version: str) -> Dataset:
    """The manifest of a version. Raises Missing, and Corrupt where it is not one or breaks a rule."""
    try:
        dataset = msgspec.json.decode(store.get(version), type=Dataset)
        _check(dataset)
    except (*NOT_JSON, Refused) as error:
        raise Corrupt(f"dataset {version}: {error}") from error
    return dataset


def _check(dataset: Dataset) -> None:
    ids = [c.clip_id for c in dataset.clips]
    if repeated := {i for i, after in pairwise(ids) if i == after}:
        raise Refused(f"clips come twice: {sorted(repeated)[:5]}")
    if ids != sorted(ids):
        raise Refused("clips are not in the order of their ids")
    _check_disjoint("vehicle", ((c.vehicle, c.split) for c in dataset.clips))
    _check_disjoint("content", ((c.sha256, c.split) for c in dataset.clips))


def _check_disjoint(what: str, members: Iterable[tuple[str, str]]) -> None:
    seen: dict[str, str] = {}
    for member, split in members:
        if seen.setdefault(member, split) != split:
            raise Refused(f"{what} {member} is in two splits: {seen[member]!r} and {split!r}")
