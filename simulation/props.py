"""Models of who and what takes part in encounters, built at ORIGIN or at given places."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from simulation.encounters import DOOR_M
from simulation.meshes import EMISSIVE, ORIGIN, Frames, Mesh, boxes, car, join, plates, polygon, rectangle
from simulation.regions import Region

WHITE, BLACK, RED, YELLOW, ORANGE, BLUE = (
    (240, 240, 240), (24, 24, 24), (204, 18, 30), (240, 196, 20), (240, 130, 20), (20, 80, 190),
)  # fmt: skip
POLE_RGB = (130, 132, 134)
_TIP_DOWN = np.pi / 6
"""Turn of a triangle that stands on its tip; half a turn more, and it lies on its base."""


def van(rgb: ArrayLike) -> Mesh:
    """A delivery van of 5.4 x 2.1 x 2.4 m, with tail lamps."""
    return join(
        [
            boxes(ORIGIN, [0, 0, 0.2], [5.2, 2.0, 0.4], (28, 28, 30)),
            boxes(ORIGIN, [-0.6, 0, 0.5], [4.2, 2.1, 1.9], rgb),
            boxes(ORIGIN, [2.0, 0, 0.5], [1.3, 2.0, 0.8], rgb),
            boxes(ORIGIN, [1.8, 0, 1.3], [0.9, 1.9, 0.8], (40, 48, 58)),
            *_lamps(2.72),
        ]
    )


def ambulance(lit: int) -> Mesh:
    """A white van with a red band and blue lamps, one of which (0 or 1) is lit."""
    bar = [
        boxes(ORIGIN, [1.3, y, 2.42], [0.5, 0.6, 0.25], (60, 90, EMISSIVE + 5) if side == lit else (20, 24, 90))
        for side, y in enumerate((-0.55, 0.55))
    ]
    flash = [
        plates(
            _facing(turn), [-2.84, y, 1.0], rectangle(0.5, 0.3), (70, 110, 255) if side == lit else (30, 34, 110)
        )
        for turn in (0.0, np.pi)
        for side, y in enumerate((-0.6, 0.6))
    ]
    band = boxes(ORIGIN, [-0.6, 0, 1.1], [4.24, 2.14, 0.35], RED)
    cross = [plates(ORIGIN, [-2.75, 0, 1.7], rectangle(*size), RED) for size in ((0.8, 0.26), (0.26, 0.8))]
    return join([van((238, 238, 236)), band, *bar, *flash, *cross])


def cyclist(rgb: ArrayLike) -> Mesh:
    """Someone on a bicycle, 1.8 m long and 1.8 m high, with a red reflector."""
    return join(
        [
            boxes(ORIGIN, [-0.55, 0, 0], [0.66, 0.06, 0.66], (30, 30, 32)),
            boxes(ORIGIN, [0.55, 0, 0], [0.66, 0.06, 0.66], (30, 30, 32)),
            boxes(ORIGIN, [0, 0, 0.55], [0.9, 0.07, 0.1], (170, 40, 40)),
            boxes(ORIGIN, [0.45, 0, 0.95], [0.08, 0.55, 0.08], (40, 40, 40)),
            boxes(ORIGIN, [-0.05, 0, 0.35], [0.34, 0.36, 0.6], (44, 48, 70)),
            boxes(ORIGIN, [0.08, 0, 0.95], [0.42, 0.48, 0.6], rgb),
            boxes(ORIGIN, [0.2, 0, 1.55], [0.26, 0.24, 0.28], (232, 232, 230)),
            plates(ORIGIN, [-0.9, 0, 0.7], rectangle(0.16, 0.12), (EMISSIVE, 30, 20)),
        ]
    )


def door_car(rgb: ArrayLike, side: int, opened: float) -> Mesh:
    """A parked car whose door towards the lane (`side` 1: on its left) is open by a share of DOOR_M."""
    if opened <= 0:
        return car(rgb)
    reach = DOOR_M * opened
    y = side * (0.95 + reach / 2)
    door = boxes(ORIGIN, [0.45, y, 0.4], [0.1, reach, 0.65], rgb)
    pane = boxes(ORIGIN, [0.45, y, 1.05], [0.06, reach, 0.35], (40, 48, 58))
    inside = boxes(ORIGIN, [-0.1, side * 0.93, 0.45], [1.0, 0.08, 0.85], (18, 18, 20))
    return join([car(rgb), inside, door, pane])


def _lamps(rear: float) -> list[Mesh]:
    return [plates(ORIGIN, [-rear, y, 0.9], rectangle(0.2, 0.4), (EMISSIVE, 14, 14)) for y in (-0.9, 0.9)]


def _facing(turn: float) -> Frames:
    return Frames(ORIGIN.x, ORIGIN.y, np.full(1, turn), ORIGIN.code)


def cones(at: Frames) -> Mesh:
    """Traffic cones with a white band, 0.75 m."""
    return join(
        [
            boxes(at, [0, 0, 0], [0.42, 0.42, 0.06], (40, 40, 40)),
            boxes(at, [0, 0, 0.06], [0.30, 0.30, 0.25], ORANGE),
            boxes(at, [0, 0, 0.31], [0.22, 0.22, 0.2], WHITE),
            boxes(at, [0, 0, 0.51], [0.14, 0.14, 0.24], ORANGE),
        ]
    )


def barriers(at: Frames) -> Mesh:
    """Boards of red and white stripes across a closed lane, 2.4 m, with amber lamps."""
    stripes = [
        plates(at, [0, -1.05 + 0.3 * i, 0.95], rectangle(0.3, 0.35), RED if i % 2 else WHITE) for i in range(8)
    ]
    lamps = [plates(at, [-0.02, y, 1.3], polygon(8, 0.12), (255, 180, 30)) for y in (-1.1, 1.1)]
    legs = [boxes(at, [0.1, y, 0], [0.1, 0.1, 1.2], POLE_RGB) for y in (-1.0, 1.0)]
    return join([*legs, *stripes, *lamps])


def _pole(at: Frames, high: float) -> Mesh:
    return boxes(at, [0.08, 0, 0], [0.1, 0.1, high], POLE_RGB)


def give_way_sign(at: Frames) -> Mesh:
    """A white triangle on its tip, rimmed in red."""
    return join([_pole(at, 2.6), *_rimmed(at, polygon(3, 0.85, _TIP_DOWN), polygon(3, 0.5, _TIP_DOWN))])


def warning_sign(at: Frames, region: Region, roadworks: bool) -> Mesh:
    """What warns ahead, in the region's shape: of roadworks, or of people crossing."""
    mark = [plates(at, [-0.09, 0, 2.3], rectangle(0.14, 0.5), BLACK)]
    if region.warning == "triangle":
        base = _TIP_DOWN + np.pi
        return join([_pole(at, 2.6), *_rimmed(at, polygon(3, 0.9, base), polygon(3, 0.58, base)), *mark])
    face = ORANGE if roadworks else YELLOW
    edge = plates(at, [0, 0, 2.4], polygon(4, 0.85), BLACK)
    return join([_pole(at, 2.6), edge, plates(at, [-0.05, 0, 2.4], polygon(4, 0.78), face), *mark])


def pass_sign(at: Frames, side: int) -> Mesh:
    """A blue disc with an arrow to the side on which to pass."""
    arrow = plates(at, [-0.06, side * 0.05, 1.75], rectangle(0.42, 0.12), WHITE)
    head = plates(at, [-0.06, side * 0.22, 1.75], polygon(4, 0.2), WHITE)
    return join([_pole(at, 1.9), plates(at, [0, 0, 1.75], polygon(8, 0.45), BLUE), arrow, head])


def crossing_sign(at: Frames, region: Region) -> Mesh:
    """What stands at a zebra crossing."""
    if region.crossing == "beacon":
        bands = [boxes(at, [0, 0, 0.5 * i], [0.14, 0.14, 0.5], WHITE if i % 2 else BLACK) for i in range(5)]
        return join([*bands, boxes(at, [0, 0, 2.5], [0.42, 0.42, 0.42], (EMISSIVE + 2, 180, 30))])
    walker = plates(at, [-0.08, 0, 2.35], rectangle(0.2, 0.55), BLACK)
    if region.crossing == "diamond":
        return join([_pole(at, 2.6), plates(at, [0, 0, 2.35], polygon(4, 0.8), YELLOW), walker])
    face = plates(at, [-0.04, 0, 2.35], polygon(3, 0.5, _TIP_DOWN + np.pi), WHITE)
    return join([_pole(at, 2.6), plates(at, [0, 0, 2.35], rectangle(0.95, 0.95), BLUE), face, walker])


def stop_sign(at: Frames, shape: str) -> Mesh:
    """Stop signs beside those of the first loop: Japan's red wedge, the Vienna Convention's B,2b disc, and the
    small disc that someone holds out."""
    if shape == "wedge":
        rim = plates(at, [-0.02, 0, 2.6], polygon(3, 0.95, _TIP_DOWN), WHITE)
        face = plates(at, [-0.06, 0, 2.6], polygon(3, 0.84, _TIP_DOWN), RED)
        return join([_pole(at, 2.6), rim, face, plates(at, [-0.10, 0, 2.72], rectangle(0.7, 0.2), WHITE)])
    if shape == "paddle":
        rim = plates(at, [-0.02, 0, 1.75], polygon(12, 0.42), WHITE)
        face = plates(at, [-0.06, 0, 1.75], polygon(12, 0.36), RED)
        word = plates(at, [-0.10, 0, 1.75], rectangle(0.5, 0.14), WHITE)
        return join([_pole(at, 1.6), rim, face, word])
    rim = plates(at, [-0.02, 0, 2.5], polygon(16, 0.8), RED)
    face = plates(at, [-0.06, 0, 2.5], polygon(16, 0.62), WHITE)
    inner = plates(at, [-0.10, 0, 2.58], polygon(3, 0.52, _TIP_DOWN), RED)
    word = plates(at, [-0.14, 0, 2.56], rectangle(0.9, 0.22), BLACK)
    return join([_pole(at, 2.4), rim, face, inner, word])


def _rimmed(at: Frames, rim: np.ndarray, face: np.ndarray) -> list[Mesh]:
    return [plates(at, [0, 0, 2.4], rim, RED), plates(at, [-0.05, 0, 2.4], face, WHITE)]
