"""What passes between steps: small JSON documents that name large content by its sha256."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from streams.contracts.jobs import Release

Json = dict[str, Any]


class Recorded(Struct, frozen=True):
    """Base driving, recorded from the expert."""

    samples: list[str]
    """Samples files (model.samples_file) in the store."""
    frames: int
    km: float


class Curated(Struct, frozen=True):
    """The dataset version that a job was asked for."""

    dataset: str
    clips: int
    vehicles: int
    left_out: dict[str, str]
    """Clip id -> why it is not in it."""
    verdict: str = "pass"
    reasons: list[str] = []


class Labelled(Struct, frozen=True):
    """Labels of every clip of the dataset."""

    labels: str
    """Labels file (jobs.label) in the store."""
    facts: str
    """JSON list of ClipFacts in the store."""
    clips: int
    frames: int
    labelled: int


class ClipFacts(Struct, frozen=True):
    """What was measured on one clip, for `check` to judge."""

    clip_id: str
    vehicle: str
    split: str
    weight: float
    unreadable: str = ""
    """Why the clip cannot be read; then nothing below is known."""
    shape: tuple[int, ...] = ()
    """Cameras, height and width in pixels."""
    cameras: tuple[str, ...] = ()
    frames: int = 0
    labelled: int = 0
    source: str = ""
    """"driver", "hindsight" or ""."""
    not_finite: int = 0
    """Frames whose label or motion is missing or not finite."""
    implausible: int = 0
    """Frames whose label contradicts the vehicle's own speed or what a vehicle can do."""
    driven_error_m: float = 0.0
    """How far to the side of the driver's label he then drove by hand (jobs.label); 0 where not known."""
    dark_or_frozen: bool = False
    """The images carry nothing: all alike while the vehicle moves, or of one colour."""
    largest_gap_s: float = 0.0


class Checked(Struct, frozen=True):
    """The dataset version that training uses, and what was taken out of it."""

    dataset: str
    clips: int
    vehicles: int
    excluded: dict[str, str]
    """Clip id -> why."""
    cut_down: dict[str, float]
    """Vehicle -> factor by which the weight of its clips was cut."""
    verdict: str
    reasons: list[str]


class Trained(Struct, frozen=True):
    """A checkpoint, and its run in MLflow."""

    checkpoint: str
    run_id: str
    base_samples: list[str]
    """What is replayed when a model is taught from this one."""
    frames: int
    champion_graph: str
    """The ONNX file of the model it was taught from, "" for a first model."""


class Compiled(Struct, frozen=True):
    """What vehicles would run: the graph, and what it costs."""

    graph: str
    """The ONNX file that ships, in the store."""
    bytes: int
    runtime: str
    parity_max_error: float
    latency_ms_p50: float
    latency_ms_p99: float
    watts: float
    watts_source: str
    details: Json = {}
    """All that edge.compile measured."""


class Tally(Struct, frozen=True):
    """Engaged driving in one condition, and what went wrong in it."""

    km: float = 0.0
    hours: float = 0.0
    causes: dict[str, int] = {}
    dispersion: float = 1.0
    """Index of dispersion of disengagements over vehicles: 1 is Poisson."""
    vehicles: int = 0

    @property
    def disengagements(self) -> int:
        """Of every cause."""
        return sum(self.causes.values())


class Driven(Struct, frozen=True):
    """A model's closed-loop result on the held-out worlds."""

    graph: str
    by_condition: dict[str, Tally]


class Evaluated(Struct, frozen=True):
    """Candidate and champion on the same worlds and frames."""

    candidate: Driven
    champion: Driven | None
    candidate_open_loop: dict[str, float]
    champion_open_loop: dict[str, float]


class Slice(Struct, frozen=True):
    """One comparison of the gate, for a person to read. NaN and infinity are given as null."""

    name: str
    unit: str
    """"km" or "hour"."""
    candidate: float | None
    champion: float | None
    ratio: float | None
    low: float | None
    high: float | None
    p_worse: float
    """Adjusted for all slices (Holm)."""


class Verdict(Struct, frozen=True):
    """What the gate decided, and why."""

    verdict: str
    """"pass" or "fail"."""
    reasons: list[str]
    slices: list[Slice] = []


class Registered(Struct, frozen=True):
    """The model version in MLflow; none for a candidate that failed."""

    verdict: str
    reasons: list[str]
    model_version: str = ""


class Signed(Struct, frozen=True):
    """The release that vehicles can install."""

    release: Release


class Promoted(Struct, frozen=True):
    """Whether the version is the champion now."""

    verdict: str
    """"pass" or "fail": then its release must not be rolled out."""
    reasons: list[str]
