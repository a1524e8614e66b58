"""Every metric there is: one table. Rules, alerts, dashboards and the exporter are made from it. A leaf: standard
library alone, so that any package may name a metric."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Prometheus metric types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Units are Prometheus base units and stand in the name; a vehicle id is never a label."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


FRAME_SECONDS = 1 / 36
"""The camera's period: a plan must be ready before the next frame."""
POWER_WATTS = 75.0
"""What the vehicle's computer may draw."""

_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_MODEL = ("model_version", "region")
_LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, FRAME_SECONDS, 0.04, 0.06, 0.1)
_WATTS = (5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, POWER_WATTS, 90.0)
_STEP_S = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
_JOB_S = (10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)

# What vehicles drove.
EXPOSURE_METERS = Metric(
    "fleetwheel_exposure_meters_total",
    _C,
    "Distance driven; mode is engaged or manual.",
    (*_MODEL, "cell", "mode"),
)
EXPOSURE_SECONDS = Metric(
    "fleetwheel_exposure_seconds_total", _C, "Time driven; mode is engaged or manual.", (*_MODEL, "cell", "mode")
)
DISENGAGEMENTS = Metric(
    "fleetwheel_disengagements_total", _C, "Disengagements while engaged.", (*_MODEL, "cell", "cause")
)
REPORTS = Metric(
    "fleetwheel_vehicle_reports_total", _C, "Telemetry reports (heartbeats) taken.", (*_MODEL, "update_state")
)
INFERENCE_SECONDS = Metric(
    "fleetwheel_inference_latency_seconds",
    _H,
    "A vehicle's own p50 or p99 of the time for one plan, one observation per report.",
    ("model_version", "quantile"),
    _LATENCY_S,
)
POWER = Metric(
    "fleetwheel_power_watts",
    _H,
    "Power of a vehicle's computer, one observation per report; source is measured or modelled.",
    ("model_version", "source"),
    _WATTS,
)
SPOOL_BYTES = Metric(
    "fleetwheel_spool_bytes", _H, "Bytes in a vehicle's spool, one observation per report.", ("region",),
    (0.0, 1e6, 1e7, 1e8, 1e9, 1e10),
)  # fmt: skip

# What came of it.
EVENTS = Metric("fleetwheel_events_total", _C, "Trigger events taken.", (*_MODEL, "kind"))
SCENARIOS = Metric(
    "fleetwheel_scenarios_total", _C, "Tagged events, by whether they were novel.", ("cell", "novel")
)
CLIPS = Metric("fleetwheel_clips_total", _C, "Clips; state is requested, stored or lost.", ("region", "state"))
CLIP_BYTES = Metric("fleetwheel_clip_stored_bytes_total", _C, "Bytes of stored clips.", ("region",))
DEAD_LETTERS = Metric("fleetwheel_dead_letters_total", _C, "Records that were refused.", ("topic", "reason"))
DUPLICATES = Metric("fleetwheel_duplicate_messages_total", _C, "Messages seen before and not counted.", ("type",))

# The stages.
STAGE_RECORDS = Metric("fleetwheel_stage_records_total", _C, "Records a stage has taken.", ("stage",))
STAGE_LAG = Metric("fleetwheel_stage_lag_seconds", _G, "Age of the newest record a stage has taken.", ("stage",))
STAGE_SECONDS = Metric("fleetwheel_stage_step_seconds", _H, "Time for one batch.", ("stage",), _STEP_S)

# The topics and who reads them.
TOPIC_RECORDS = Metric(
    "fleetwheel_topic_records_total",
    _C,
    "Records written since the exporter began to look.",
    ("topic", "partition"),
)
CONSUMER_RECORDS = Metric(
    "fleetwheel_consumer_records_total",
    _C,
    "Records that a group has committed since the exporter began to look.",
    ("group", "topic", "partition"),
)
CONSUMER_LAG = Metric(
    "fleetwheel_consumer_lag_records",
    _G,
    "Records that a group has not committed yet.",
    ("group", "topic", "partition"),
)

# Learning and shipping.
JOBS = Metric(
    "fleetwheel_jobs_total", _C, "Learning jobs; state is requested, started, pass, fail, error.", ("state",)
)
JOB_SECONDS = Metric("fleetwheel_job_duration_seconds", _H, "From request to end.", ("verdict",), _JOB_S)
GPU_HOURS = Metric("fleetwheel_job_gpu_hours_total", _C, "GPU-hours used by learning jobs.", ("verdict",))
ROLLOUT_STATE = Metric(
    "fleetwheel_rollout_state", _G, "1 for the state a cohort's rollout is in, else 0.", ("cohort", "state")
)
ROLLOUT_SHARE = Metric("fleetwheel_rollout_share", _G, "Share of the cohort told to install.", ("cohort",))
ROLLOUT_EVIDENCE = Metric(
    "fleetwheel_rollout_evidence", _G, "e-value against 'the candidate is no worse'.", ("cohort",)
)
RELEASE_VERSION = Metric("fleetwheel_release_version", _G, "Release counter of a cohort's rollout.", ("cohort",))
ROLLOUT_METERS = Metric("fleetwheel_rollout_arm_meters", _G, "Distance of a rollout's arm.", ("cohort", "arm"))
ROLLOUT_EVENTS = Metric(
    "fleetwheel_rollout_arm_disengagements", _G, "Disengagements of a rollout's arm.", ("cohort", "arm")
)
ROLLOUT_SILENT = Metric("fleetwheel_rollout_arm_silent_vehicles", _G, "Vehicles gone silent.", ("cohort", "arm"))

# The exporter itself.
LABEL_OVERFLOWS = Metric(
    "fleetwheel_label_overflows_total",
    _C,
    "Label values counted as 'other' for want of room.",
    ("metric", "label"),
)

METRICS: tuple[Metric, ...] = tuple(v for v in list(globals().values()) if isinstance(v, Metric))
BY_NAME: dict[str, Metric] = {m.name: m for m in METRICS}
