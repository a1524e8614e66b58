"""Releases: a TUF repository of bundles, with what each was made from and how it drives under the signature.

The Update Framework specification 1.0; consistent snapshots. Layout: metadata/N.root.json, N.targets.json,
N.snapshot.json, timestamp.json; targets/HARDWARE/SHA256.NAME.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp

from registry.backends import PIECE_BYTES, locked, write_atomically
from registry.errors import Corrupt, Missing, Refused, Retry
from registry.signing import ROLES, KeyRing
from registry.store import NOT_JSON, canonical_json
from streams.contracts.jobs import Release
from streams.contracts.types import Count, Id, Name, NonNegative, Sha256, TimeNs

_S = TypeVar("_S", Root, Timestamp, Snapshot, Targets)
_COUNTER = "x-fleetwheel-release-counter"
"""In the signed part of targets: the highest number ever given, so that none comes twice after a removal."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long signed metadata is believed. A short timestamp life bounds how long a vehicle can be kept on an old
    release (freeze attack); `refresh` renews it."""

    root: timedelta = timedelta(days=365)
    targets: timedelta = timedelta(days=90)
    snapshot: timedelta = timedelta(days=7)
    timestamp: timedelta = timedelta(days=1)


class ReleaseCard(Struct, frozen=True):
    """What is signed with a bundle (the TUF target's `custom`)."""

    fingerprint: Sha256
    hardware: Id
    model_version: Name
    lineage: dict[Name, list[Name]] = {}
    """Kind -> ids that it was made from."""
    evaluation: dict[Name, float] = {}
    watts: NonNegative = 0.0
    watts_source: Name = ""
    """"measured" or "modelled"."""
    release: Count = 0
    """The counter; given when it is published."""
    published_ns: TimeNs = 0


@dataclass(frozen=True, slots=True)
class Published:
    """A release and its card."""

    release: Release
    card: ReleaseCard


class Releases:
    """The publisher's side of the repository in a folder. One publisher at a time: others wait.

    A release exists when timestamp.json names it; that file is replaced last and at once, so that a publisher
    killed anywhere leaves the old state, and a vehicle that updates meanwhile sees the old or the new state whole.
    Before anything is signed, what is there is verified. Raises Corrupt for what does not verify, Missing (keys,
    files), Refused (arguments), Retry (disk).
    """

    def __init__(
        self, folder: Path, keys: Path, offline_keys: Path | None = None, lifetimes: Lifetimes | None = None
    ) -> None:
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"
        self._ring = KeyRing(keys, offline_keys)
        self._lifetimes = lifetimes or Lifetimes()
        self._lock = keys / ".releases.lock"

    def create(self, now_ns: int) -> None:
        """Make keys and an empty repository where there are none; a repository that is there stays as it is."""
        with locked(self._lock):
            if (self.metadata / "timestamp.json").exists():
                return
            self._ring.make()
            if not (self.metadata / "1.root.json").exists():
                self._write_root(self._new_root(), now_ns)
            self._commit(Targets(unrecognized_fields={_COUNTER: 0}), 0, 0, now_ns)

    def trusted_root(self) -> bytes:
        """The first root metadata: what a vehicle is given when it is built."""
        try:
            return (self.metadata / "1.root.json").read_bytes()
        except FileNotFoundError as error:
            raise Missing(f"there is no repository at {self.metadata.parent}") from error

    def publish(self, bundle: Path, card: ReleaseCard, now_ns: int) -> Published:
        """Release a bundle; its counter is one more than the highest before. A fingerprint has one release for a
        hardware: the second call returns it, even with other bytes (a killed job builds its bundle again)."""
        card = _checked(msgspec.structs.replace(card, published_ns=now_ns))
        with locked(self._lock):
            targets, snapshot_version, timestamp_version = self._load()
            if found := _find(targets, card.fingerprint, card.hardware):
                return found
            number = int(targets.unrecognized_fields[_COUNTER]) + 1
            card = msgspec.structs.replace(card, release=number)
            target = self._target(bundle, f"{card.hardware}/{card.model_version}-r{number}.zip", card)
            self._keep(bundle, target)
            targets.targets[target.path] = target
            targets.unrecognized_fields[_COUNTER] = number
            self._commit(targets, snapshot_version, timestamp_version, now_ns)
            return _published(target)

    def find(self, fingerprint: str, hardware: str) -> Published | None:
        """The release of a fingerprint, None where there is none."""
        return _find(self._load()[0], fingerprint, hardware)

    def all(self) -> list[Published]:
        """All releases by their counter."""
        return _all(self._load()[0])

    def refresh(self, now_ns: int) -> datetime:
        """Renew snapshot and timestamp; needs the online keys only. Returns when the first of all roles expires:
        where that is near, `renew` is due."""
        with locked(self._lock):
            targets, snapshot_version, timestamp_version = self._load()
            self._seal(targets.version, snapshot_version, timestamp_version, now_ns)
            soon = [self._root().expires, targets.expires]
            return min(
                *soon, _expiry(now_ns, self._lifetimes.snapshot), _expiry(now_ns, self._lifetimes.timestamp)
            )

    def renew(self, now_ns: int) -> None:
        """Renew all roles, root and targets included; needs the offline keys."""
        with locked(self._lock):
            targets, snapshot_version, timestamp_version = self._load()
            root = self._root()
            root.version += 1
            self._write_root(root, now_ns)
            self._commit(targets, snapshot_version, timestamp_version, now_ns)

    def _new_root(self) -> Root:
        root = Root(consistent_snapshot=True)
        for role in ROLES:
            for signer in self._ring.signers(role.role):
                root.add_key(signer.public_key, role.role)
            root.roles[role.role].threshold = role.threshold
        return root

    def _write_root(self, root: Root, now_ns: int) -> None:
        root.expires = _expiry(now_ns, self._lifetimes.root)
        self._write(root, f"{root.version}.root.json", root)

    def _commit(self, targets: Targets, snapshot_version: int, timestamp_version: int, now_ns: int) -> None:
        """Sign the next targets, then all that names them. Nothing counts before the timestamp is replaced."""
        if snapshot_version > 0:
            targets.version += 1
        targets.expires = _expiry(now_ns, self._lifetimes.targets)
        self._write(targets, f"{targets.version}.targets.json", self._root())
        self._seal(targets.version, snapshot_version, timestamp_version, now_ns)

    def _seal(self, targets_version: int, snapshot_version: int, timestamp_version: int, now_ns: int) -> None:
        root = self._root()
        snapshot = Snapshot(
            snapshot_version + 1,
            expires=_expiry(now_ns, self._lifetimes.snapshot),
            meta={"targets.json": self._meta(f"{targets_version}.targets.json", targets_version)},
        )
        self._write(snapshot, f"{snapshot.version}.snapshot.json", root)
        timestamp = Timestamp(
            timestamp_version + 1,
            expires=_expiry(now_ns, self._lifetimes.timestamp),
            snapshot_meta=self._meta(f"{snapshot.version}.snapshot.json", snapshot.version),
        )
        self._write(timestamp, "timestamp.json", root)

    def _write(self, signed: Signed, name: str, root: Root) -> None:
        metadata: Metadata[Any] = Metadata(signed)
        for signer in self._ring.signers(signed.type):
            metadata.sign(signer, append=True)
        try:
            root.verify_delegate(signed.type, metadata.signed_bytes, metadata.signatures)
        except RepositoryError as error:
            raise Refused(f"the keys at hand are not those of the repository: {error}") from error
        try:
            write_atomically(self.metadata / name, [metadata.to_bytes()])
        except OSError as error:
            raise Retry(f"{self.metadata / name} cannot be written: {error}") from error

    def _meta(self, name: str, version: int) -> MetaFile:
        return MetaFile.from_data(version, (self.metadata / name).read_bytes(), ["sha256"])

    def _root(self) -> Root:
        """The newest root, verified from the first one on as a vehicle would."""
        metadata, version = self._parse("1.root.json", Root), 1
        trusted = metadata.signed
        try:
            trusted.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
            while (self.metadata / f"{version + 1}.root.json").exists():
                version += 1
                metadata = self._parse(f"{version}.root.json", Root)
                for judge in (trusted, metadata.signed):
                    judge.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
                trusted = metadata.signed
        except RepositoryError as error:
            raise Corrupt(f"{version}.root.json in {self.metadata} does not verify: {error}") from error
        return trusted

    def _load(self) -> tuple[Targets, int, int]:
        """The present targets and the versions of snapshot and timestamp, verified."""
        root = self._root()
        timestamp = self._verified("timestamp.json", Timestamp, root, None)
        snapshot_meta = timestamp.snapshot_meta
        snapshot = self._verified(f"{snapshot_meta.version}.snapshot.json", Snapshot, root, snapshot_meta)
        targets_meta = snapshot.meta["targets.json"]
        targets = self._verified(f"{targets_meta.version}.targets.json", Targets, root, targets_meta)
        return targets, snapshot.version, timestamp.version

    def _verified(self, name: str, kind: type[_S], root: Root, meta: MetaFile | None) -> _S:
        metadata = self._parse(name, kind)
        try:
            if meta is not None:
                meta.verify_length_and_hashes((self.metadata / name).read_bytes())
            root.verify_delegate(metadata.signed.type, metadata.signed_bytes, metadata.signatures)
        except RepositoryError as error:
            raise Corrupt(f"{name} in {self.metadata} does not verify: {error}") from error
        return metadata.signed

    def _parse(self, name: str, kind: type[_S]) -> Metadata[_S]:
        path = self.metadata / name
        if not path.exists():
            raise Missing(f"there is no repository at {self.metadata.parent}: {name} is not there")
        try:
            metadata: Metadata[_S] = Metadata.from_bytes(path.read_bytes())
        except RepositoryError as error:
            raise Corrupt(f"{path} is not TUF metadata: {error}") from error
        if not isinstance(metadata.signed, kind):
            raise Corrupt(f"{path} is {metadata.signed.type} metadata, not {kind.type}")
        return metadata

    def _target(self, bundle: Path, path: str, card: ReleaseCard) -> TargetFile:
        try:
            target = TargetFile.from_file(path, str(bundle), ["sha256"])
        except FileNotFoundError as error:
            raise Missing(f"the bundle {bundle} does not exist") from error
        target.unrecognized_fields["custom"] = custom_of(card)
        return target

    def _keep(self, bundle: Path, target: TargetFile) -> None:
        """Put the bytes where clients look for them; drop those of a killed attempt that got the same number."""
        folder, _, name = target.path.rpartition("/")
        path = self.targets / folder / f"{target.hashes['sha256']}.{name}"
        for stale in path.parent.glob(f"*.{name}"):
            stale.unlink()
        try:
            with bundle.open("rb") as file:
                write_atomically(path, iter(lambda: file.read(PIECE_BYTES), b""))
        except OSError as error:
            raise Retry(f"{path} cannot be written: {error}") from error


def custom_of(card: ReleaseCard) -> dict[str, Any]:
    """The card as a target's custom metadata. The canonical JSON that TUF signs has no fractions, so they go as
    text."""
    evaluation = {name: repr(value) for name, value in card.evaluation.items()}
    return {**msgspec.to_builtins(card), "watts": repr(card.watts), "evaluation": evaluation}


def card_of(custom: Mapping[str, Any]) -> ReleaseCard:
    """The card in a target's custom metadata. Raises Corrupt where it is none."""
    try:
        return msgspec.convert(custom, ReleaseCard, strict=False)
    except NOT_JSON as error:
        raise Corrupt(f"a target's custom metadata is not a release card: {error}") from error


def _checked(card: ReleaseCard) -> ReleaseCard:
    canonical_json(card)
    try:
        return msgspec.convert(msgspec.to_builtins(card), ReleaseCard)
    except msgspec.ValidationError as error:
        raise Refused(f"release card: {error}") from error


def _find(targets: Targets, fingerprint: str, hardware: str) -> Published | None:
    wanted = (p for p in _all(targets) if (p.card.fingerprint, p.card.hardware) == (fingerprint, hardware))
    return next(wanted, None)


def _all(targets: Targets) -> list[Published]:
    return sorted((_published(t) for t in targets.targets.values()), key=lambda p: p.release.version)


def _published(target: TargetFile) -> Published:
    card = card_of(target.custom or {})
    sha256 = target.hashes["sha256"]
    release = Release(card.release, card.model_version, target.path, sha256, target.length, card.hardware)
    return Published(release, card)


def _expiry(now_ns: int, lifetime: timedelta) -> datetime:
    return (datetime.fromtimestamp(now_ns // 1_000_000_000, UTC) + lifetime).replace(microsecond=0)
