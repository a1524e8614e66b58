"""What stands still in a scene, as meshes cut into pieces along the road."""

from __future__ import annotations

import numpy as np

from simulation import junctions, props
from simulation.arrays import Floats, Ints
from simulation.encounters import GIVE_WAY_LINE, OPEN_LINE
from simulation.junctions import ASPHALT_RGB, GRASS_RGB, KERB_M, SHOULDER_RGB, WALK_M, WALK_RGB
from simulation.meshes import (
    ASPHALT,
    CODES,
    GRASS,
    GROUND,
    HEADS,
    LAMP_SPACING_M,
    LEAVES,
    PLAIN,
    WINDOWS,
    Frames,
    Mesh,
    boxes,
    grid,
    join,
    plates,
    polygon,
    rectangle,
)
from simulation.regions import Rgb
from simulation.roads import PERIOD_M, Roads
from simulation.scenarios import (
    BOARD,
    HOUSE,
    LIGHT_LINE,
    LIMIT_SIGN,
    NO_LINE,
    PARKED,
    POST,
    STOP_LINE,
    TREE,
    Scene,
)

PIECES = 24
PIECE_M = PERIOD_M / PIECES
STATION_M = 4.0
VERGE_M = 18.0
"""Beyond the lane's outer edge: end of the mown verge."""
CROSSING_M = (2.0, 9.0)
"""Extent of the crossing road beyond a line."""
BAR_M = 0.8
"""Depth of the bar at which to stop."""


def snowy(rgb: Rgb, snow: float) -> Rgb:
    """Ground under so much snow."""
    if not snow:
        return rgb
    red, green, blue = (int(c + (232 - c) * min(0.35 + snow, 0.95)) for c in rgb)
    return red, green, blue


def place_code(s: Floats) -> Floats:
    """Alpha that makes a vertex be drawn with the code of a place along the road."""
    return 2.0 + np.floor(np.mod(s, PERIOD_M) / PERIOD_M * CODES)


class Builder:
    """Builds the scenery of one scene of a batch."""

    def __init__(self, scene: Scene, roads: Roads, row: int) -> None:
        self.scene, self.roads, self.row = scene, roads, row

    def frames(self, s: Floats, d: Floats) -> Frames:
        """Places at (s, d), heading along the road; s may lie outside one period."""
        x, y, heading = self.roads.middle(self.row, s)
        return Frames(x - d * np.sin(heading), y + d * np.cos(heading), heading, place_code(s))

    def pieces(self) -> list[Mesh]:
        """PIECES meshes, in order along the road, lit by the scene's sun."""
        ground = self._ground()
        places = range(len(self.scene.encounters))
        built = [mesh for slot in places for mesh in junctions.things(self, slot)]
        things = join([self._roadside(), self._signs(), self._lights(), *built])
        for slot in places:
            piece = int(self.scene.line_s_m[slot] / PIECE_M)
            ground[piece] = join([ground[piece], *junctions.ground(self, slot)])
        place = (things.colour[:, 3] - 2) / CODES * PIECES
        cut = [join([ground[i], things.take((place >= i) & (place < i + 1))]) for i in range(PIECES)]
        return [Mesh(mesh.corners, self._lit(mesh.colour), mesh.tile) for mesh in cut]

    def _lit(self, colour: Floats) -> Floats:
        """Sunlight on everything; only lamps may reach EMISSIVE."""
        rgb = np.minimum(colour[:, :3] * self.scene.sunlight, 245)
        return np.concatenate([rgb, colour[:, 3:]], 1)

    def _ground(self) -> list[Mesh]:
        scene, w = self.scene, self.scene.lane_width_m
        half = np.array([0.0, 0.14, w - 0.12, w + 0.13, w + KERB_M, w + WALK_M, w + VERGE_M])
        edges = np.concatenate([-half[:0:-1], half])
        pieces = []
        for piece in range(PIECES):
            s = self._stations(piece)
            at = self.frames(np.repeat(s, len(edges)), self._unfolded(s, edges).reshape(-1))
            shape = (len(s), len(edges))
            rgb, tile = self._paint((s[1:] + s[:-1]) / 2, scene)
            pieces.append(grid(at.x.reshape(shape), at.y.reshape(shape), rgb, tile))
        return pieces

    def _unfolded(self, s: Floats, edges: Floats) -> Floats:
        """The strips' edges at stations `s`, [S, K]: on the inside of a bend none reaches beyond its middle."""
        across = np.tile(edges, (len(s), 1))
        if not len(self.scene.bends):
            return across
        station = np.arange(self.roads.x.shape[1]) / (self.roads.x.shape[1] - 1) * PERIOD_M
        curvature = np.interp(np.mod(s, PERIOD_M), station, self.roads.curvature[self.row])
        most = 0.8 / np.maximum(np.abs(curvature), 1e-3)[:, None]
        inside = across * np.sign(curvature)[:, None] > most
        return np.where(inside, np.sign(across) * most, across)

    def _stations(self, piece: int) -> Floats:
        start, end = piece * PIECE_M, (piece + 1) * PIECE_M
        lines = self.scene.line_s_m[self.scene.line_kind != NO_LINE]
        marks = (lines[:, None] + [0.0, BAR_M, *CROSSING_M]).reshape(-1)
        bends = [np.arange(s - 3.0, s + length + 3.0, 1.5) for s, length, _ in self.scene.bends]
        marks = np.concatenate([np.arange(start, end + 0.1, STATION_M), marks, *bends])
        return np.unique(marks[(marks >= start) & (marks <= end)])

    def _paint(self, s: Floats, scene: Scene) -> tuple[Floats, Ints]:
        """Colours [S, 12, 3] and tiles [S, 12] of the strips at mid-stations `s`, from right to left."""
        region = scene.region
        grass, walk, shoulder = (snowy(rgb, scene.snow) for rgb in (GRASS_RGB, WALK_RGB, SHOULDER_RGB))
        right = [grass, walk, shoulder, region.edge_line, ASPHALT_RGB, region.centre_line]
        rgb = np.tile(np.array([*right, *right[::-1]], float), (len(s), 1, 1))
        tiles = [GRASS, PLAIN, ASPHALT, PLAIN, ASPHALT, PLAIN]
        tile = np.tile(np.array([*tiles, *tiles[::-1]]), (len(s), 1))
        if region.centre_line[2] > 100:
            rgb[(s // STATION_M) % 2 == 1, 5:7] = ASPHALT_RGB
        lane = 4 if region.side > 0 else 7
        kinds = scene.line_kind[scene.line_kind != NO_LINE]
        after = s[:, None] - scene.line_s_m[scene.line_kind != NO_LINE]
        rgb[((after > 0) & (after < BAR_M) & (kinds != OPEN_LINE)).any(1), lane] = 235
        crossed = kinds != GIVE_WAY_LINE
        crossing = ((after > CROSSING_M[0]) & (after < CROSSING_M[1]) & crossed).any(1)
        rgb[crossing] = ASPHALT_RGB
        tile[crossing] = ASPHALT
        return rgb, tile.astype(np.int64)

    def _roadside(self) -> Mesh:
        side = self.scene.roadside
        at = self.frames(side.s_m, side.d_m)
        if any(encounter and encounter.layout != "straight" for encounter in self.scene.encounters):
            clear = junctions.clear_of_roads(self, at, side.kind, side.d_m)
            side, at = side.take(clear), at.take(clear)
        makers = {HOUSE: _houses, TREE: _trees, PARKED: _parked, POST: _posts, BOARD: _boards}
        meshes = [
            maker(at.take(side.kind == kind), side.size[side.kind == kind], side.shade[side.kind == kind])
            for kind, maker in makers.items()
        ]
        return join([*meshes, self._limit_signs(at.take(side.kind == LIMIT_SIGN))])

    def _limit_signs(self, at: Frames) -> Mesh:
        pole = boxes(at, [0, 0, 0], [0.1, 0.1, 2.3], (120, 120, 120))
        if self.scene.region.unit == "mph":
            plate = plates(at, [-0.06, 0, 2.5], rectangle(0.75, 0.95), (235, 235, 235))
            return join([pole, plate, plates(at, [-0.09, 0, 2.4], rectangle(0.4, 0.35), (40, 40, 40))])
        ring = plates(at, [-0.06, 0, 2.5], polygon(8, 0.48), (205, 30, 35))
        disc = plates(at, [-0.09, 0, 2.5], polygon(8, 0.34), (240, 240, 240))
        return join([pole, ring, disc, plates(at, [-0.12, 0, 2.5], rectangle(0.3, 0.28), (40, 40, 40))])

    def _at_lines(self, kind: int) -> Frames:
        """The middle of the vehicle's lane at each line of a kind."""
        s = self.scene.line_s_m[self.scene.line_kind == kind]
        return self.frames(s, np.full(len(s), self.scene.lane_d_m))

    def _signs(self) -> Mesh:
        at, y = self._at_lines(STOP_LINE), -self.scene.region.side * (self.scene.lane_width_m / 2 + 1.0)
        if self.scene.region.stop_sign in ("wedge", "disc", "paddle"):
            beside = at.place(np.broadcast_to([1.0, y, 0.0], (len(at.x), 1, 3)))[:, 0]
            return props.stop_sign(
                Frames(beside[:, 0], beside[:, 1], at.heading, at.code), self.scene.region.stop_sign
            )
        pole = boxes(at, [1.1, y, 0], [0.12, 0.12, 2.6], (150, 150, 150))
        if self.scene.region.stop_sign == "octagon":
            rim = plates(at, [0.98, y, 2.5], polygon(8, 0.80, np.pi / 8), (240, 240, 240))
            face = plates(at, [0.94, y, 2.5], polygon(8, 0.72, np.pi / 8), (200, 16, 30))
            word = plates(at, [0.90, y, 2.5], rectangle(0.95, 0.30), (240, 240, 240))
            return join([pole, rim, face, word])
        rim = plates(at, [0.98, y, 2.6], polygon(3, 0.95, np.pi / 6), (200, 16, 30))
        face = plates(at, [0.94, y, 2.6], polygon(3, 0.58, np.pi / 6), (240, 240, 240))
        return join([pole, rim, face])

    def _lights(self) -> Mesh:
        at, kerb = self._at_lines(LIGHT_LINE), self.kerb_y_m
        high, metal = 3 * LAMP_SPACING_M + 0.3, (70, 74, 70)
        meshes = []
        for beyond, on_kerb, z in HEADS:
            meshes += [
                boxes(at, [beyond, on_kerb * kerb, z - high / 2], [0.4, 1.1, high], (22, 22, 22)),
                boxes(at, [beyond + 0.4, max(on_kerb, 1.0) * kerb, 0], [0.2, 0.2, z], metal),
            ]
        beyond, _, z = HEADS[0]
        return join([*meshes, boxes(at, [beyond + 0.4, kerb / 2, z + 0.8], [0.2, abs(kerb), 0.2], metal)])

    @property
    def kerb_y_m(self) -> float:
        """From the middle of the lane to the kerb head of a light, positive to the left."""
        return -self.scene.region.side * (self.scene.lane_width_m / 2 + 1.1)


def _houses(at: Frames, size: Floats, shade: Floats) -> Mesh:
    extent = np.stack([7 + 5 * shade[:, 0], np.full(len(size), 8.0), 5 + 9 * size], 1)
    rgb = np.array([130, 110, 95]) + shade * [90, 80, 80]
    return boxes(at, [0, 0, 0], extent, rgb, WINDOWS)


def _trees(at: Frames, size: Floats, shade: Floats) -> Mesh:
    crown = (2.2 + 2.0 * size)[:, None] * [1, 1, 1.3]
    rgb = np.array([38, 74, 28]) + shade * [50, 50, 25]
    trunk = boxes(at, [0, 0, 0], [0.35, 0.35, 2.2], (84, 64, 44))
    return join([trunk, boxes(at, [0, 0, 1.9], crown, rgb, LEAVES)])


def _parked(at: Frames, size: Floats, shade: Floats) -> Mesh:
    body = boxes(at, [0, 0, 0.3], [4.4, 1.8, 0.62], 50 + shade * 170)
    cabin = boxes(at, [-0.2, 0, 0.92], [2.4, 1.6, 0.5], (40, 48, 58))
    lamps = [plates(at, [-2.22, y, 0.75], rectangle(0.3, 0.2), (130, 20, 20)) for y in (-0.7, 0.7)]
    return join([body, cabin, *lamps])


def _posts(at: Frames, size: Floats, shade: Floats) -> Mesh:
    return boxes(at, [0, 0, 0], np.stack([0.2 + 0 * size, 0.2 + 0 * size, 3 + 4 * size], 1), (110, 112, 115))


def _boards(at: Frames, size: Floats, shade: Floats) -> Mesh:
    """Shop signs and posters: colours, reds too, that mean nothing."""
    extent = np.stack([np.full(len(size), 0.3), 1.0 + 2.0 * size, 0.8 + 1.2 * shade[:, 0]], 1)
    return boxes(at, [0, 0, 1.2], extent, 30 + shade * 200)


def ground_plane(scene: Scene) -> Mesh:
    """What lies beyond the verges, 800 m square around the origin, a little lower."""
    corners = np.array([[[-400, -400, -0.5], [400, -400, -0.5], [400, 400, -0.5], [-400, 400, -0.5]]], float)
    rgb = np.minimum(np.array(snowy(GRASS_RGB, scene.snow)) * 0.8 * scene.sunlight, 245)
    return Mesh(corners, np.array([[*rgb, GROUND + 1]]), np.full(1, PLAIN))
