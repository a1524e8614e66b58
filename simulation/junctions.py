"""What encounters build beside and on a road: joining roads, islands, stripes, signs, a closed lane."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulation import props
from simulation.arrays import Bools, Floats
from simulation.encounters import GIVE_WAY_LINE, Encounter
from simulation.layouts import ARM_M, CROSSING_M, RING_RADIUS_M, STRAIGHT_M, TURN_RADIUS_M, Shape, shape
from simulation.meshes import ASPHALT, GRASS, GROUND, PLAIN, Frames, Mesh, boxes, join
from simulation.regions import Rgb
from simulation.scenarios import HOUSE, TREE, Scene

ASPHALT_RGB: Rgb = (92, 92, 96)
SHOULDER_RGB: Rgb = (104, 102, 100)
WALK_RGB: Rgb = (158, 154, 146)
GRASS_RGB: Rgb = (86, 118, 58)
ARM_Z, PLATE_Z, ISLAND_Z, MARK_Z = 0.03, 0.05, 0.14, 0.02
"""Flat things lie so far over the road and over each other, m: enough for a depth buffer to tell them apart."""
KERB_M, WALK_M = 2.6, 4.2
"""Beyond a lane's outer edge: end of the shoulder, and of the sidewalk."""
ISLAND_GAP_M = 0.3
ARM_PIECE_M = 24.0
"""Joining roads are laid in pieces of this length."""
ROOM_M = {HOUSE: 8.0, TREE: 3.5}
"""How far from the edge of a road things of a kind stand; others 1.4 m."""


class Site(Protocol):
    """What is read of scenery.Builder."""

    scene: Scene

    def frames(self, s: Floats, d: Floats) -> Frames: ...


def middle(builder: Site, slot: int) -> tuple[Frames, Shape | None]:
    """The local coordinates of a place, and its shape."""
    scene = builder.scene
    encounter = scene.encounters[slot]
    assert encounter is not None, "only an encounter has a shape"
    before = STRAIGHT_M[encounter.layout]
    at = builder.frames(np.array([scene.line_s_m[slot] - before]), np.zeros(1))
    ahead = Frames(at.x + before * np.cos(at.heading), at.y + before * np.sin(at.heading), at.heading, at.code)
    turn = float(scene.turn_rad[slot]) * scene.region.side
    return ahead, shape(encounter.layout, turn, scene.lane_width_m)


def ground(builder: Site, slot: int) -> list[Mesh]:
    """What lies flat: joining roads, the middle of the junction, an island, stripes."""
    scene = builder.scene
    encounter = scene.encounters[slot]
    if encounter is None:
        return []
    at, here = middle(builder, slot)
    if encounter.name == "zebra":
        return [_stripes(builder, scene.line_s_m[slot])]
    if here is None:
        return []
    side, w = scene.region.side, scene.lane_width_m
    starts = {"cross": w + 0.2, "turn": TURN_RADIUS_M, "ring": RING_RADIUS_M}[encounter.layout]
    arms = [_arm(at, scene, (here.middle_m, 0.0), side * b, starts) for b in here.arms_rad]
    if encounter.layout == "turn":
        return [*arms, _plate(at, here.middle_m, w)]
    if encounter.layout == "ring":
        island = RING_RADIUS_M - w / 2 - ISLAND_GAP_M
        return [
            *arms,
            disc(at, here.middle_m, RING_RADIUS_M + w / 2 + 0.6, PLATE_Z, ASPHALT_RGB, ASPHALT),
            disc(at, here.middle_m, island, ISLAND_Z - 0.04, WALK_RGB, PLAIN),
            disc(at, here.middle_m, island - 0.6, ISLAND_Z, GRASS_RGB, GRASS),
        ]
    return arms


def things(builder: Site, slot: int) -> list[Mesh]:
    """What stands: signs, bushes, cones and barriers."""
    scene = builder.scene
    encounter = scene.encounters[slot]
    if encounter is None:
        return []
    line_s, region = scene.line_s_m[slot], scene.region
    out = []
    if encounter.name == "zebra":
        both = builder.frames(np.full(2, line_s + 1.2), np.array([1, -1]) * (scene.lane_width_m + 0.9))
        out.append(props.crossing_sign(both, region))
    elif encounter.line == GIVE_WAY_LINE:
        out.append(props.give_way_sign(kerb(builder, line_s - 1.0)))
    if encounter.layout == "ring":
        at, here = middle(builder, slot)
        assert here is not None, "a ring has a shape"
        out.append(boxes(at, [here.middle_m, 0, ISLAND_Z], [4.0, 4.0, 1.3], (46, 92, 40)))
        out.append(boxes(at, [here.middle_m, 0, ISLAND_Z + 1.3], [2.0, 2.0, 1.2], (56, 104, 48)))
    if encounter.closed_m:
        out += _roadworks(builder, encounter, line_s)
    return out


def kerb(builder: Site, s: float, beyond_m: float = 1.0) -> Frames:
    """A place on the kerb beside the vehicle's lane."""
    scene = builder.scene
    d = -scene.region.side * (scene.lane_width_m + beyond_m)
    return builder.frames(np.array([s]), np.array([d]))


def _roadworks(builder: Site, encounter: Encounter, line_s: float) -> list[Mesh]:
    scene, closed = builder.scene, encounter.closed_m
    assert closed is not None, "roadworks close a lane"
    side, w = scene.region.side, scene.lane_width_m
    begin, end = line_s + closed[0], line_s + closed[1]
    s = np.arange(begin - 10.0, end + 5.0, 2.5)
    out = np.interp(s, [begin - 10.0, begin, end, end + 5.0], [w - 0.2, 0.45, 0.45, w - 0.2])
    board = builder.frames(np.array([begin + 0.6]), np.array([-side * w / 2]))
    arrow = builder.frames(np.array([begin - 0.5]), np.array([-side * 0.9]))
    dug = builder.frames(np.array([begin + 6.0, begin + 11.0]), np.full(2, -side * (w / 2 + 0.2)))
    return [
        props.cones(builder.frames(s, -side * out)),
        props.barriers(board),
        props.pass_sign(arrow, side),
        props.warning_sign(kerb(builder, begin - 45.0), scene.region, roadworks=True),
        boxes(dug, [0, 0, 0], [3.6, 1.8, 0.5], (124, 92, 60)),
    ]


def _stripes(builder: Site, line_s: float) -> Mesh:
    """A zebra crossing: stripes along the road, half a metre wide."""
    w = builder.scene.lane_width_m
    d = np.arange(-w + 0.5, w, 1.0)
    near = builder.frames(np.full(len(d), line_s + CROSSING_M - 1.6), d)
    local = np.array([[0, -0.25], [3.2, -0.25], [3.2, 0.25], [0, 0.25]], float)
    return flat(near, local, MARK_Z, (236, 236, 232))


def _plate(at: Frames, x: float, lane_m: float) -> Mesh:
    h, w = TURN_RADIUS_M, lane_m + 0.2
    local = np.array([
        [[-h, -w], [h, -w], [h, w], [-h, w]],
        [[-h, w], [h, w], [w, h], [-w, h]],
        [[-w, -h], [w, -h], [h, -w], [-h, -w]],
    ])  # fmt: skip
    return join([flat(at, quad + np.array([x, 0.0]), PLATE_Z, ASPHALT_RGB, ASPHALT) for quad in local])


def disc(at: Frames, x: float, radius_m: float, z: float, rgb: ArrayLike, tile: int) -> Mesh:
    """A flat round, as quadrilaterals of two sectors each."""
    turn = np.linspace(0, 2 * np.pi, 33)
    rim = radius_m * np.stack([np.cos(turn), np.sin(turn)], 1) + [x, 0]
    quads = [np.array([[x, 0], rim[i], rim[i + 1], rim[i + 2]]) for i in range(0, 32, 2)]
    return join([flat(at, quad, z, rgb, tile) for quad in quads])


def _arm(at: Frames, scene: Scene, centre: tuple[float, float], bearing: float, begins_m: float) -> Mesh:
    """A joining road, with lines and sidewalks."""
    w = scene.lane_width_m
    edges = [0.14, w - 0.12, w + 0.13, w + KERB_M, w + WALK_M]
    sides: list[Rgb] = [ASPHALT_RGB, scene.region.edge_line, SHOULDER_RGB, WALK_RGB]
    strips = [(-0.14, 0.14, scene.region.centre_line)]
    for inner, outer, rgb in zip(edges[:-1], edges[1:], sides, strict=True):
        strips += [(inner, outer, rgb), (-outer, -inner, rgb)]
    cos, sin = math.cos(bearing), math.sin(bearing)
    turned = np.array([[cos, sin], [-sin, cos]])
    out = []
    for near in np.arange(begins_m, ARM_M, ARM_PIECE_M):
        far = min(near + ARM_PIECE_M, ARM_M)
        for low, high, rgb in strips:
            quad = np.array([[near, low], [far, low], [far, high], [near, high]]) @ turned
            tile = ASPHALT if rgb in (ASPHALT_RGB, SHOULDER_RGB) else PLAIN
            out.append(flat(at, quad + np.array(centre), ARM_Z, rgb, tile))
    return join(out)


def flat(at: Frames, quad: Floats, z: float, rgb: ArrayLike, tile: int = PLAIN) -> Mesh:
    """One quadrilateral [4, 2] on the ground at each place, told as ground in alpha."""
    local = np.concatenate([quad, np.full((4, 1), z)], 1)
    corners = at.place(np.broadcast_to(local, (len(at.x), 4, 3)))
    colour = np.tile(np.array([*np.broadcast_to(np.asarray(rgb, float), 3), GROUND + 1.0]), (len(at.x), 1))
    return Mesh(corners, colour, np.full(len(at.x), tile))


def clear_of_roads(builder: Site, at: Frames, kind: NDArray[np.int64], own_d: Floats) -> Bools:
    """Which things beside the road stand on no other stretch of it, nor on a joining road, [N]."""
    scene, w = builder.scene, builder.scene.lane_width_m
    room = w + np.array([ROOM_M.get(int(k), 1.4) for k in kind])
    route = builder.frames(np.arange(-60.0, 1020.0, 3.0), np.zeros(360))
    lines = [np.stack([route.x, route.y], 1)]
    for slot, encounter in enumerate(scene.encounters):
        if encounter is None or encounter.layout == "straight":
            continue
        frame, here = middle(builder, slot)
        assert here is not None, "a junction has a shape"
        reach = np.arange(0.0, ARM_M, 3.0)
        for bearing in here.arms_rad:
            turn = scene.region.side * bearing
            local = np.stack([here.middle_m + reach * np.cos(turn), reach * np.sin(turn), 0 * reach], 1)
            lines.append(frame.place(local[None])[0, :, :2])
        if encounter.layout == "ring":
            around = np.linspace(0, 2 * np.pi, 40)
            ring = np.stack([here.middle_m + 15 * np.cos(around), 15 * np.sin(around), 0 * around], 1)
            lines += [frame.place(ring[None])[0, :, :2], frame.place(ring[None] * [1, 0.5, 1])[0, :, :2]]
    points = np.concatenate(lines)
    away = np.sqrt(((np.stack([at.x, at.y], 1)[:, None] - points) ** 2).sum(-1).min(1))
    return np.asarray(away > np.minimum(room, np.abs(own_d) - 0.6))
