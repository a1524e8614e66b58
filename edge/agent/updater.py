"""Carries out what updates.py decides: bundles into slots, one atomic switch, no boot of unverified bytes.

Layout: `slots/a`, `slots/b` (unpacked bundles), `current` (symlink to the one that boots), `state.json`. A switch
happens when the symlink does; what the state says beside it is mended at start, so a power cut anywhere leaves
either the old release or the new one.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import msgspec

from edge.agent import updates
from edge.agent.bundles import MODEL, BadBundle, unpack, verify
from edge.agent.files import point_symlink, remove_temporaries, sync_folder, write_atomic
from edge.agent.tuf_source import Source, Unavailable
from edge.agent.updates import SLOTS, Conditions, Do, Installed, Phase, Policy, Slot, State
from streams.contracts.releases import Rollout

log = logging.getLogger(__name__)
POLICY = Policy()


class BadState(ValueError):
    """The updater's record cannot be read, so nothing in the slots can be trusted: names the file. Delete the
    folder to install anew."""


class Installer:
    """One vehicle's slots. Blocks for the disk and, in `step`, for the download."""

    def __init__(self, folder: Path, hardware: str, source: Source, policy: Policy = POLICY) -> None:
        """Opens or makes the slots and mends what a power cut left. Raises BadState and OSError."""
        self._folder, self._hardware, self._source, self._policy = folder, hardware, source, policy
        (folder / "slots").mkdir(parents=True, exist_ok=True)
        remove_temporaries(folder)
        self.state = self._load()
        self._reconcile()

    @property
    def release(self) -> str:
        """The release that boots, for telemetry; "" for none."""
        installed = self.state.slot(self.state.active)
        return str(installed.version) if installed else ""

    @property
    def reported_state(self) -> str:
        """idle, probation or rolled_back, for telemetry."""
        return self.state.phase if self.state.phase in (Phase.PROBATION, Phase.ROLLED_BACK) else Phase.IDLE

    def offer(self, rollout: Rollout, vehicle: str) -> None:
        """Hears what the fleet should run; a rollout of other hardware changes nothing."""
        if rollout.cohort == self._hardware:
            self._save(updates.offered(self.state, updates.wanted(rollout, vehicle, self.state.wanted)))

    def health(self, now_ns: int, healthy: bool) -> None:
        """A frame was driven, with a plan or without. In memory: a boot begins its probation anew."""
        self.state = updates.observed(self.state, now_ns, healthy)

    def boot(self) -> Path | None:
        """The folder to load the model from, every byte of it checked now; None where no slot can be trusted and
        the driver drives. Call it at each start and after each switch."""
        while self.state.active is not None:
            slot = self.state.active
            installed = self.state.slot(slot)
            wrong = "holds nothing" if installed is None else verify(self._slot(slot), installed.files)
            if not wrong:
                self._count_boot()
                return self._slot(slot)
            log.error("slot %s does not boot: %s", slot, wrong)
            self._switch(updates.lost(self.state, f"slot {slot} {wrong}"))
        return None

    def step(self, now_ns: int, conditions: Conditions) -> Do:
        """Does the next thing there is to do; after SWITCH, ROLL_BACK and RETURN the caller boots anew."""
        do, reason = updates.next_step(self.state, conditions, self._policy, now_ns)
        match do:
            case Do.DOWNLOAD:
                self._download(now_ns)
            case Do.SWITCH:
                self._switch(updates.switched(self.state))
            case Do.COMMIT:
                self._save(updates.committed(self.state))
            case Do.ROLL_BACK:
                self._switch(updates.rolled_back(self.state, reason))
            case Do.RETURN:
                self._switch(updates.returned(self.state))
            case Do.DISCARD:
                self._save(updates.discarded(self.state))
        return do

    def _count_boot(self) -> None:
        """A full disk is no reason to drive without a model."""
        after = updates.booted(self.state)
        try:
            self._save(after)
        except OSError as error:
            log.warning("the boot is not recorded: %s", error)
            self.state = after

    def _download(self, now_ns: int) -> None:
        release = self.state.wanted
        assert release is not None
        self._save(updates.downloading(self.state))
        try:
            installed = self._unpack(self._source.fetch(release, self._hardware), release.version)
        except BadBundle as error:
            self._save(updates.refused(self.state, release.version, str(error)))
        except (Unavailable, OSError) as error:
            self._save(updates.failed(self.state, str(error), self._policy, now_ns))
        else:
            self._save(updates.staged(self.state, installed))

    def _unpack(self, bundle: Path, version: int) -> Installed:
        slot = self._slot(self.state.spare)
        try:
            manifest, files = unpack(bundle, slot, self._hardware)
        finally:
            bundle.unlink(missing_ok=True)
        sync_folder(slot.parent)
        return Installed(version, manifest.model_version, files)

    def _switch(self, after: State) -> None:
        """The symlink first: it is the truth of what boots."""
        self._point(after.active)
        self._save(after)

    def _slot(self, slot: Slot) -> Path:
        return self._folder / "slots" / slot

    def _point(self, slot: Slot | None) -> None:
        link = self._folder / "current"
        if slot is not None:
            point_symlink(link, f"slots/{slot}")
        elif link.is_symlink():
            link.unlink()
            sync_folder(self._folder)

    def _linked(self) -> Slot | None:
        link = self._folder / "current"
        name = link.readlink().name if link.is_symlink() else None
        return next((slot for slot in SLOTS if slot == name), None)

    def _load(self) -> State:
        path = self._folder / "state.json"
        if not path.exists():
            return State()
        try:
            return msgspec.json.decode(path.read_bytes(), type=State)
        except msgspec.MsgspecError as error:
            raise BadState(f"{path}: {error}") from error

    def _save(self, state: State) -> None:
        if state != self.state:
            write_atomic(self._folder / "state.json", msgspec.json.encode(state))
            self.state = state

    def _reconcile(self) -> None:
        """A power cut between symlink and state: the symlink tells whether the switch happened."""
        linked, state = self._linked(), self.state
        if linked != state.active:
            if linked is None or linked != state.spare or state.slot(linked) is None:
                self._point(state.active)
            elif state.phase is Phase.STAGED:
                self._save(updates.switched(state))
            elif state.phase is Phase.PROBATION:
                self._save(updates.rolled_back(state, "power was cut while rolling back"))
            else:
                self._save(updates.returned(state))
        if self.state.phase is Phase.DOWNLOADING:
            self._save(msgspec.structs.replace(self.state, phase=Phase.IDLE))
        for slot in SLOTS:
            if self.state.slot(slot) is None and slot != self.state.active:
                shutil.rmtree(self._slot(slot), ignore_errors=True)


def model_file(slot: Path) -> Path:
    """The model in a booted slot."""
    return slot / MODEL
