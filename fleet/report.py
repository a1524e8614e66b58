"""The demo's report: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fleet.charts import Interval, condition_chart, turns_chart
from model.rig import Camera, Rig

ZOOM = 4
PLAN_RGB = (255, 159, 28)
DRIVER_RGB = (46, 194, 126)


@dataclass(frozen=True, slots=True)
class ClipView:
    """A stored clip as the report shows it: the frame at the trigger with the paths drawn, and the reason."""

    clip_id: str
    turn: int
    caption: str
    reason: str
    png: bytes

    @property
    def png_base64(self) -> str:
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True, slots=True)
class ReportInputs:
    """All that the page shows beyond the summary."""

    summary: Mapping[str, Any]
    selections: Sequence[Mapping[str, Any]]
    clips: Sequence[ClipView]
    rollouts: Sequence[Mapping[str, Any]]
    lineage: Sequence[tuple[str, str]]


def write_report(inputs: ReportInputs, path: Path) -> None:
    """Write the page. Raises jinja2.UndefinedError where the summary lacks a field."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    path.write_text(environment.get_template("report.html.j2").render(**_page(inputs)), encoding="utf-8")


def _page(inputs: ReportInputs) -> dict[str, Any]:
    summary, turns = inputs.summary, inputs.summary["turns"]
    conditions = list(turns[-1]["by_condition"])
    rows = [(name, [_interval(t["turn"], t["by_condition"][name]) for t in turns]) for name in conditions]
    return {
        "summary": summary,
        "turns": turns,
        "conditions": conditions,
        "headline": _headline(turns),
        "lead": _lead(turns, summary["clips"]),
        "figures": _figures(summary),
        "per_km_chart": turns_chart([_interval(t["turn"], t) for t in turns], "disengagements per km"),
        "per_hour_chart": turns_chart([_interval(t["turn"], t, "_per_hour") for t in turns], "per vehicle-hour"),
        "condition_chart": condition_chart(rows, "per km"),
        "selections": inputs.selections,
        "clips": inputs.clips,
        "verdicts": summary["jobs"],
        "rollouts": inputs.rollouts,
        "bundle": _bundle_card(summary["bundle"]),
        "lineage": inputs.lineage,
    }


def _interval(turn: int, rates: Mapping[str, Any], unit: str = "") -> Interval:
    value = rates["rate_per_hour" if unit else "rate_per_km"]
    return Interval(turn, value, rates[f"rate{unit}_low"], rates[f"rate{unit}_high"])


def _headline(turns: Sequence[Mapping[str, Any]]) -> str:
    first, last = turns[0]["rate_per_km"], turns[-1]["rate_per_km"]
    count = "one turn" if len(turns) == 2 else f"{len(turns) - 1} turns"
    if last <= 0 or first <= last:
        return f"Disengagements per km went from {first:.1f} to {last:.1f} in {count}"
    return f"Disengagements per km fell {first / last:.1f}-fold in {count} of the wheel"


def _lead(turns: Sequence[Mapping[str, Any]], clips: Mapping[str, Any]) -> str:
    first, last = turns[0]["rate_per_km"], turns[-1]["rate_per_km"]
    return (
        f"From {first:.1f} to {last:.1f} per km in conditions the first model had never seen, after learning from "
        f"{clips['stored']} of the {clips['recorded']} clips the fleet offered. "
        "Every model was judged on the same held-out worlds."
    )


def _figures(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    turns, bundle, clips = summary["turns"], summary["bundle"], summary["clips"]
    return [
        (f"{turns[0]['rate_per_km']:.1f} → {turns[-1]['rate_per_km']:.1f}", "disengagements per km"),
        (f"{turns[0]['rate_per_hour']:.0f} → {turns[-1]['rate_per_hour']:.0f}", "per vehicle-hour"),
        (f"{turns[0]['km']:.1f} → {turns[-1]['km']:.1f}", "km driven in the same time"),
        (f"{clips['stored']} / {clips['lost']}", "clips stored / lost"),
        (f"{bundle['latency_ms_p50']:.1f} ms", "a plan, one thread, p50"),
        (f"{bundle['watts']:.1f} W", f"at 36 Hz, {bundle['watts_source']}"),
    ]


def _bundle_card(bundle: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("size", f"{bundle['bytes'] / 1e6:.2f} MB"),
        ("runtime", str(bundle["runtime"])),
        ("largest error against fp32", f"{bundle['parity_max_error']:.3f} m"),
        ("latency p50 / p99", f"{bundle['latency_ms_p50']:.2f} / {bundle['latency_ms_p99']:.2f} ms"),
        ("power at 36 Hz", f"{bundle['watts']:.1f} W of 75 W ({bundle['watts_source']})"),
    ]


def draw_frame(
    images: NDArray[np.uint8], rig: Rig, plan: NDArray[np.float32] | None, driver: NDArray[np.float32] | None
) -> bytes:
    """PNG of a frame's cameras side by side ([C, H, W, 3], in the rig's order), with the planned and the driven
    path ([8, 2] m, vehicle frame) laid on the road in each."""
    views = []
    for image, camera in zip(images, rig.cameras, strict=True):
        picture = Image.fromarray(image).resize(
            (camera.width_px * ZOOM, camera.height_px * ZOOM), Image.Resampling.BICUBIC
        )
        pen = ImageDraw.Draw(picture)
        for path, colour in ((driver, DRIVER_RGB), (plan, PLAN_RGB)):
            if path is not None and np.isfinite(path).all():
                _draw_path(pen, camera, path, colour)
        views.append(np.asarray(picture))
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(views, 1)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _draw_path(
    pen: ImageDraw.ImageDraw, camera: Camera, path: NDArray[np.float32], colour: tuple[int, int, int]
) -> None:
    dense = _densify(path)
    pixels, ahead = project(camera, np.column_stack([dense, np.zeros(len(dense))]))
    for (a, in_front_a), (b, in_front_b) in pairwise(zip(pixels, ahead, strict=True)):
        if in_front_a and in_front_b:
            pen.line([*(a * ZOOM), *(b * ZOOM)], fill=colour, width=3)


def _densify(path: NDArray[np.float32]) -> NDArray[np.float64]:
    """Straight pieces between the waypoints, from the vehicle on, 6 points each."""
    knots = np.vstack([np.zeros((1, 2)), path])
    s = np.linspace(0, len(path), 6 * len(path) + 1)
    return np.column_stack([np.interp(s, np.arange(len(knots)), knots[:, k]) for k in (0, 1)])


def project(camera: Camera, points_m: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Vehicle-frame points [N, 3] m -> pixels [N, 2] and whether each is in front of the camera."""
    local = points_m - [camera.x_m, camera.y_m, camera.z_m]
    cy, sy = np.cos(camera.yaw_rad), np.sin(camera.yaw_rad)
    forward, left = local[:, 0] * cy + local[:, 1] * sy, -local[:, 0] * sy + local[:, 1] * cy
    cp, sp = np.cos(camera.pitch_rad), np.sin(camera.pitch_rad)
    depth, up = forward * cp + local[:, 2] * sp, -forward * sp + local[:, 2] * cp
    ahead = depth > 0.5
    safe = np.where(ahead, depth, 1.0)
    u = camera.width_px / 2 - camera.focal_px * left / safe
    v = camera.height_px / 2 - camera.focal_px * up / safe
    return np.column_stack([u, v]), ahead
