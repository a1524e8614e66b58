"""Clips as a vehicle writes them, made here from the channel table so that reader and writer are tested apart."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
from mcap.writer import CompressionType, Writer
from PIL import Image

from streams.contracts.clips import (
    CAMERA_PREFIX,
    CLIP_METADATA,
    CLIP_SCHEMAS,
    DRIVER_CHANNEL,
    PLAN_CHANNEL,
    SIGNALS_CHANNEL,
)

START_NS = 1_800_000_000_000_000_000
STEP_NS = 200_000_000
RIG = {
    "name": "two",
    "cameras": [
        {"name": n, "width_px": 16, "height_px": 8, "horizontal_fov_rad": 1.2, "x_m": 1.0, "y_m": 0.0, "z_m": 1.5}
        for n in ("left", "front")
    ],
}


def picture(value: int, size: tuple[int, int] = (16, 8), kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(out, kind)
    return out.getvalue()


def points(value: float) -> list[list[float]]:
    return [[value + k, -value] for k in range(8)]


class ClipWriter:
    """Messages to MCAP bytes; each channel is opened when it is first used."""

    def __init__(
        self,
        metadata: dict[str, str] | None = None,
        compression: CompressionType = CompressionType.ZSTD,
        checksums: bool = True,
    ) -> None:
        self._out = io.BytesIO()
        self._writer = Writer(
            self._out, compression=compression, enable_crcs=checksums, enable_data_crcs=checksums
        )
        self._writer.start()
        self._channels: dict[str, int] = {}
        self._writer.add_metadata(
            CLIP_METADATA, metadata if metadata is not None else {"clip_id": "clip-1", "rig": json.dumps(RIG)}
        )

    def add(self, topic: str, time_ns: int, value: dict[str, Any] | bytes) -> None:
        if topic not in self._channels:
            name, schema = CLIP_SCHEMAS[CAMERA_PREFIX if topic.startswith(CAMERA_PREFIX) else topic]
            schema_id = self._writer.register_schema(name, "jsonschema", json.dumps(schema).encode())
            self._channels[topic] = self._writer.register_channel(topic, "json", schema_id)
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self._writer.add_message(self._channels[topic], time_ns, data, time_ns)

    def image(self, camera: str, time_ns: int, data: bytes) -> None:
        self.add(CAMERA_PREFIX + camera, time_ns, {"data": base64.b64encode(data).decode(), "format": "png"})

    def finish(self) -> bytes:
        self._writer.finish()  # type: ignore[no-untyped-call]
        return self._out.getvalue()


def whole_clip(
    frames: int = 20, compression: CompressionType = CompressionType.ZSTD, checksums: bool = True
) -> bytes:
    """Frame n: left camera all 2n, front camera all 2n + 1, 36 km/h + n, plan n, driver's plan n + 0.5."""
    clip = ClipWriter(compression=compression, checksums=checksums)
    for n in range(frames):
        time_ns = START_NS + n * STEP_NS
        signals = {"Vehicle.Speed": 36.0 + n, "Vehicle.AngularVelocity.Yaw": 90.0}
        clip.add(SIGNALS_CHANNEL, time_ns, {"signals": signals, "command": n % 4, "engaged": n < 10})
        clip.add(PLAN_CHANNEL, time_ns, {"points_m": points(n)})
        clip.add(DRIVER_CHANNEL, time_ns, {"points_m": points(n + 0.5), "rule": f"rule-{n}"})
        clip.image("front", time_ns, picture(2 * n + 1))
        clip.image("left", time_ns, picture(2 * n))
    return clip.finish()
