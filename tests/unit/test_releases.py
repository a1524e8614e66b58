"""The release repository, seen by the publisher and by a TUF client that trusts only its first root."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from tuf.api import exceptions
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

import registry.backends
import registry.releases
import registry.signing
from registry.errors import Corrupt, Missing, Refused, Retry
from registry.releases import Lifetimes, ReleaseCard, Releases, card_of

NOW_NS = time.time_ns()
ONE, TWO = "1" * 64, "2" * 64


class FolderFetcher(FetcherInterface):
    """Serves a folder as a web server would."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._folder / urlsplit(url).path.lstrip("/")
        if not path.is_file():
            raise exceptions.DownloadHTTPError(f"{url} is not there", 404)
        return iter([path.read_bytes()])


class Vehicle:
    """A TUF client with its own memory."""

    def __init__(self, home: Path, repository: Path, root: bytes) -> None:
        self._home, self._repository, self._root = home, repository, root
        (home / "metadata").mkdir(parents=True)

    def update(self) -> Updater:
        fetcher = FolderFetcher(self._repository)
        updater = Updater(
            str(self._home / "metadata"),
            "https://fleet.test/metadata/",
            str(self._home),
            "https://fleet.test/targets/",
            fetcher,
            bootstrap=self._root,
        )
        updater.refresh()
        return updater

    def install(self, path: str) -> bytes | None:
        updater = self.update()
        target = updater.get_targetinfo(path)
        return Path(updater.download_target(target)).read_bytes() if target else None


def card(fingerprint: str = ONE, **changes: Any) -> ReleaseCard:
    base = ReleaseCard(
        fingerprint, "cpu-x86-64", "driver-1", {"dataset": ["d"]}, {"rate_per_km": 3.9}, 41.5, "modelled"
    )
    return msgspec.structs.replace(base, **changes)


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    releases = Releases(tmp_path / "repository", tmp_path / "keys")
    releases.create(NOW_NS)
    return releases


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle.zip"
    path.write_bytes(b"bundle" * 10_000)
    return path


@pytest.fixture
def vehicle(releases: Releases, tmp_path: Path) -> Vehicle:
    return Vehicle(tmp_path / "vehicle", tmp_path / "repository", releases.trusted_root())


def test_what_is_published_arrives_with_its_card(releases: Releases, bundle: Path, vehicle: Vehicle) -> None:
    published = releases.publish(bundle, card(), NOW_NS)
    assert published.release.version == 1
    assert published.release.bytes == bundle.stat().st_size
    assert vehicle.install(published.release.bundle) == bundle.read_bytes()
    target = vehicle.update().get_targetinfo(published.release.bundle)
    assert target is not None
    assert card_of(target.custom or {}) == published.card == card(release=1, published_ns=NOW_NS)


def test_a_fingerprint_is_released_once_and_the_counter_grows(releases: Releases, bundle: Path) -> None:
    first = releases.publish(bundle, card(), NOW_NS)
    bundle.write_bytes(b"built again, other bytes")
    assert releases.publish(bundle, card(), NOW_NS + 1) == first
    second = releases.publish(bundle, card(TWO, model_version="driver-2"), NOW_NS)
    other = releases.publish(bundle, card(hardware="orin"), NOW_NS)
    assert [p.release.version for p in releases.all()] == [1, 2, 3]
    assert releases.all() == [first, second, other]
    assert releases.find(TWO, "cpu-x86-64") == second
    assert releases.find("3" * 64, "cpu-x86-64") is None


def test_the_card_is_checked(releases: Releases, bundle: Path) -> None:
    for wrong in (card("x"), card(hardware="../up"), card(watts=-1.0), card(evaluation={"rate": float("nan")})):
        with pytest.raises(Refused):
            releases.publish(bundle, wrong, NOW_NS)
    with pytest.raises(Missing, match=r"nothing\.zip"):
        releases.publish(bundle.with_name("nothing.zip"), card(), NOW_NS)
    with pytest.raises(Corrupt, match="not a release card"):
        card_of({"fingerprint": 3})
    assert releases.all() == []


def test_keys_are_for_their_owner_alone_and_apart(releases: Releases, bundle: Path, tmp_path: Path) -> None:
    keys = sorted(p.relative_to(tmp_path / "keys").as_posix() for p in (tmp_path / "keys").rglob("*.pem"))
    online, offline = ([k for k in keys if k.startswith(place)] for place in ("online", "offline"))
    assert [Path(k).stem for k in online] == ["snapshot-1", "timestamp-1"]
    assert [Path(k).stem for k in offline] == ["root-1", "root-2", "root-3", "targets-1", "targets-2"]
    assert all((tmp_path / "keys" / k).stat().st_mode & 0o777 == 0o600 for k in keys)
    (tmp_path / "keys" / "online" / "timestamp-1.pem").chmod(0o644)
    with pytest.raises(Refused, match="chmod 600"):
        releases.publish(bundle, card(), NOW_NS)


def test_without_the_offline_keys_time_is_renewed_but_nothing_released(
    releases: Releases, bundle: Path, vehicle: Vehicle, tmp_path: Path
) -> None:
    published = releases.publish(bundle, card(), NOW_NS)
    shutil.move(tmp_path / "keys" / "offline", tmp_path / "safe")
    releases.refresh(NOW_NS)
    assert vehicle.install(published.release.bundle)
    with pytest.raises(Missing, match="plug in"):
        releases.publish(bundle, card(TWO), NOW_NS)
    with pytest.raises(Missing):
        releases.renew(NOW_NS)
    plugged = Releases(tmp_path / "repository", tmp_path / "keys", tmp_path / "safe")
    assert plugged.publish(bundle, card(TWO), NOW_NS).release.version == 2
    assert vehicle.update()


def test_keys_of_another_repository_sign_nothing(releases: Releases, bundle: Path, tmp_path: Path) -> None:
    Releases(tmp_path / "other", tmp_path / "other-keys").create(NOW_NS)
    with pytest.raises(Refused, match="not those of the repository"):
        Releases(tmp_path / "repository", tmp_path / "other-keys").publish(bundle, card(), NOW_NS)
    assert releases.all() == []


def test_creating_again_changes_nothing(releases: Releases, bundle: Path, tmp_path: Path) -> None:
    releases.publish(bundle, card(), NOW_NS)
    root = releases.trusted_root()
    Releases(tmp_path / "repository", tmp_path / "keys").create(NOW_NS)
    assert releases.trusted_root() == root
    assert len(releases.all()) == 1
    with pytest.raises(Missing, match="no repository"):
        Releases(tmp_path / "nowhere", tmp_path / "keys").trusted_root()


def test_renewal_moves_every_expiry_and_vehicles_follow(
    releases: Releases, bundle: Path, vehicle: Vehicle
) -> None:
    published = releases.publish(bundle, card(), NOW_NS)
    assert vehicle.update()
    later_ns = NOW_NS + 40 * 24 * 3600 * 10**9
    first = releases.refresh(later_ns)
    releases.renew(later_ns)
    assert releases.refresh(later_ns) >= first
    assert (releases.metadata / "2.root.json").exists()
    assert vehicle.install(published.release.bundle) == bundle.read_bytes()
    assert releases.publish(bundle, card(TWO), later_ns).release.version == 2


# What a vehicle must not believe

UNBELIEVED = (exceptions.RepositoryError, exceptions.DownloadLengthMismatchError)


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_bytes())
    change(value["signed"])
    path.write_bytes(json.dumps(value, separators=(",", ":")).encode())


def test_a_changed_bundle_is_not_installed(releases: Releases, bundle: Path, vehicle: Vehicle) -> None:
    published = releases.publish(bundle, card(), NOW_NS)
    (kept,) = releases.targets.rglob("*.zip")
    for evil in (b"evil" + kept.read_bytes()[4:], kept.read_bytes()[:-1], kept.read_bytes() + b"endless" * 1000):
        kept.write_bytes(evil)
        with pytest.raises(UNBELIEVED):
            vehicle.install(published.release.bundle)


@pytest.mark.parametrize("name", ["2.targets.json", "2.snapshot.json", "timestamp.json"])
def test_changed_metadata_is_believed_by_nobody(
    releases: Releases, bundle: Path, vehicle: Vehicle, name: str
) -> None:
    releases.publish(bundle, card(), NOW_NS)
    _edit(releases.metadata / name, lambda signed: signed.update(version=7))
    with pytest.raises(UNBELIEVED):
        vehicle.update()
    with pytest.raises(Corrupt, match=name):
        releases.publish(bundle, card(TWO), NOW_NS)


def test_a_card_cannot_be_changed_after_signing(releases: Releases, bundle: Path, vehicle: Vehicle) -> None:
    published = releases.publish(bundle, card(), NOW_NS)

    def better(signed: dict[str, Any]) -> None:
        signed["targets"][published.release.bundle]["custom"]["release"] = 99

    _edit(releases.metadata / "2.targets.json", better)
    with pytest.raises(UNBELIEVED):
        vehicle.update()


def test_an_older_state_is_not_believed_after_a_newer_one(
    releases: Releases, bundle: Path, vehicle: Vehicle
) -> None:
    releases.publish(bundle, card(), NOW_NS)
    old = (releases.metadata / "timestamp.json").read_bytes()
    releases.publish(bundle, card(TWO), NOW_NS)
    assert vehicle.update()
    (releases.metadata / "timestamp.json").write_bytes(old)
    with pytest.raises(exceptions.BadVersionNumberError):
        vehicle.update()


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_what_has_expired_is_not_believed(tmp_path: Path, bundle: Path, role: str) -> None:
    lifetimes = Lifetimes(**{role: timedelta(seconds=-5)})
    releases = Releases(tmp_path / "repository", tmp_path / "keys", lifetimes=lifetimes)
    releases.create(NOW_NS)
    releases.publish(bundle, card(), NOW_NS)
    vehicle = Vehicle(tmp_path / "vehicle", tmp_path / "repository", releases.trusted_root())
    with pytest.raises(exceptions.ExpiredMetadataError):
        vehicle.update()


def test_a_repository_of_a_stranger_is_not_believed(releases: Releases, bundle: Path, tmp_path: Path) -> None:
    stranger = Releases(tmp_path / "stranger", tmp_path / "stranger-keys")
    stranger.create(NOW_NS)
    stranger.publish(bundle, card(), NOW_NS)
    vehicle = Vehicle(tmp_path / "vehicle", tmp_path / "stranger", releases.trusted_root())
    with pytest.raises(exceptions.RepositoryError):
        vehicle.update()


# A publisher that is killed


class Killed(BaseException):
    """Stands for kill -9: nothing in the code may catch it."""


def _deadly(n: int, after: bool) -> Callable[..., None]:
    left = n
    original = registry.backends.write_atomically

    def write(path: Path, pieces: Iterable[bytes], durable: bool = True, mode: int = 0o644) -> None:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            raise Killed
        original(path, pieces, durable, mode)
        if left == 0:
            raise Killed

    return write


@pytest.mark.parametrize("at", [(n, after) for n in range(1, 5) for after in (False, True)])
def test_a_publisher_killed_at_any_write_makes_one_release(
    releases: Releases, bundle: Path, vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch, at: tuple[int, bool]
) -> None:
    zeroth = releases.publish(bundle, card(TWO), NOW_NS)
    with monkeypatch.context() as patch:
        patch.setattr(registry.releases, "write_atomically", _deadly(*at))
        with pytest.raises(Killed):
            releases.publish(bundle, card(), NOW_NS)
    assert vehicle.install(zeroth.release.bundle) == bundle.read_bytes()
    bundle.write_bytes(b"built again")
    published = releases.publish(bundle, card(), NOW_NS + 1)
    assert [p.release.version for p in releases.all()] == [1, 2]
    assert vehicle.install(published.release.bundle) is not None
    assert len(list(releases.targets.rglob("*.zip"))) == 2


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("n", range(1, 12))
def test_a_repository_killed_while_it_is_made_is_made_by_the_next_call(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, n: int, after: bool
) -> None:
    releases = Releases(tmp_path / "repository", tmp_path / "keys")
    deadly = _deadly(n, after)
    with monkeypatch.context() as patch:
        patch.setattr(registry.signing, "write_atomically", deadly)
        patch.setattr(registry.releases, "write_atomically", deadly)
        with pytest.raises(Killed):
            releases.create(NOW_NS)
    releases.create(NOW_NS)
    vehicle = Vehicle(tmp_path / "vehicle", tmp_path / "repository", releases.trusted_root())
    assert vehicle.install(releases.publish(bundle, card(), NOW_NS).release.bundle) == bundle.read_bytes()


def test_a_full_disk_asks_for_a_retry_and_leaves_the_old_state(
    releases: Releases, bundle: Path, vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(registry.releases, "write_atomically", full)
        with pytest.raises(Retry, match="No space left"):
            releases.publish(bundle, card(), NOW_NS)
    assert vehicle.update()
    assert releases.all() == []
