"""Updates end to end over a real TUF repository in a folder, and every way in which one must fail."""

from __future__ import annotations

import re
import shutil
import time
from datetime import timedelta
from pathlib import Path

import pytest

from edge.agent.tuf_source import TufSource
from edge.agent.updater import BadState, Installer, model_file
from edge.agent.updates import Conditions, Do, Phase, Policy
from registry.releases import Lifetimes, ReleaseCard, Releases
from streams.contracts.ids import sha256_hex
from streams.contracts.jobs import Release
from streams.contracts.releases import Rollout, RolloutState
from tests.unit.vehicle_bundles import HARDWARE, bundle

PARKED = Conditions(parked=True)
POLICY = Policy(healthy_frames=3, retry_s=1)
DAY_NS = 86_400 * 10**9


class Fleet:
    """A repository, and one vehicle."""

    def __init__(self, folder: Path, max_bytes: int = 1 << 20) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.releases = Releases(
            self.repository, folder / "keys", lifetimes=Lifetimes(timestamp=timedelta(days=1))
        )
        self.releases.create(time.time_ns())
        self._root, self._max_bytes = self.releases.trusted_root(), max_bytes
        self.open()

    def open(self) -> None:
        """As after a restart."""
        url = self.repository.resolve().as_uri()
        source = TufSource(self.folder / "tuf", url, self._root, self._max_bytes)
        self.vehicle = Installer(self.folder / "vehicle", HARDWARE, source, POLICY)

    def publish(self, name: str, hardware: str = HARDWARE, built_for: str | None = None) -> Release:
        path = bundle(
            self.folder / f"{name}.zip", name.encode(), hardware=built_for or hardware, model_version=name
        )
        card = ReleaseCard(sha256_hex(name.encode()), hardware, name)
        return self.releases.publish(path, card, time.time_ns()).release

    def offer(self, release: Release, previous: Release | None = None) -> None:
        state = RolloutState.COMPLETE
        self.vehicle.offer(Rollout("r", HARDWARE, 1, state, release, previous, share=1.0), "v1")

    def halt(self, release: Release, previous: Release) -> None:
        state = RolloutState.HALTED
        self.vehicle.offer(Rollout("r", HARDWARE, 2, state, release, previous, share=1.0), "v1")

    def step(self, now_ns: int = 0) -> Do:
        return self.vehicle.step(now_ns, PARKED)

    def install(self, release: Release) -> None:
        self.offer(release)
        assert [self.step(), self.step()] == [Do.DOWNLOAD, Do.SWITCH], self.vehicle.state.problem
        assert self.vehicle.boot() is not None
        for i in range(3):
            self.vehicle.health(i, healthy=True)
        assert self.step() is Do.COMMIT

    def boots(self) -> bytes | None:
        """The model that the vehicle would load now."""
        slot = self.vehicle.boot()
        return model_file(slot).read_bytes() if slot else None


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_install_update_and_telemetry(fleet: Fleet) -> None:
    assert fleet.boots() is None and fleet.vehicle.release == ""
    fleet.install(fleet.publish("one"))
    assert (fleet.boots(), fleet.vehicle.release, fleet.vehicle.reported_state) == (b"one", "1", "idle")
    fleet.offer(fleet.publish("two"))
    assert [fleet.step(), fleet.step()] == [Do.DOWNLOAD, Do.SWITCH]
    assert (fleet.boots(), fleet.vehicle.reported_state) == (b"two", "probation")
    assert (fleet.folder / "vehicle/current/model.onnx").read_bytes() == b"two"
    assert list((fleet.folder / "tuf/targets").iterdir()) == []


def test_an_unhealthy_release_rolls_itself_back_and_stays_out(fleet: Fleet) -> None:
    fleet.install(fleet.publish("one"))
    fleet.offer(fleet.publish("two"))
    fleet.step()
    fleet.step()
    fleet.vehicle.boot()
    for i in range(5):
        fleet.vehicle.health(i, healthy=False)
    assert fleet.step() is Do.ROLL_BACK
    assert (fleet.boots(), fleet.vehicle.reported_state) == (b"one", "rolled_back")
    assert fleet.step(10**18) is Do.NOTHING
    fleet.open()
    assert fleet.boots() == b"one" and fleet.step(10**18) is Do.NOTHING


def test_a_halted_rollout_goes_back_without_the_network(fleet: Fleet) -> None:
    one = fleet.publish("one")
    fleet.install(one)
    two = fleet.publish("two")
    fleet.install(two)
    shutil.rmtree(fleet.repository)
    fleet.halt(two, one)
    assert fleet.step() is Do.RETURN and fleet.boots() == b"one"


def test_a_rollout_of_other_hardware_is_not_for_us(fleet: Fleet) -> None:
    fleet.vehicle.offer(
        Rollout("r", "orin", 1, RolloutState.COMPLETE, fleet.publish("one"), None, share=1.0), "v1"
    )
    assert fleet.step() is Do.NOTHING


def refused(fleet: Fleet, problem: str, running: bytes | None = b"one") -> None:
    """The step changes nothing that boots, and says why."""
    assert fleet.step(10**18) is Do.DOWNLOAD
    assert problem in fleet.vehicle.state.problem
    assert fleet.vehicle.state.phase is Phase.IDLE
    assert fleet.step(10**18 + 1) is Do.NOTHING
    assert fleet.boots() == running
    fleet.open()
    assert fleet.boots() == running


def test_a_tampered_bundle(fleet: Fleet) -> None:
    fleet.install(fleet.publish("one"))
    fleet.offer(fleet.publish("two"))
    (target,) = (fleet.repository / "targets" / HARDWARE).glob("*two*")
    data = target.read_bytes()
    target.chmod(0o600)
    target.write_bytes(data.replace(b"two", b"bad"))
    refused(fleet, "LengthOrHashMismatchError")


def test_endless_data(fleet: Fleet) -> None:
    fleet.install(fleet.publish("one"))
    fleet.offer(fleet.publish("two"))
    (target,) = (fleet.repository / "targets" / HARDWARE).glob("*two*")
    target.chmod(0o600)
    with target.open("ab") as file:
        file.truncate(1 << 40)
    refused(fleet, "DownloadLengthMismatchError")


def test_endless_metadata(fleet: Fleet) -> None:
    fleet.install(fleet.publish("one"))
    fleet.offer(fleet.publish("two"))
    with (fleet.repository / "metadata/timestamp.json").open("ab") as file:
        file.truncate(1 << 40)
    refused(fleet, "DownloadLengthMismatchError")


def test_tampered_metadata(fleet: Fleet) -> None:
    fleet.install(fleet.publish("one"))
    fleet.offer(fleet.publish("two"))
    path = fleet.repository / "metadata/timestamp.json"
    changed, count = re.subn(rb'("expires": ?)"2', rb'\1"9', path.read_bytes())
    path.write_bytes(changed)
    assert count == 1
    refused(fleet, "UnsignedMetadataError")


def test_a_repository_that_shows_its_past(fleet: Fleet) -> None:
    fleet.install(fleet.publish("one"))
    past = fleet.folder / "past"
    shutil.copytree(fleet.repository, past)
    fleet.install(fleet.publish("two"))
    three = fleet.publish("three")
    shutil.rmtree(fleet.repository)
    past.rename(fleet.repository)
    fleet.offer(three)
    refused(fleet, "BadVersionNumberError", running=b"two")


def test_a_frozen_repository(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.install(fleet.publish("one"))
    two = fleet.publish("two")
    fleet.releases.refresh(time.time_ns() - 2 * DAY_NS)
    fleet.offer(two)
    refused(fleet, "ExpiredMetadataError")


def test_metadata_signed_by_somebody_else(fleet: Fleet, tmp_path: Path) -> None:
    fleet.install(fleet.publish("one"))
    other = Fleet(tmp_path / "other")
    for _ in range(3):
        last = other.publish(f"evil{_}")
    shutil.rmtree(fleet.repository)
    shutil.copytree(other.repository, fleet.repository)
    fleet.offer(last)
    refused(fleet, "Unsigned")


def test_no_repository_at_all(fleet: Fleet) -> None:
    fleet.install(fleet.publish("one"))
    two = fleet.publish("two")
    shutil.rmtree(fleet.repository)
    fleet.offer(two)
    refused(fleet, "does not exist")


def test_a_target_that_was_never_signed(fleet: Fleet) -> None:
    fleet.install(fleet.publish("one"))
    fleet.offer(Release(2, "two", "test-cpu/two.zip", "0" * 64, 1, HARDWARE))
    refused(fleet, "not among the signed targets")


def test_signed_for_other_hardware(fleet: Fleet) -> None:
    fleet.install(fleet.publish("one"))
    fleet.offer(fleet.publish("two", hardware="orin"))
    refused(fleet, "signed for hardware 'orin'")
    assert fleet.vehicle.state.refused == (2,)


def test_built_for_other_hardware_than_it_is_signed_for(fleet: Fleet) -> None:
    fleet.install(fleet.publish("one"))
    fleet.offer(fleet.publish("two", built_for="orin"))
    refused(fleet, "built for hardware 'orin'")


def test_a_message_that_calls_an_old_release_new(fleet: Fleet) -> None:
    one = fleet.publish("one")
    fleet.install(one)
    fleet.install(fleet.publish("two"))
    fleet.offer(Release(9, one.model_version, one.bundle, one.sha256, one.bytes, HARDWARE))
    refused(fleet, "is signed as release 1, not 9", running=b"two")


def test_a_bundle_above_the_size_limit(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, max_bytes=10)
    fleet.offer(fleet.publish("one"))
    refused(fleet, "at most 10", running=None)


def test_a_damaged_slot_is_not_booted(fleet: Fleet) -> None:
    fleet.install(fleet.publish("one"))
    fleet.install(fleet.publish("two"))
    (fleet.folder / "vehicle/current/model.onnx").write_bytes(b"twO")
    assert fleet.boots() == b"one" and fleet.vehicle.reported_state == "rolled_back"
    (fleet.folder / "vehicle/current/model.onnx").write_bytes(b"onE")
    assert fleet.boots() is None
    fleet.open()
    assert fleet.boots() is None and fleet.vehicle.release == ""


def test_after_damage_the_same_release_may_come_again(fleet: Fleet) -> None:
    fleet.install(fleet.publish("one"))
    (fleet.folder / "vehicle/current/model.onnx").write_bytes(b"onE")
    assert fleet.boots() is None
    assert [fleet.step(), fleet.step()] == [Do.DOWNLOAD, Do.SWITCH]
    assert fleet.boots() == b"one"


def test_a_record_that_cannot_be_read_stops_the_updater(fleet: Fleet) -> None:
    fleet.install(fleet.publish("one"))
    (fleet.folder / "vehicle/state.json").write_bytes(b"{")
    with pytest.raises(BadState, match=r"state\.json"):
        fleet.open()


def test_a_full_disk_is_a_problem_for_later(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.install(fleet.publish("one"))
    fleet.offer(fleet.publish("two"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("edge.agent.updater.unpack", full)
        assert fleet.step(0) is Do.DOWNLOAD
    assert "No space left" in fleet.vehicle.state.problem and fleet.boots() == b"one"
    assert [fleet.step(10**10), fleet.step(10**10)] == [Do.DOWNLOAD, Do.SWITCH]
    assert fleet.boots() == b"two"
