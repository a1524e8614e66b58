"""A dashcam file: any video that FFmpeg reads. Pictures and their times, and nothing about motion."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from edge.agent.frame import Frame
from edge.sources.images import fit
from edge.sources.source import FRAME_NS, BadSource
from model.rig import Camera, Rig
from streams.contracts.clock import SECOND_NS

DASHCAM = Rig("dashcam-96x48", (Camera("front", 96, 48, 1.20, 1.5, 0.0, 1.3),))
"""Assumed where nothing is known of the camera: about 70 degrees across, behind the windscreen."""
SHORT_S = 0.5
"""A file whose pictures end this much before its own duration was cut off."""

TRANSPORT_PACKETS = (188, 192, 204)
"""Bytes of an MPEG transport stream's packets (plain, with times, with error correction). Such a file tells no
duration: that it does not end with a whole packet is the only sign of its being cut off."""


class VideoDrive:
    """A video as a drive (see source.Drive): speed, yaw rate and distance are not known and not made up."""

    def __init__(self, path: Path, region: str = "unknown", rig: Rig = DASHCAM) -> None:
        """Opens the file and looks at its first picture. Raises BadSource for a file that is no usable video."""
        self.name, self.region, self._path = path.name, region, path
        self.rig: Rig | None = rig
        self.km: float | None = None
        self._camera = rig.cameras[0]
        with _open(path) as container:
            stream = _video_stream(container, path)
            self.duration_s = _duration_s(container, stream)
            self._start_ns = _recorded_ns(container, stream)
        self.warnings = [
            "the video carries no motion signals: speed and distance are not known, motion triggers are off",
            f"the camera is not calibrated: {rig.cameras[0].horizontal_fov_rad:.2f} rad across is assumed",
        ]
        if self._start_ns == 0:
            self.warnings.append("the file has no recording time: times start at 1970")

    def frames(self) -> Iterator[Frame]:
        """See source.Drive: pictures at 5 Hz, or as often as there are any. A file that ends early raises
        BadSource after its last good picture."""
        camera = self._camera
        for time_s, image in sampled(pictures(self._path, self.duration_s)):
            yield Frame(
                time_ns=self._start_ns + round(time_s * SECOND_NS),
                signals={},
                images=fit(image, camera.width_px, camera.height_px)[None],
                cameras=(camera.name,),
            )


def pictures(path: Path, duration_s: float) -> Iterator[tuple[float, VideoFrame]]:
    """Every picture's time since the first in s, rising, and the decoded frame. Raises BadSource where the file is
    damaged or ends before `duration_s`."""
    first_s, last_s, period_s = None, 0.0, 0.0
    with _open(path) as container:
        transport, stream = container.format.name == "mpegts", _video_stream(container, path)
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        decoder = container.decode(stream)
        number = 0
        while (picture := _next(decoder, path, last_s, duration_s)) is not None:
            at_s = picture.time if picture.time is not None else number / rate if rate else None
            if at_s is None:
                raise BadSource(f"{path}: pictures have no times and the file no frame rate; remux it to MP4")
            number += 1
            first_s = at_s if first_s is None else first_s
            if number > 1 and at_s - first_s <= last_s:
                continue
            period_s, last_s = at_s - first_s - last_s, at_s - first_s
            yield last_s, picture
    if first_s is None:
        raise BadSource(f"{path}: no picture can be decoded; the file is empty or cut off")
    if duration_s and last_s + period_s < duration_s - SHORT_S:
        raise BadSource(f"{path}: cut off: it says {duration_s:.2f} s, its pictures end at {last_s:.2f} s")
    if transport and all(path.stat().st_size % length for length in TRANSPORT_PACKETS):
        raise BadSource(f"{path}: cut off in the middle of a packet; its pictures end at {last_s:.2f} s")


def sampled(source: Iterator[tuple[float, VideoFrame]]) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """The first picture of each fifth of a second, upright, RGB [H, W, 3]."""
    due = 0
    for time_s, picture in source:
        tick = int((time_s * SECOND_NS + 1e3) // FRAME_NS)
        if tick >= due:
            due = tick + 1
            yield time_s, upright(picture)


def upright(picture: VideoFrame) -> NDArray[np.uint8]:
    """RGB [H, W, 3], turned as the file's display matrix says."""
    image = np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)
    turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _next(decoder: Iterator[VideoFrame], path: Path, last_s: float, duration_s: float) -> VideoFrame | None:
    try:
        return next(decoder)
    except StopIteration:
        return None
    except av.error.FFmpegError as error:
        whole = f" of {duration_s:.2f} s" if duration_s else ""
        raise BadSource(f"{path}: damaged after {last_s:.2f} s{whole}: {_reason(error)}") from error


def _open(path: Path) -> InputContainer:
    if not path.is_file():
        raise BadSource(f"{path}: there is no such file")
    try:
        return av.open(os.fspath(path))
    except (av.error.FFmpegError, OSError) as error:
        raise BadSource(f"{path}: not a video that can be read: {_reason(error)}; is it cut off?") from error


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    if not container.streams.video:
        raise BadSource(f"{path}: has no picture track")
    stream = container.streams.video[0]
    stream.thread_type = "NONE"
    return stream


def _duration_s(container: InputContainer, stream: VideoStream) -> float:
    """What the file says of its length; 0 if nothing (raw streams)."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    length_s = container.duration / av.time_base if container.duration else 0.0
    if "matroska" in container.format.name and stream.start_time and stream.time_base:
        length_s -= float(stream.start_time * stream.time_base)  # it counts from 0, whenever its pictures start
    return max(length_s, 0.0)


def _recorded_ns(container: InputContainer, stream: VideoStream) -> int:
    """The file's own recording time, ns UTC; 0 if it has none that makes sense."""
    text = stream.metadata.get("creation_time") or container.metadata.get("creation_time") or ""
    try:
        recorded = datetime.fromisoformat(text)
    except ValueError:
        return 0
    recorded = recorded if recorded.tzinfo else recorded.replace(tzinfo=UTC)
    return max(int(recorded.timestamp()), 0) * SECOND_NS


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
