"""The first board: does the wheel turn, and for the better?"""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders.dashboard import Dashboard, QueryVariable
from grafana_foundation_sdk.models.dashboard import VariableRefresh

from monitoring import metrics as m
from monitoring.dashboards.grid import SOURCE, add_row, states, timeseries

RATE = "model_version:fleetwheel_disengagements_per_kilometer"
"""Recorded by monitoring/rules/rates.yml."""
OF_MODEL = '{model_version=~"$model_version"}'


def board() -> Dashboard:
    """Rates with intervals by model version, streams, jobs, releases."""
    dashboard = (
        Dashboard("Fleetwheel: the wheel")
        .uid("fleetwheel")
        .tags(["fleetwheel"])
        .time("now-6h", "now")
        .refresh("30s")
        .readonly()
        .with_variable(
            QueryVariable("model_version")
            .label("Model version")
            .datasource(SOURCE)
            .query(f"label_values({m.EXPOSURE_METERS.name}, model_version)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".+")
        )
    )
    top = 0
    for title, panels in (
        ("Fleet", _fleet()),
        ("Streams", _streams()),
        ("Jobs", _jobs()),
        ("Releases", _releases()),
    ):
        top = add_row(dashboard, title, panels, top)
    return dashboard


def _fleet() -> list[Any]:
    return [
        timeseries(
            "Disengagements per km, with 95 % limits",
            "Over a day, by model version, engaged. Limits that overlap decide nothing yet.",
            "none",
            [
                (f"{RATE}:rate1d{OF_MODEL}", "{{model_version}}"),
                (f"{RATE}:lower95_1d{OF_MODEL}", "{{model_version}} lower"),
                (f"{RATE}:upper95_1d{OF_MODEL}", "{{model_version}} upper"),
            ],
        ),
        timeseries(
            "Engaged kilometres a day",
            "The exposure behind the rate: a rate over few kilometres says little.",
            "lengthkm",
            [(f"model_version:fleetwheel_engaged_kilometers:increase1d{OF_MODEL}", "{{model_version}}")],
        ),
        timeseries(
            "Disengagements a day by cause",
            "What goes wrong.",
            "none",
            [(f"sum by (cause) (increase({m.DISENGAGEMENTS.name}{OF_MODEL}[1d]))", "{{cause}}")],
        ),
        timeseries(
            "Vehicles' reports",
            "Silence is not safety: a fleet that reports less is known less.",
            "reqps",
            [(f"sum by (update_state) (rate({m.REPORTS.name}[$__rate_interval]))", "{{update_state}}")],
        ),
        timeseries(
            "Time for one plan, p99 as vehicles report it",
            "Must be below the camera's period of 27.8 ms.",
            "s",
            [
                (
                    "histogram_quantile(0.95, sum by (le, model_version) (rate("
                    f'{m.INFERENCE_SECONDS.name}_bucket{{quantile="0.99"}}[1h])))',
                    "{{model_version}}",
                )
            ],
        ),
        timeseries(
            "Events by kind",
            "What vehicles tell.",
            "reqps",
            [(f"sum by (kind) (rate({m.EVENTS.name}[$__rate_interval]))", "{{kind}}")],
        ),
    ]


def _streams() -> list[Any]:
    return [
        timeseries(
            "Records written, by topic",
            "The rate of the streams.",
            "reqps",
            [(f"sum by (topic) (rate({m.TOPIC_RECORDS.name}[$__rate_interval]))", "{{topic}}")],
        ),
        timeseries(
            "Lag, by group and topic",
            "Records that a group has not committed. Growing: the group is too slow, or down.",
            "none",
            [(f"sum by (group, topic) ({m.CONSUMER_LAG.name})", "{{group}} {{topic}}")],
        ),
        timeseries(
            "Records read, by group",
            "What a group commits; below what is written, its lag grows.",
            "reqps",
            [(f"sum by (group) (rate({m.CONSUMER_RECORDS.name}[$__rate_interval]))", "{{group}}")],
        ),
        timeseries(
            "Novel share of events",
            "Near the chosen false-alarm level where nothing new happens.",
            "percentunit",
            [
                (
                    f'sum(rate({m.SCENARIOS.name}{{novel="yes"}}[1h])) / sum(rate({m.SCENARIOS.name}[1h]))',
                    "novel",
                )
            ],
        ),
        timeseries(
            "Clips a day",
            "Requested and then stored or told lost.",
            "none",
            [(f"sum by (state) (increase({m.CLIPS.name}[1d]))", "{{state}}")],
        ),
        timeseries(
            "Dead letters an hour",
            "Refused records: fleet streams dead-letters list tells why.",
            "none",
            [(f"sum by (topic, reason) (increase({m.DEAD_LETTERS.name}[1h]))", "{{topic}} {{reason}}")],
        ),
    ]


def _jobs() -> list[Any]:
    return [
        timeseries(
            "Learning jobs a day",
            "Requested, started, and how they ended.",
            "none",
            [(f"sum by (state) (increase({m.JOBS.name}[1d]))", "{{state}}")],
        ),
        timeseries(
            "From request to end, median",
            "By verdict, over a week.",
            "s",
            [
                (
                    f"histogram_quantile(0.5, sum by (le, verdict) (increase({m.JOB_SECONDS.name}_bucket[7d])))",
                    "{{verdict}}",
                )
            ],
        ),
        timeseries(
            "GPU-hours a day",
            "What learning costs.",
            "h",
            [(f"sum by (verdict) (increase({m.GPU_HOURS.name}[1d]))", "{{verdict}}")],
        ),
    ]


def _releases() -> list[Any]:
    arm = "sum by (cohort, arm)"
    return [
        states(
            "Rollout",
            "canary, wave, complete; paused; halted means rolled back.",
            [(f"{m.ROLLOUT_STATE.name} == 1", "{{cohort}} {{state}}")],
        ),
        timeseries(
            "Disengagements per km by arm",
            "The release against its randomised control.",
            "none",
            [
                (
                    f"{arm} ({m.ROLLOUT_EVENTS.name}) / ({arm} ({m.ROLLOUT_METERS.name}) / 1000 > 0)",
                    "{{cohort}} {{arm}}",
                )
            ],
        ),
        timeseries(
            "Evidence against the release",
            "e-value; at 1 / alpha the rollout halts.",
            "none",
            [(m.ROLLOUT_EVIDENCE.name, "{{cohort}}")],
        ),
        timeseries(
            "Share told to install",
            "Of the cohort.",
            "percentunit",
            [(m.ROLLOUT_SHARE.name, "{{cohort}}")],
        ),
        timeseries(
            "Release in rollout", "Its number only grows.", "none", [(m.RELEASE_VERSION.name, "{{cohort}}")]
        ),
        timeseries(
            "Silent vehicles by arm",
            "A vehicle that falls silent counts as a failure.",
            "none",
            [(f"{arm} ({m.ROLLOUT_SILENT.name})", "{{cohort}} {{arm}}")],
        ),
    ]
