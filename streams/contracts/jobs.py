"""Learning jobs: one fingerprint, exactly one run."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from streams.contracts.types import Count, Id, Name, NonNegative, Sha256, Text, TimeNs


class Evidence(Struct, frozen=True):
    """New clips of one cell."""

    clips: Count
    vehicles: Count


class JobRequested(Struct, frozen=True, tag="fleetwheel.job-requested.v1", tag_field="type"):
    """Learn from these clips, starting from this model."""

    fingerprint: Sha256
    kind: Name
    """A key of the job catalog."""
    time_ns: TimeNs
    base_model: Name
    recipe: Name
    clips: Annotated[list[Id], Meta(max_length=100_000)]
    evidence: dict[Name, Evidence] = {}
    reason: Text = ""
    gpu_hours: NonNegative = 0.0
    """What the trigger took from the budget for it."""


class JobStarted(Struct, frozen=True, tag="fleetwheel.job-started.v1", tag_field="type"):
    """A worker has taken the job (again, after a crash)."""

    fingerprint: Sha256
    time_ns: TimeNs
    run_id: Name = ""
    worker: Name = ""


class Release(Struct, frozen=True):
    """A signed bundle that vehicles can install."""

    version: Count
    """Release counter; only grows."""
    model_version: Name
    bundle: Name
    """TUF target path."""
    sha256: Sha256
    bytes: Count
    hardware: Name
    """Cohort: the hardware id it was built for."""


class JobFinished(Struct, frozen=True, tag="fleetwheel.job-finished.v1", tag_field="type"):
    """The job's end: verdict "pass", "fail" (gate or checks) or "error", with reasons.

    A release only where it passed."""

    fingerprint: Sha256
    time_ns: TimeNs
    verdict: Name
    run_id: Name = ""
    model_version: Name = ""
    reasons: Annotated[list[Text], Meta(max_length=100)] = []
    release: Release | None = None
    gpu_hours: NonNegative = 0.0
