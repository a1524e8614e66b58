"""Rollouts: which share of a cohort runs which release."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from streams.contracts.jobs import Release
from streams.contracts.types import Count, Id, Name, NonNegative, Share, Text, TimeNs


class RolloutState(StrEnum):
    """canary -> wave -> complete; halted is final and means roll back."""

    CANARY = "canary"
    WAVE = "wave"
    PAUSED = "paused"
    COMPLETE = "complete"
    HALTED = "halted"


class Arm(Struct, frozen=True):
    """What one arm of the rollout drove since it began."""

    vehicles: Count = 0
    silent: Count = 0
    km: NonNegative = 0.0
    hours: NonNegative = 0.0
    disengagements: Count = 0
    failures: Count = 0
    """Silent vehicles and rolled-back updates, counted as events."""


class Rollout(Struct, frozen=True, tag="fleetwheel.rollout.v1", tag_field="type"):
    """The state of a cohort's rollout; the newest one is what vehicles obey.

    A vehicle installs `release` when `bucket(rollout_id, vehicle) < share`; those at or above
    `1 - control_share` are the randomised control and keep `previous` until it is complete. In HALTED all
    go back to `previous`.
    """

    rollout_id: Id
    cohort: Name
    time_ns: TimeNs
    state: RolloutState
    release: Release
    previous: Release | None
    share: Share
    control_share: Share = 0.0
    candidate: Arm = Arm()
    control: Arm = Arm()
    evidence: NonNegative = 0.0
    """e-value against "the candidate is no worse"; 1 / alpha halts."""
    reason: Text = ""
