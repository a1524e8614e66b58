"""A recording as MCAP bytes: readable by the mcap command line and Foxglove; equal input, equal bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np
from mcap.writer import CompressionType, Writer
from numpy.typing import NDArray
from PIL import Image

from edge.agent.frame import Floats, Frame
from streams.contracts.clips import (
    CAMERA_PREFIX,
    CLIP_METADATA,
    CLIP_SCHEMAS,
    DRIVER_CHANNEL,
    PLAN_CHANNEL,
    SIGNALS_CHANNEL,
)
from streams.contracts.clock import SECOND_NS

JPEG_QUALITY = 92
"""With full chroma: small red signs are what the images are kept for."""
LIBRARY = "fleetwheel"
_encoder = msgspec.json.Encoder()


def encode_clip(frames: tuple[Frame, ...], metadata: Mapping[str, str]) -> bytes:
    """The frames as one MCAP file (zstd chunks), with `metadata` as its CLIP_METADATA record; every record of the
    data section is under a checksum, in a chunk or not. Raises ValueError without frames."""
    if not frames:
        raise ValueError("a clip needs at least one frame")
    out = io.BytesIO()
    writer = Writer(out, compression=CompressionType.ZSTD, enable_data_crcs=True)
    writer.start(profile="", library=LIBRARY)
    channels = _register(writer, frames)
    for number, frame in enumerate(frames):
        for topic, data in _messages(frame):
            writer.add_message(channels[topic], frame.time_ns, data, frame.time_ns, number)
    writer.add_metadata(CLIP_METADATA, dict(sorted(metadata.items())))
    writer.finish()  # type: ignore[no-untyped-call]
    return out.getvalue()


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """[H, W, 3] RGB as JPEG, 4:4:4."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return out.getvalue()


def _register(writer: Writer, frames: tuple[Frame, ...]) -> dict[str, int]:
    """A channel for each topic that any frame has."""
    cameras = sorted({CAMERA_PREFIX + name for f in frames if f.images is not None for name in f.cameras})
    topics = [*cameras, SIGNALS_CHANNEL]
    if any(f.plan_m is not None for f in frames):
        topics.append(PLAN_CHANNEL)
    if any(f.driver_plan_m is not None for f in frames):
        topics.append(DRIVER_CHANNEL)
    schemas: dict[str, int] = {}
    channels = {}
    for topic in topics:
        name, schema = CLIP_SCHEMAS[CAMERA_PREFIX if topic in cameras else topic]
        if name not in schemas:
            schemas[name] = writer.register_schema(name, "jsonschema", _encoder.encode(schema))
        channels[topic] = writer.register_channel(topic, "json", schemas[name])
    return channels


def _messages(frame: Frame) -> Iterator[tuple[str, bytes]]:
    """Topic and JSON of all that a frame holds."""
    if frame.images is not None:
        for name, image in zip(frame.cameras, frame.images, strict=True):
            yield CAMERA_PREFIX + name, _image(frame.time_ns, name, image)
    signals = {"signals": dict(frame.signals), "command": frame.command, "engaged": frame.engaged}
    yield SIGNALS_CHANNEL, _encoder.encode(signals)
    if frame.plan_m is not None:
        plan = {"points_m": _points(frame.plan_m), "model_version": frame.model_version}
        if frame.scale_m is not None:
            plan["scale_m"] = _points(frame.scale_m)
        yield PLAN_CHANNEL, _encoder.encode(plan)
    if frame.driver_plan_m is not None:
        yield (
            DRIVER_CHANNEL,
            _encoder.encode({"points_m": _points(frame.driver_plan_m), "rule": frame.driver_rule}),
        )


def _image(time_ns: int, camera: str, image: NDArray[np.uint8]) -> bytes:
    seconds, rest = divmod(time_ns, SECOND_NS)
    head = _encoder.encode({"timestamp": {"sec": seconds, "nsec": rest}, "frame_id": camera, "format": "jpeg"})
    return head[:-1] + b',"data":"' + base64.b64encode(encode_jpeg(image)) + b'"}'


def _points(points_m: Floats) -> list[list[float]]:
    """Millimetres are enough."""
    rounded: list[list[float]] = np.asarray(points_m, np.float64).round(3).tolist()
    return rounded
