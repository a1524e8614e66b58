"""Whatever happens, and wherever the power goes: only verified bytes boot, and what was proven keeps booting."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.agent.bundles import BadBundle
from edge.agent.tuf_source import Unavailable
from edge.agent.updater import Installer, model_file
from edge.agent.updates import Conditions, Do, Phase, Policy, next_step
from streams.contracts.jobs import Release
from streams.contracts.releases import Rollout, RolloutState
from tests.unit.vehicle_bundles import HARDWARE, bundle

POLICY = Policy(healthy_frames=2, unhealthy_frames=2, window_s=1e9, max_boots=2, retry_s=0)
FIT, UNFIT, UNTRUSTED = "fit", "unfit", "untrusted"


class PowerCut(BaseException):
    """Not an Exception: nothing in the program may catch it."""


@contextmanager
def power_for(steps: int | None) -> Iterator[None]:
    """Lets so many changes of the disk happen, then cuts the power before the next one."""
    left = [10**9 if steps is None else steps]

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if left[0] <= 0:
                raise PowerCut
            left[0] -= 1
            return original(*args, **kwargs)

        return call

    with ExitStack() as stack:
        for name in ("replace", "symlink_to", "unlink", "mkdir", "open"):
            stack.enter_context(patch.object(Path, name, counted(getattr(Path, name))))
        stack.enter_context(patch("shutil.rmtree", counted(shutil.rmtree)))
        stack.enter_context(patch("os.fsync", counted(lambda _: None)))
        yield


class Shop:
    """A source of bundles without the cryptography, which test_agent_updater.py has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kinds: dict[int, str] = {}

    def fetch(self, release: Release, hardware: str) -> Path:
        kind = self.kinds[release.version]
        if kind == UNTRUSTED:
            raise Unavailable(f"release {release.version} does not verify")
        path = self.folder / f"{release.version}.zip"
        model = b"model %d" % release.version
        return bundle(path, model, hardware=hardware if kind == FIT else "another")


class Updater(RuleBasedStateMachine):
    """One vehicle, its fleet, and its mains plug."""

    policy = POLICY

    @initialize()
    def build(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="updater-"))
        self.shop = Shop(self.folder)
        self.rotten: set[str] = set()
        self.highest = 0
        self.time_ns = 0
        self.restart(None)
        self.newest(FIT)
        for _ in range(2):
            self.vehicle.step(0, Conditions(parked=True))
        self.drive(healthy=True, power=None)
        assert self.vehicle.state.phase is Phase.COMMITTED

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def restart(self, power: int | None) -> None:
        """Starts the process until it comes up: the power may go while it mends the last cut."""
        try:
            with power_for(power):
                self.vehicle = Installer(self.folder / "vehicle", HARDWARE, self.shop, self.policy)
        except PowerCut:
            with power_for(None):
                self.vehicle = Installer(self.folder / "vehicle", HARDWARE, self.shop, self.policy)

    @rule(kind=st.sampled_from([FIT, FIT, FIT, UNFIT, UNTRUSTED]))
    def publish(self, kind: str) -> None:
        self.shop.kinds[len(self.shop.kinds) + 1] = kind

    @rule(kind=st.sampled_from([FIT, FIT, UNFIT]))
    def newest(self, kind: str) -> None:
        """A release that every vehicle is to run."""
        self.publish(kind)
        version = len(self.shop.kinds)
        complete = Rollout("r", HARDWARE, 1, RolloutState.COMPLETE, release(version), None, share=1.0)
        self.vehicle.offer(complete, "v1")

    @precondition(lambda self: self.shop.kinds)
    @rule(data=st.data(), state=st.sampled_from(list(RolloutState)), power=st.none() | st.integers(0, 12))
    def offer(self, data: st.DataObject, state: RolloutState, power: int | None) -> None:
        versions = sorted(self.shop.kinds)
        version = data.draw(st.sampled_from(versions[-2:]))
        previous = release(version - 1) if version > 1 else None
        rollout = Rollout("r", HARDWARE, 1, state, release(version), previous, share=1.0)
        self.under(power, lambda: self.vehicle.offer(rollout, "v1"))

    @rule(parked=st.sampled_from([True, True, True, False]), power=st.none() | st.integers(0, 16))
    def step(self, parked: bool, power: int | None) -> None:
        self.time_ns += 10**9
        self.under(power, lambda: self.vehicle.step(self.time_ns, Conditions(parked)))

    @rule(healthy=st.sampled_from([True, True, False]), power=st.none() | st.integers(0, 12))
    def drive(self, healthy: bool, power: int | None) -> None:
        """A boot, some frames, and what follows from them."""

        def go() -> None:
            self.vehicle.boot()
            for _ in range(2):
                self.time_ns += 1
                self.vehicle.health(self.time_ns, healthy)
            self.vehicle.step(self.time_ns, Conditions(parked=False))

        self.under(power, go)

    @rule()
    def cut(self) -> None:
        self.restart(None)

    @rule(slot=st.sampled_from(["a", "b"]))
    def rot(self, slot: str) -> None:
        path = self.folder / "vehicle/slots" / slot / "model.onnx"
        if path.exists():
            path.write_bytes(b"rotten")
            self.rotten.add(slot)

    def under(self, power: int | None, go: Callable[[], object]) -> None:
        """Does something with so much power; after a cut the vehicle starts again."""
        before = self.vehicle.state
        try:
            with power_for(power):
                go()
        except PowerCut:
            self.restart(power)
            active = before.slot(before.active)
            if active is not None and active.proven and before.active not in self.rotten:
                with power_for(None):
                    assert self.vehicle.boot() is not None, "a proven and undamaged slot must still boot"

    @invariant()
    def only_verified_bytes_boot(self) -> None:
        if not hasattr(self, "vehicle"):
            return
        before = self.vehicle.state
        with power_for(None):
            slot = self.vehicle.boot()
        after = self.vehicle.state
        if slot is not None:
            installed = after.slot(after.active)
            assert installed is not None and self.shop.kinds[installed.version] == FIT
            assert model_file(slot).read_bytes() == b"model %d" % installed.version
            assert (self.folder / "vehicle/current").resolve() == slot.resolve()
        active = before.slot(before.active)
        if active is not None and active.proven and before.active not in self.rotten:
            assert slot is not None, "a proven and undamaged slot must boot"
        slots = self.folder / "vehicle/slots"
        self.rotten = {s for s in self.rotten if _content(slots / s / "model.onnx") == b"rotten"}

    @invariant()
    def the_release_counter_never_falls(self) -> None:
        if hasattr(self, "vehicle"):
            assert self.vehicle.state.highest >= self.highest
            self.highest = self.vehicle.state.highest

    @invariant()
    def the_state_on_disk_is_the_state_in_memory(self) -> None:
        if hasattr(self, "vehicle") and (self.folder / "vehicle/state.json").exists():
            again = self.vehicle._load()
            assert (again.active, again.a, again.b) == (
                self.vehicle.state.active,
                self.vehicle.state.a,
                self.vehicle.state.b,
            )


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def release(version: int) -> Release:
    return Release(version, f"m{version}", f"b{version}", "0" * 64, 1, HARDWARE)


Updater.TestCase.settings = settings(
    max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestUpdater = Updater.TestCase


def test_without_faults_the_newest_fit_release_gets_in(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    vehicle = Installer(tmp_path / "vehicle", HARDWARE, shop, POLICY)
    for version, kind in enumerate([FIT, UNTRUSTED, UNFIT, FIT], start=1):
        shop.kinds[version] = kind
        vehicle.offer(Rollout("r", HARDWARE, 1, RolloutState.COMPLETE, release(version), None, 1.0), "v1")
        done = [vehicle.step(version, Conditions(parked=True)) for _ in range(2)]
        if kind != FIT:
            assert done[0] is Do.DOWNLOAD and vehicle.release == "1"
            continue
        assert done == [Do.DOWNLOAD, Do.SWITCH] and vehicle.boot() is not None
        for i in range(2):
            vehicle.health(i, healthy=True)
        assert vehicle.step(9, Conditions(parked=False)) is Do.COMMIT
    assert vehicle.release == "4" and vehicle.state.phase is Phase.COMMITTED


def test_bad_bundles_are_told_from_untrusted_ones() -> None:
    assert not issubclass(Unavailable, BadBundle) and not issubclass(BadBundle, Unavailable)


def _to_staged(machine: Updater) -> None:
    machine.newest(FIT)
    machine.step(parked=True, power=None)


def _to_probation(machine: Updater) -> None:
    _to_staged(machine)
    machine.step(parked=True, power=None)
    machine.vehicle.boot()


def _to_failing(machine: Updater) -> None:
    _to_probation(machine)
    for _ in range(2):
        machine.vehicle.health(1, healthy=False)


def _to_proven(machine: Updater) -> None:
    _to_probation(machine)
    for _ in range(2):
        machine.vehicle.health(1, healthy=True)


def _to_halted(machine: Updater) -> None:
    _to_proven(machine)
    machine.step(parked=True, power=None)
    rollout = Rollout("r", HARDWARE, 2, RolloutState.HALTED, release(2), release(1), share=1.0)
    machine.vehicle.offer(rollout, "v1")


def _carry_on(machine: Updater, healthy: bool) -> None:
    """Boots, drives and follows up, as often as it takes."""
    for i in range(6):
        machine.vehicle.step(10 + i, Conditions(parked=True))
        machine.only_verified_bytes_boot()
        for _ in range(2):
            machine.vehicle.health(10 + i, healthy)


@pytest.mark.parametrize(
    ("prepare", "do"),
    [
        (lambda machine: machine.newest(FIT), Do.DOWNLOAD),
        (_to_staged, Do.SWITCH),
        (_to_proven, Do.COMMIT),
        (_to_failing, Do.ROLL_BACK),
        (_to_halted, Do.RETURN),
    ],
    ids=["download", "switch", "commit", "roll back", "return"],
)
def test_a_power_cut_before_each_change_of_the_disk(prepare: Callable[[Updater], None], do: Do) -> None:
    for power in range(60):
        machine = Updater()
        machine.policy = replace(POLICY, max_boots=50)
        try:
            machine.build()
            prepare(machine)
            parked = Conditions(parked=True)
            assert next_step(machine.vehicle.state, parked, machine.policy, 1)[0] is do
            done: list[Do] = []
            machine.under(power, lambda: done.append(machine.vehicle.step(1, parked)))  # noqa: B023
            machine.only_verified_bytes_boot()
            machine.the_state_on_disk_is_the_state_in_memory()
            _carry_on(machine, healthy=do is not Do.ROLL_BACK)
            if do in (Do.DOWNLOAD, Do.SWITCH, Do.COMMIT):
                assert machine.vehicle.release == "2", "a power cut is not the release's fault"
            else:
                assert machine.vehicle.release == "1"
        finally:
            machine.teardown()
        if done:
            assert power > 3
            return
    raise AssertionError(f"{do} never came to its end")
