"""Where a job's things lie, and what it is allowed to decide. Values that travel to a step's process as JSON."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from streams.contracts.types import Count, Id, Name, NonNegative, Share

Positive = Annotated[float, Meta(gt=0.0)]
Whole = Annotated[int, Meta(ge=1)]


class Places(Struct, frozen=True):
    """Folders and URLs. They may move between attempts: no result depends on them."""

    store: str
    """Path or URL of the registry store."""
    clip_index: str
    """SQLite file of archived clips."""
    lineage: str
    """SQLite file of lineage edges."""
    mlflow: str
    """Tracking URI of MLflow."""
    releases: str
    """Folder of the TUF repository."""
    keys: str
    """Folder of the TUF signing keys."""
    scratch: str
    """Folder for what a killed attempt leaves for the next one: locks, training checkpoints, caches."""


class Budget(Struct, frozen=True):
    """How long the champion and the candidate are driven, and on which held-out worlds."""

    vehicles: Whole = 24
    """Per condition."""
    seconds: Positive = 60.0
    """Per vehicle."""
    base_factor: Positive = 1.0
    """Base conditions get this many times the vehicles: forgetting is judged on them."""
    seed: Count = 1
    shard_vehicles: Whole = 24
    """Vehicles driven together; a shard is what a killed worker loses at most."""
    open_loop_frames: Whole = 2000
    """Validation frames at most."""


class Curation(Struct, frozen=True):
    """What a dataset version may be made of."""

    vehicle_share: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.1
    """No vehicle gives more than this share of the clips ..."""
    vehicle_least: Whole = 4
    """... but always up to this many: small datasets would be empty otherwise."""
    validation_share: Share = 0.1
    """Of vehicles."""
    poison_share: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.25
    """A vehicle with more than this share of the training weight is cut down to it: none can teach alone."""
    least_clips: Whole = 1
    """Fewer usable training clips end the job."""


class GatePolicy(Struct, frozen=True):
    """What a candidate must show. All tests are one-sided."""

    alpha: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.05
    """Error rate of "significantly worse" over all slices together, and of "better" pooled."""
    margin: Annotated[float, Meta(ge=1.0)] = 1.0
    """A slice fails where the rate ratio is significantly above this."""
    base_margin: Annotated[float, Meta(ge=1.0)] = 1.25
    """Base conditions: the candidate's rate over the champion's ..."""
    base_certainty: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.5
    """... is at most base_margin with this confidence; 0.5 asks it of the estimate (median-unbiased)."""
    least_km_share: Share = 0.85
    """Km driven over the champion's, pooled: a policy that stalls must not look safe."""
    require_improvement: bool = True
    """Pooled over the unseen conditions the candidate must be significantly better, not only no worse."""
    latency_ms: Positive = 1000 / 36
    """p99 of a plan: before the next frame of 36 Hz."""
    watts: Positive = 75.0


class Settings(Struct, frozen=True):
    """What the results of a job depend on besides its request; part of every step's key."""

    budget: Budget = Budget()
    curation: Curation = Curation()
    gate: GatePolicy = GatePolicy()
    hardware: Name = "cpu-x86-64"
    """Cohort that the bundle is built for."""
    int8: tuple[str, ...] = ("int8-weights",)
    """Ways of quantising to try, in this order (edge.quantize.WAYS). Between several, timing has a say
    (edge.compile.AS_FAST), and what ships may differ from machine to machine."""
    model_name: Id = "driver"
    """Registered model in MLflow; its alias `champion` is what drives."""
    base_samples: tuple[str, ...] = ()
    """Samples files in the store for replay; (): those that the base model was cloned from."""
    replay_frames: Whole = 12_000
    """Base frames that are replayed at most; they are held in memory."""
    base_seed: Count = 0
    """Seed of the worlds in which a `clone` job records its samples."""
    seed: Count = 0
    """Seed of training."""


class JobContext(Struct, frozen=True):
    """All that a worker needs to know."""

    places: Places
    settings: Settings = Settings()
    processes: Whole = 2
    """Processes that a step may use at once."""
    code: Name = ""
    """Version of this code, as in the fingerprint."""
    retry_seconds: NonNegative = 2.0
    """Wait before the first retry; doubles with each further one."""
