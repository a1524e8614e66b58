"""The page holds what the summary says, stands alone, and draws paths where they are."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fleet.charts import Interval, condition_chart, turns_chart
from fleet.report import DRIVER_RGB, ClipView, ReportInputs, draw_frame, project, write_report
from model.rig import THREE_CAMERAS


def rates(km: float, events: int) -> dict[str, Any]:
    return {
        "km": km,
        "vehicle_hours": km / 30,
        "disengagements": events,
        "rate_per_km": events / km,
        "rate_low": 0.8 * events / km,
        "rate_high": 1.3 * events / km,
        "rate_per_hour": events / km * 30,
        "rate_per_hour_low": 0.8 * events / km * 30,
        "rate_per_hour_high": 1.3 * events / km * 30,
        "by_cause": {"lateral": events},
    }


def summary() -> dict[str, Any]:
    turns = [
        {
            "turn": t,
            "model_version": str(t + 1),
            **rates(10.0, events),
            "by_condition": {"base": rates(5, 9), "night": rates(5, events)},
        }
        for t, events in enumerate((120, 50, 31))
    ]
    return {
        "schema": 1,
        "seed": 7,
        "turns": turns,
        "clips": {"recorded": 3200, "requested": 400, "stored": 400, "lost": 0, "bytes": 60_000_000},
        "jobs": [{"fingerprint": "ab" * 32, "run_id": "r1", "verdict": "pass", "reasons": ["<b>better</b>"]}],
        "bundle": {
            "bytes": 500_000,
            "runtime": "onnxruntime",
            "parity_max_error": 0.03,
            "latency_ms_p50": 1.2,
            "latency_ms_p99": 2.0,
            "watts": 7.0,
            "watts_source": "modelled",
        },
        "releases": [{"version": 1, "state": "complete"}],
        "seconds": {"total": 500.0},
    }


def inputs() -> ReportInputs:
    image = np.full((3, 48, 96, 3), 90, np.uint8)
    path = np.stack([np.linspace(2, 16, 8), np.zeros(8)], 1).astype(np.float32)
    return ReportInputs(
        summary=summary(),
        selections=[
            {
                "turn": 1,
                "recorded": 1600,
                "requested": 200,
                "stored": 200,
                "lost": 0,
                "bytes": 3e7,
                "by_condition": {"night": 60},
            }
        ],
        clips=[
            ClipView("c1", 1, "disengagement: lateral", "score 0.9", draw_frame(image, THREE_CAMERAS, None, path))
        ],
        rollouts=[
            {
                "release": 1,
                "state": "complete",
                "share": 1.0,
                "candidate_km": 1.0,
                "candidate_events": 3,
                "control_km": 1.0,
                "control_events": 9,
                "reason": "no harm seen",
            }
        ],
        lineage=[("event", "e1"), ("clip", "c1"), ("release", "1")],
    )


def test_the_page_says_what_the_summary_says_and_stands_alone(tmp_path: Path) -> None:
    write_report(inputs(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "fell 3.9-fold in 2 turns" in page
    assert "&lt;b&gt;better&lt;/b&gt;" in page, "reasons are escaped"
    assert "1.3 W" not in page and "7.0 W" in page and "modelled" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page), "nothing is loaded from elsewhere"


def test_a_rise_is_not_called_a_fall(tmp_path: Path) -> None:
    data = inputs()
    data.summary["turns"].reverse()
    write_report(data, tmp_path / "report.html")
    assert "went from 3.1 to 12.0" in (tmp_path / "report.html").read_text()


def test_a_point_straight_ahead_projects_to_the_middle_of_the_front_camera_below_the_horizon() -> None:
    pixels, ahead = project(THREE_CAMERAS.cameras[1], np.array([[20.0, 0.0, 0.0], [-5.0, 0.0, 0.0]]))
    assert ahead.tolist() == [True, False]
    assert abs(pixels[0, 0] - 48) < 1e-9
    # 1.5 m below a camera 18.2 m away, focal length 70.2 px
    assert abs(pixels[0, 1] - (24 + 70.16 * 1.5 / 18.2)) < 0.05


def test_the_driven_path_is_drawn_in_the_front_image() -> None:
    picture = np.asarray(Image.open(io.BytesIO(inputs().clips[0].png)))
    assert picture.shape == (48 * 4, 96 * 4 * 3, 3)
    green = (picture == DRIVER_RGB).all(-1)
    assert green[:, 384:768].sum() > 50
    assert green[:, :300].sum() == 0


def test_charts_place_larger_rates_higher_and_further_right() -> None:
    points = [Interval(0, 12.0, 10.0, 14.0), Interval(1, 4.0, 3.0, 5.0)]
    ys = [float(y) for y in re.findall(r'<circle[^>]*cy="([\d.]+)"', turns_chart(points, "per km"))]
    assert ys[0] < ys[1]
    xs = [
        float(x) for x in re.findall(r'<circle[^>]*cx="([\d.]+)"', condition_chart([("night", points)], "per km"))
    ]
    assert xs[0] > xs[1]


def test_a_chart_of_zeros_is_still_a_chart() -> None:
    assert "<svg" in turns_chart([Interval(0, 0.0, 0.0, 0.0)], "per km")
