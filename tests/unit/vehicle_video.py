"""Small videos to read in tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream


def video(
    path: Path,
    times_s: list[float],
    size: tuple[int, int] = (192, 96),
    codec: str = "mpeg4",
    options: dict[str, str] | None = None,
) -> Path:
    """Pictures at these times; picture n is grey 10 + 2 n in its left half and blue in its right."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=30)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.time_base = Fraction(1, 1000)
        for number, time_s in enumerate(times_s):
            image = np.full((size[1], size[0], 3), (10 + 2 * number) % 250, np.uint8)
            image[:, size[0] // 2 :] = (0, 0, 250)
            picture = av.VideoFrame.from_ndarray(image, "rgb24")
            picture.pts, picture.time_base = round(time_s * 1000), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path
