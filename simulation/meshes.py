"""Polygons of everything a camera sees, as NumPy arrays: roads, signs, houses, cars, people.

Colours are 0..255. A channel of EMISSIVE or more is kept for lamps, which shine at night. Alpha is not
opacity: it tells how far a surface is, which fog and night need and the renderer does not give (see
weather.py): SKY, GROUND, or a place code along the road.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulation.arrays import Floats

SKY, GROUND, CODES = 0, 254, 240
"""Alpha values as drawn; 1..CODES are place codes, CODES of them to a road period. The renderer's texture
modulation takes 1 off whatever a vertex says."""
EMISSIVE = 250
PLAIN, ASPHALT, GRASS, WINDOWS, LEAVES = range(5)
"""Tiles of the texture atlas."""
TILE_PX, ATLAS_TILES = 32, 4

VERTEX = np.dtype([("position", "<f4", 4), ("colour", "u1", 4), ("uv", "<f4", 2)])
"""Positions are homogeneous: the renderer reads four numbers faster than three."""


Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Mesh:
    """Q quadrilaterals, seen from the side where their corners run counter-clockwise."""

    corners: Floats
    """[Q, 4, 3], m."""
    colour: Floats
    """[Q, 4], RGB 0..255 and the alpha code."""
    tile: NDArray[np.int64]
    """[Q]"""

    def vertices(self, parts: Sequence[Rows]) -> tuple[NDArray[np.void], list[NDArray[np.uint32]]]:
        """Records of VERTEX, and for each part which are the corners of its quadrilaterals, [Q, 4]. What is a
        corner of several in a part is there once. Those of a part follow one another: the renderer transforms all
        between the first and the last that it is to draw."""
        out = np.zeros((len(self.corners), 4), VERTEX)
        out["position"][..., :3], out["position"][..., 3] = self.corners, 1
        out["colour"] = np.clip(np.round(self.colour), 0, 255)[:, None, :]
        corner = np.array([[0.06, 0.06], [0.94, 0.06], [0.94, 0.94], [0.06, 0.94]])
        # The plain tile looks the same everywhere.
        corner = np.where((self.tile == PLAIN)[:, None, None], 0.5, corner)
        place = np.stack([self.tile % ATLAS_TILES, self.tile // ATLAS_TILES], -1)
        out["uv"] = (place[:, None, :] + corner) / ATLAS_TILES
        records, corners, count = list[NDArray[np.void]](), list[NDArray[np.uint32]](), 0
        for part in parts:
            own = out[part].reshape(-1)
            names = own.view(np.dtype((np.void, VERTEX.itemsize)))
            _, first, which = np.unique(names, return_index=True, return_inverse=True)
            records.append(own[first])
            corners.append((which + count).astype(np.uint32).reshape(-1, 4))
            count += len(first)
        return np.concatenate(records), corners

    def parts(self, most: int) -> list[Rows]:
        """Rows of quadrilaterals that lie near one another, at most `most` each: halved across their longer extent
        on the ground as often as that takes."""
        middle = self.corners[..., :2].mean(1)

        def halved(rows: Rows) -> list[Rows]:
            if len(rows) <= most:
                return [rows]
            here = middle[rows]
            order = np.argsort(here[:, np.ptp(here, axis=0).argmax()], kind="stable")
            half = len(order) // 2
            # Within a part in the order they came: of two that are equally far, the first is seen.
            return [*halved(rows[np.sort(order[:half])]), *halved(rows[np.sort(order[half:])])]

        return halved(np.arange(len(middle)))

    def take(self, rows: NDArray[np.bool_]) -> Mesh:
        """Some of the quadrilaterals."""
        return Mesh(self.corners[rows], self.colour[rows], self.tile[rows])


def join(meshes: list[Mesh]) -> Mesh:
    """All of them as one."""
    return Mesh(
        np.concatenate([mesh.corners for mesh in meshes]),
        np.concatenate([mesh.colour for mesh in meshes]),
        np.concatenate([mesh.tile for mesh in meshes]),
    )


@dataclass(frozen=True, slots=True)
class Frames:
    """N places: where objects stand, their heading and their alpha code, each [N]."""

    x: Floats
    y: Floats
    heading: Floats
    code: Floats

    def place(self, local: Floats) -> Floats:
        """Points [N, K, 3] of the objects' own frames (x forward, y left, z up) in world coordinates."""
        cos, sin = np.cos(self.heading)[:, None], np.sin(self.heading)[:, None]
        x = self.x[:, None] + local[..., 0] * cos - local[..., 1] * sin
        y = self.y[:, None] + local[..., 0] * sin + local[..., 1] * cos
        return np.stack([x, y, local[..., 2]], -1)

    def paint(self, rgb: ArrayLike) -> Floats:
        """[N, 4] from RGB [3] or [N, 3] and the code."""
        colour = np.broadcast_to(np.asarray(rgb, float), (len(self.x), 3))
        return np.concatenate([colour, self.code[:, None]], 1)

    def take(self, rows: NDArray[np.bool_]) -> Frames:
        """Some of the places."""
        return Frames(self.x[rows], self.y[rows], self.heading[rows], self.code[rows])


ORIGIN = Frames(np.zeros(1), np.zeros(1), np.zeros(1), np.full(1, 255.0))
"""Where models that move are built; their code is set when they are drawn."""

_FACES = np.array([[4, 5, 6, 7], [3, 0, 4, 7], [1, 2, 6, 5], [0, 1, 5, 4], [2, 3, 7, 6]])
"""Top, rear, front, right, left of a box. Corners 0..3 run counter-clockwise seen from above: rear right,
front right, front left, rear left; 4..7 lie on top of them."""
_FACE_LIGHT = np.array([1.0, 0.72, 0.80, 0.62, 0.90])


def boxes(at: Frames, centre: ArrayLike, size: ArrayLike, rgb: ArrayLike, tile: int = PLAIN) -> Mesh:
    """Boxes at each place: `centre` of the bottom and `size` (length, width, height), [3] or [N, 3]."""
    count = len(at.x)
    middle = np.broadcast_to(np.asarray(centre, float), (count, 3))[:, None, :]
    extent = np.broadcast_to(np.asarray(size, float), (count, 3))[:, None, :]
    unit = np.array(
        [[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0], [-1, -1, 2], [1, -1, 2], [1, 1, 2], [-1, 1, 2]]
    )
    corner = at.place(middle + unit * extent / 2)
    colour = at.paint(rgb)[:, None, :] * np.concatenate(
        [np.repeat(_FACE_LIGHT[:, None], 3, 1), np.ones((5, 1))], 1
    )
    tiles = np.full((count, 5), tile)
    tiles[:, 0] = PLAIN
    return Mesh(corner[:, _FACES].reshape(-1, 4, 3), colour.reshape(-1, 4), tiles.reshape(-1))


def plates(at: Frames, centre: ArrayLike, outline: Floats, rgb: ArrayLike) -> Mesh:
    """Flat signs facing whoever comes along the heading. `outline` [K, 2] (right, up), K even, runs
    counter-clockwise as that driver sees it."""
    local = np.zeros((1, len(outline), 3))
    local[0, :, 1], local[0, :, 2] = -outline[:, 0], outline[:, 1]
    points = at.place(np.broadcast_to(np.asarray(centre, float), (len(at.x), 3))[:, None, :] + local)
    fan = [[0, i, i + 1, i + 2] for i in range(1, len(outline) - 2, 2)]
    corners = points[:, np.array(fan)].reshape(-1, 4, 3)
    return Mesh(corners, np.repeat(at.paint(rgb), len(fan), 0), np.full(len(corners), PLAIN))


def polygon(sides: int, radius_m: float, turn_rad: float = 0.0) -> Floats:
    """A regular outline for `plates`; a triangle repeats its last corner to be even."""
    angle = turn_rad + np.arange(sides) * 2 * np.pi / sides
    outline = radius_m * np.stack([np.cos(angle), np.sin(angle)], -1)
    return outline if sides % 2 == 0 else np.concatenate([outline, outline[-1:]])


def rectangle(width_m: float, height_m: float) -> Floats:
    """An upright rectangle as an outline for `plates`."""
    return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width_m / 2, height_m / 2]


def grid(x: Floats, y: Floats, rgb: Floats, tile: NDArray[np.int64]) -> Mesh:
    """A ribbon of ground: corner points [S + 1, K + 1] along and across (leftwards), colours [S, K, 3]."""
    points = np.stack([x, y, np.zeros_like(x)], -1)
    corners = np.stack([points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]], 2)
    colour = np.concatenate([rgb, np.full((*rgb.shape[:2], 1), GROUND + 1.0)], -1)
    return Mesh(corners.reshape(-1, 4, 3), colour.reshape(-1, 4), tile.reshape(-1))


def car(rgb: ArrayLike) -> Mesh:
    """A car of 4.6 x 1.9 x 1.5 m at ORIGIN, with head- and tail lamps."""
    rear, front = [-2.32, 0, 0], [2.32, 0, 0]
    lamps = [plates(ORIGIN, [rear[0], y, 0.85], rectangle(0.35, 0.22), (EMISSIVE, 14, 14)) for y in (-0.7, 0.7)]
    backwards = Frames(ORIGIN.x, ORIGIN.y, np.full(1, np.pi), ORIGIN.code)
    heads = [plates(backwards, [-front[0], y, 0.7], rectangle(0.4, 0.25), (255, 255, 225)) for y in (-0.65, 0.65)]
    return join(
        [
            boxes(ORIGIN, [0, 0, 0.15], [4.3, 1.75, 0.3], (28, 28, 30)),
            boxes(ORIGIN, [0, 0, 0.40], [4.6, 1.9, 0.55], rgb),
            boxes(ORIGIN, [-0.25, 0, 0.95], [2.5, 1.7, 0.42], (40, 48, 58)),
            boxes(ORIGIN, [-0.25, 0, 1.37], [2.1, 1.6, 0.10], rgb),
            *lamps,
            *heads,
        ]
    )


def brake_lamps() -> Mesh:
    """What lights up at the rear of a braking car."""
    wide = [plates(ORIGIN, [-2.36, y, 0.85], rectangle(0.55, 0.35), (255, 50, 40)) for y in (-0.65, 0.65)]
    return join([*wide, plates(ORIGIN, [-1.55, 0, 1.25], rectangle(0.9, 0.14), (255, 50, 40))])


def person(rgb: ArrayLike, trousers: ArrayLike = (40, 44, 70)) -> Mesh:
    """A grown pedestrian, 1.85 m, at ORIGIN."""
    return join(
        [
            boxes(ORIGIN, [0, 0, 0], [0.40, 0.38, 0.9], trousers),
            boxes(ORIGIN, [0, 0, 0.9], [0.42, 0.60, 0.65], rgb),
            boxes(ORIGIN, [0, 0, 1.55], [0.26, 0.26, 0.30], (205, 160, 130)),
        ]
    )


LAMP_RGB = ((40, 255, 90), (255, 190, 30), (255, 40, 30))
"""By colour number: green, amber, red."""
LAMP_SPACING_M = 0.9
HEADS = ((11.5, 0.0, 4.7), (10.0, 1.0, 3.2), (1.0, 1.15, 3.2))
"""The three heads of a light: metres beyond the line; 0 over the lane or 1 on the kerb; height of the middle."""


def lamps(colour: int, kerb_m: float) -> Mesh:
    """The lit lamp of each head, relative to the line in the middle of the lane; `kerb_m` is y of the kerb
    head. One number more than there are colours is red and amber together."""
    if colour == len(LAMP_RGB):
        return join([lamps(1, kerb_m), lamps(2, kerb_m)])
    up = (colour - 1) * LAMP_SPACING_M
    return join(
        [
            plates(ORIGIN, [beyond - 0.25, at * kerb_m, z + up], polygon(8, 0.45, np.pi / 8), LAMP_RGB[colour])
            for beyond, at, z in HEADS
        ]
    )


def atlas(seed: int = 7) -> NDArray[np.uint8]:
    """The textures, RGB [size, size, 3], modulating the colours; first row is v = 0."""
    rng = np.random.default_rng(seed)
    tiles = np.full((ATLAS_TILES**2, TILE_PX, TILE_PX), 255.0)
    tiles[ASPHALT] = 225 + rng.uniform(-30, 30, (TILE_PX, TILE_PX))
    tiles[GRASS] = 205 + rng.uniform(-50, 50, (TILE_PX, TILE_PX))
    tiles[LEAVES] = 180 + rng.uniform(-75, 75, (TILE_PX, TILE_PX))
    pane = np.zeros(TILE_PX, bool).reshape(4, 8)
    pane[:, 2:6] = True
    tiles[WINDOWS][np.ix_(pane.reshape(-1), pane.reshape(-1))] = 110
    square = tiles.reshape(ATLAS_TILES, ATLAS_TILES, TILE_PX, TILE_PX).swapaxes(1, 2)
    grey = square.reshape(ATLAS_TILES * TILE_PX, -1).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, 2)
