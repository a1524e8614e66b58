"""The clip reader: MCAP bytes of an archived clip to arrays. The format is streams/contracts/clips.py."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any

import lz4.frame  # type: ignore[import-untyped]
import msgspec
import numpy as np
import zstandard
from mcap.exceptions import McapError
from mcap.records import Channel, Chunk, McapRecord, Message, Metadata
from mcap.stream_reader import StreamReader, breakup_chunk
from numpy.typing import NDArray
from PIL import Image

from registry.errors import Corrupt, Refused
from streams.contracts.clips import (
    CAMERA_PREFIX,
    CLIP_METADATA,
    DRIVER_CHANNEL,
    MAX_CLIP_BYTES,
    PLAN_CHANNEL,
    SIGNALS_CHANNEL,
)
from streams.contracts.odd import SPEED, YAW_RATE

PLAN_POINTS = 8
"""Waypoints of a plan, as in model.policy."""
_KMH_PER_MPS = 3.6
_DAMAGE = (
    McapError,
    ValueError,  # among them Unicode's and mcap's checksum errors
    msgspec.MsgspecError,
    RecursionError,
    struct.error,
    zlib.error,
    binascii.Error,
    zstandard.ZstdError,
    RuntimeError,  # lz4
    EOFError,
    OSError,  # this and the next two: Pillow
    SyntaxError,
    Image.DecompressionBombError,
    OverflowError,
)


@dataclass(frozen=True, slots=True)
class ClipLimits:
    """What a clip may cost the reader, however small its file is."""

    file_bytes: int = MAX_CLIP_BYTES
    inflated_bytes: int = 1024**3
    messages: int = 200_000
    image_pixels: int = 8_300_000
    """One 4K image."""
    array_bytes: int = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class ClipFrames:
    """N frames of C cameras with what was sensed, planned and driven at each. Points: vehicle frame at that frame,
    x forward, y left, m; NaN where there is none."""

    clip_id: str
    cameras: tuple[str, ...]
    """The rig's order; alphabetical where the clip names no rig."""
    times_ns: NDArray[np.int64]
    """[N], rising."""
    images: NDArray[np.uint8]
    """[N, C, H, W, 3], RGB."""
    signals: dict[str, NDArray[np.float64]]
    """VSS name -> [N], in the unit VSS gives; NaN where it was not sent."""
    command: NDArray[np.int64]
    """[N], route command of model.policy."""
    engaged: NDArray[np.bool_]
    """[N]."""
    plan_m: NDArray[np.float32]
    """[N, 8, 2], the policy's most confident trajectory."""
    driver_m: NDArray[np.float32]
    """[N, 8, 2], the way the vehicle or the expert really took."""
    rules: tuple[str, ...]
    """[N], the rule that the driver followed, "" where there is none."""
    metadata: dict[str, str]
    rig: dict[str, Any] | None

    @property
    def speed_mps(self) -> NDArray[np.float32]:
        """[N], NaN where it is not known (a dashcam without motion signals)."""
        return (self._signal(SPEED) / _KMH_PER_MPS).astype(np.float32)

    @property
    def yaw_rate_radps(self) -> NDArray[np.float32]:
        """[N], positive to the left, NaN where it is not known."""
        return np.radians(self._signal(YAW_RATE)).astype(np.float32)

    def _signal(self, name: str) -> NDArray[np.float64]:
        return self.signals.get(name, np.full(len(self.times_ns), np.nan))


class _Signals(msgspec.Struct):
    signals: dict[str, float] = {}
    command: int = 0
    engaged: bool = False


class _Points(msgspec.Struct):
    points_m: list[tuple[float, float]] = []
    rule: str = ""


class _Image(msgspec.Struct):
    data: str
    format: str = ""


@dataclass(slots=True)
class _Tracks:
    """What the file holds, channel by channel: (log time in ns, decoded value)."""

    metadata: dict[str, str] = field(default_factory=dict)
    signals: list[tuple[int, _Signals]] = field(default_factory=list)
    plan: list[tuple[int, _Points]] = field(default_factory=list)
    driver: list[tuple[int, _Points]] = field(default_factory=list)
    images: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)


_signals_decoder = msgspec.json.Decoder(_Signals)
_points_decoder = msgspec.json.Decoder(_Points)
_image_decoder = msgspec.json.Decoder(_Image)


def read_clip(data: bytes, clip_id: str = "", limits: ClipLimits | None = None) -> ClipFrames:
    """The frames of a clip: one for each image of the first camera that all other cameras have, too.

    Every frame takes the message of each other channel that is nearest in time, at most half a frame away;
    signals take the newest one before it where none is as near. Raises Corrupt, naming the clip and the byte
    where the damage showed, and Refused for a file beyond the limits.
    """
    limits = limits or ClipLimits()
    if len(data) > limits.file_bytes:
        raise Refused(f"clip {clip_id!r} has {len(data)} bytes; at most {limits.file_bytes}")
    tracks = _read_tracks(data, clip_id, limits)
    name = tracks.metadata.get("clip_id", clip_id)
    if clip_id and name != clip_id:
        raise Corrupt(f"clip {clip_id!r}: the file says that it is clip {name!r}")
    try:
        return _assemble(name, tracks, limits)
    except _DAMAGE as error:
        if isinstance(error, Refused):
            raise
        raise Corrupt(f"clip {name!r}: {error}") from error


def _read_tracks(data: bytes, clip_id: str, limits: ClipLimits) -> _Tracks:
    tracks, topics, stream, left = _Tracks(), dict[int, str](), BytesIO(data), limits.messages
    try:
        for record in _records(stream, limits):
            if isinstance(record, Channel):
                topics[record.id] = record.topic
            elif isinstance(record, Metadata) and record.name == CLIP_METADATA:
                tracks.metadata.update(record.metadata)
            elif isinstance(record, Message):
                left -= 1
                if left < 0:
                    raise Refused(f"clip {clip_id!r} has more than {limits.messages} messages")
                _take(tracks, topics[record.channel_id], record)
    except Refused:
        raise
    except (*_DAMAGE, KeyError) as error:
        what = str(error) or type(error).__name__
        raise Corrupt(f"clip {clip_id!r} is damaged near byte {stream.tell()} of {len(data)}: {what}") from error
    return tracks


def _records(stream: BytesIO, limits: ClipLimits) -> Iterator[McapRecord]:
    left = limits.inflated_bytes
    reader = StreamReader(stream, emit_chunks=True, validate_crcs=True, record_size_limit=limits.file_bytes)
    for record in reader.records:
        if isinstance(record, Chunk):
            inflated = _inflate(record, left)
            left -= len(inflated)
            yield from breakup_chunk(replace(record, compression="", data=inflated), validate_crc=True)
        else:
            yield record


def _inflate(chunk: Chunk, limit: int) -> bytes:
    """A chunk's content; never asks for more memory than the limit, whatever the chunk says of itself."""
    if chunk.uncompressed_size > limit:
        raise Refused(f"the clip inflates to more than its limit: {chunk.uncompressed_size} of {limit} bytes left")
    size = chunk.uncompressed_size
    if chunk.compression == "zstd":
        data = zstandard.ZstdDecompressor().stream_reader(chunk.data).read(size + 1)
    elif chunk.compression == "lz4":
        data = lz4.frame.LZ4FrameDecompressor().decompress(chunk.data, max_length=size + 1)
    elif chunk.compression == "":
        data = chunk.data
    else:
        raise ValueError(f"compression {chunk.compression!r} is neither zstd, lz4 nor none")
    if len(data) != size:
        raise ValueError(f"a chunk inflates to another size than the {size} bytes it declares")
    return data


def _take(tracks: _Tracks, topic: str, message: Message) -> None:
    time_ns = message.log_time
    if topic == SIGNALS_CHANNEL:
        tracks.signals.append((time_ns, _signals_decoder.decode(message.data)))
    elif topic == PLAN_CHANNEL:
        tracks.plan.append((time_ns, _points_decoder.decode(message.data)))
    elif topic == DRIVER_CHANNEL:
        tracks.driver.append((time_ns, _points_decoder.decode(message.data)))
    elif topic.startswith(CAMERA_PREFIX):
        image = _image_decoder.decode(message.data)
        pixels = base64.b64decode(image.data, validate=True)
        tracks.images.setdefault(topic.removeprefix(CAMERA_PREFIX), []).append((time_ns, pixels))


def _assemble(clip_id: str, tracks: _Tracks, limits: ClipLimits) -> ClipFrames:
    rig = msgspec.json.decode(tracks.metadata["rig"]) if tracks.metadata.get("rig") else None
    cameras = _cameras(rig, tracks)
    views = [sorted(tracks.images[c], key=lambda v: v[0]) for c in cameras]
    camera_times = [_times(view) for view in views]
    slack_ns = _half_frame_ns(camera_times[0])
    rows = np.stack([_nearest(times, camera_times[0], slack_ns) for times in camera_times])
    kept = (rows >= 0).all(0)
    times_ns, rows = camera_times[0][kept], rows[:, kept]
    if not len(times_ns):
        raise ValueError(f"no instant has an image of each of the cameras {list(cameras)}")
    signals, command, engaged = _signal_arrays(tracks.signals, times_ns, slack_ns)
    driver_m, rules = _plans(tracks.driver, times_ns, slack_ns)
    return ClipFrames(
        clip_id=clip_id,
        cameras=cameras,
        times_ns=times_ns,
        images=_decode_images([[view[i][1] for i in row] for view, row in zip(views, rows, strict=True)], limits),
        signals=signals,
        command=command,
        engaged=engaged,
        plan_m=_plans(tracks.plan, times_ns, slack_ns)[0],
        driver_m=driver_m,
        rules=rules,
        metadata=dict(tracks.metadata),
        rig=rig,
    )


def _cameras(rig: dict[str, Any] | None, tracks: _Tracks) -> tuple[str, ...]:
    if not tracks.images:
        raise ValueError(f"there is no camera channel ({CAMERA_PREFIX}NAME)")
    if rig is None:
        return tuple(sorted(tracks.images))
    try:
        names = tuple(str(camera["name"]) for camera in rig["cameras"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"the rig in the metadata is not usable: {error}") from error
    if missing := [n for n in names if n not in tracks.images]:
        raise ValueError(f"the rig has cameras {list(names)}, but there are no images of {missing}")
    return names


def _times(track: list[tuple[int, Any]]) -> NDArray[np.int64]:
    return np.array([time_ns for time_ns, _ in track], np.int64)


def _half_frame_ns(times_ns: NDArray[np.int64]) -> int:
    return int(np.median(np.diff(times_ns)) // 2) if len(times_ns) > 1 else 0


def _nearest(times_ns: NDArray[np.int64], at_ns: NDArray[np.int64], slack_ns: int) -> NDArray[np.int64]:
    """For each instant the row of the nearest time (rising), -1 where it is more than the slack away."""
    if not len(times_ns):
        return np.full(len(at_ns), -1)
    after = np.searchsorted(times_ns, at_ns).clip(0, len(times_ns) - 1)
    before = (after - 1).clip(0)
    row = np.where(np.abs(times_ns[before] - at_ns) < np.abs(times_ns[after] - at_ns), before, after)
    return np.where(np.abs(times_ns[row] - at_ns) <= slack_ns, row, -1)


def _signal_arrays(
    track: list[tuple[int, _Signals]], at_ns: NDArray[np.int64], slack_ns: int
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64], NDArray[np.bool_]]:
    track = sorted(track, key=lambda s: s[0])
    times_ns = _times(track)
    near = _nearest(times_ns, at_ns, slack_ns)
    rows = np.where(near >= 0, near, np.searchsorted(times_ns, at_ns, side="right") - 1)
    found = [track[row][1] if row >= 0 else _Signals() for row in rows]
    names = sorted({name for message in found for name in message.signals})
    signals = {name: np.array([m.signals.get(name, np.nan) for m in found]) for name in names}
    return signals, np.array([m.command for m in found], np.int64), np.array([m.engaged for m in found], bool)


def _plans(
    track: list[tuple[int, _Points]], at_ns: NDArray[np.int64], slack_ns: int
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    track = sorted(track, key=lambda p: p[0])
    points = np.full((len(at_ns), PLAN_POINTS, 2), np.nan, np.float32)
    rules = [""] * len(at_ns)
    for n, row in enumerate(_nearest(_times(track), at_ns, slack_ns)):
        if row < 0:
            continue
        message = track[row][1]
        rules[n] = message.rule
        if message.points_m:
            points[n] = _checked_points(message.points_m)
    return points, tuple(rules)


def _checked_points(points_m: list[tuple[float, float]]) -> NDArray[np.float32]:
    points = np.array(points_m, np.float32)
    if points.shape != (PLAN_POINTS, 2):
        raise ValueError(f"a plan has {len(points_m)} points, not {PLAN_POINTS}")
    return points


def _decode_images(views: list[list[bytes]], limits: ClipLimits) -> NDArray[np.uint8]:
    """Encoded images [C][N] to uint8 [N, C, H, W, 3]."""
    with _open_image(views[0][0], limits) as first:
        width, height = first.size
    shape = (len(views[0]), len(views), height, width, 3)
    if (size := int(np.prod(shape, dtype=np.int64))) > limits.array_bytes:
        raise Refused(f"the clip's images take {size} bytes; at most {limits.array_bytes}")
    images = np.empty(shape, np.uint8)
    for c, view in enumerate(views):
        for n, data in enumerate(view):
            with _open_image(data, limits) as image:
                if image.size != (width, height):
                    raise ValueError(f"image sizes differ: {image.size} and {(width, height)} px")
                images[n, c] = np.asarray(image.convert("RGB"))
    return images


def _open_image(data: bytes, limits: ClipLimits) -> Image.Image:
    """An image whose header was read, but no pixel yet."""
    image = Image.open(BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
    if image.width * image.height > limits.image_pixels:
        raise Refused(f"an image of {image.width}x{image.height} px; at most {limits.image_pixels} px")
    return image
