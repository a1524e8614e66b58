"""From a camera's pictures to the rig's: upright, the right size, nothing stretched."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

KEEP_AT_LEAST = 0.6
"""If cropping to the rig's shape would lose more of the picture than this leaves, it gets black borders."""


def fit(image: NDArray[np.uint8], width_px: int, height_px: int) -> NDArray[np.uint8]:
    """[H, W, 3] to [height_px, width_px, 3], averaged over the pixels: cropped about the centre, or with black
    borders where that would lose too much."""
    rows, columns = image.shape[:2]
    wide, tall = columns / width_px, rows / height_px
    kept = min(wide, tall) / max(wide, tall)
    if kept < KEEP_AT_LEAST:
        return _bordered(image, width_px, height_px, max(wide, tall))
    scale = min(wide, tall)
    left, top = (columns - width_px * scale) / 2, (rows - height_px * scale) / 2
    box = (left, top, columns - left, rows - top)
    return np.asarray(Image.fromarray(image).resize((width_px, height_px), Image.Resampling.BILINEAR, box))


def _bordered(image: NDArray[np.uint8], width_px: int, height_px: int, scale: float) -> NDArray[np.uint8]:
    size = (max(round(image.shape[1] / scale), 1), max(round(image.shape[0] / scale), 1))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    out = np.zeros((height_px, width_px, 3), np.uint8)
    top, left = (height_px - size[1]) // 2, (width_px - size[0]) // 2
    out[top : top + size[1], left : left + size[0]] = small
    return out
