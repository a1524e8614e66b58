"""What the cameras of B vehicles see: any rig, all views in one buffer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from panda3d import core

from model.rig import Rig
from simulation import meshes
from simulation.arrays import Bools, Floats, Images, chance
from simulation.dynamics import Motion
from simulation.panda import FAR_M, NEAR_M, Canvas, geometry, texture
from simulation.roads import PERIOD_M, Roads
from simulation.scenarios import LIGHT_LINE, Scene
from simulation.scenery import PIECES, Builder, ground_plane, place_code
from simulation.traffic import CARS, LEAD, PEOPLE, Lines, Traffic
from simulation.weather import Weather

CAR_RGB = (
    (200, 200, 205), (30, 32, 36), (150, 24, 28), (28, 58, 130), (110, 112, 116), (190, 170, 120), (36, 90, 60),
)  # fmt: skip
COAT_RGB = ((235, 200, 40), (200, 40, 60), (60, 110, 200), (230, 230, 230), (40, 150, 90), (40, 40, 44))
AHEAD_PIECES = 4
"""Pieces of the next period shown at the end of one."""
VISIBLE_M = 115.0


class Cameras:
    """Renders `scenes` for `rig`. Moving things are looked up in Traffic at every frame."""

    def __init__(self, scenes: Sequence[Scene], roads: Roads, rig: Rig) -> None:
        first = rig.cameras[0]
        self.rig, self.roads = rig, roads
        self.canvas = Canvas(len(scenes) * len(rig.cameras), first.width_px, first.height_px)
        self.weather = Weather(scenes, rig)
        self._look = texture()
        self._cars = [geometry(meshes.car(rgb)) for rgb in CAR_RGB]
        self._people = [geometry(meshes.person(rgb)) for rgb in COAT_RGB]
        self._brakes = geometry(meshes.brake_lamps())
        self.views = [_View(self, scene, Builder(scene, roads, row), row) for row, scene in enumerate(scenes)]

    def render(self, motion: Motion, s: Floats, time_s: float, lines: Lines, traffic: Traffic) -> Images:
        """Images [B, C, H, W, 3] of this instant, weather and sensor noise included."""
        turn = np.floor(s / PERIOD_M)
        shift = turn[:, None] * self.roads.drift
        heading_deg = np.degrees(motion.heading)
        for row, view in enumerate(self.views):
            view.stand(motion.x[row] - shift[row, 0], motion.y[row] - shift[row, 1], heading_deg[row])
        self._show_cars(s, shift, traffic)
        self._show_people(s, shift, traffic)
        self._show_lamps(s, shift, time_s, lines, traffic)
        pictures = self.canvas.draw()
        shape = (len(self.views), len(self.rig.cameras), *pictures.shape[1:])
        return self.weather.apply(pictures.reshape(shape), s, time_s)

    def close(self) -> None:
        """Gives the buffer back."""
        self.canvas.close()

    def _show_cars(self, s: Floats, shift: Floats, traffic: Traffic) -> None:
        x, y, heading = self.roads.pose(traffic.car_s, traffic.car_d)
        degrees = np.degrees(heading) + np.where(np.arange(CARS) > 1, 180.0, 0.0)
        seen = _visible(traffic.car_s, s)
        paint = (chance(traffic.seed[:, None], traffic.spawns, 20, np.arange(CARS)) * len(CAR_RGB)).astype(int)
        braking = (traffic.car_a < -0.8) | (traffic.car_v == 0)
        code = place_code(traffic.car_s)
        for row, view in enumerate(self.views):
            for car in range(CARS):
                node = view.cars[car]
                if not _shown(node, bool(seen[row, car])):
                    continue
                node.set_pos_hpr(
                    x[row, car] - shift[row, 0], y[row, car] - shift[row, 1], 0, degrees[row, car], 0, 0
                )
                view.wear(node, self._cars[paint[row, car]], code[row, car])
                if car <= 1:
                    _shown(view.brakes[car], bool(braking[row, car]))

    def _show_people(self, s: Floats, shift: Floats, traffic: Traffic) -> None:
        x, y, heading = self.roads.pose(traffic.person_s, traffic.person_d)
        seen = _visible(traffic.person_s, s)
        degrees = np.degrees(heading) + 90 * np.sign(traffic.person_v)
        coat = (
            chance(traffic.seed[:, None], traffic.person_spawns, 21, np.arange(PEOPLE)) * len(COAT_RGB)
        ).astype(int)
        code = place_code(traffic.person_s)
        for row, view in enumerate(self.views):
            for person, node in enumerate(view.people):
                if _shown(node, bool(seen[row, person])):
                    place = x[row, person] - shift[row, 0], y[row, person] - shift[row, 1], 0.15
                    node.set_pos_hpr(*place, degrees[row, person], 0, 0)
                    view.wear(node, self._people[coat[row, person]], code[row, person])

    def _show_lamps(self, s: Floats, shift: Floats, time_s: float, lines: Lines, traffic: Traffic) -> None:
        """Only the next light is lit: others are out of sight."""
        number, line_s, kind = lines.next(s - meshes.HEADS[0][0])
        colour = lines.colour(number, time_s)
        x, y, heading = self.roads.pose(line_s, traffic.lane_d)
        lit = (kind == LIGHT_LINE) & _visible(line_s, s)
        code = place_code(line_s)
        for row, view in enumerate(self.views):
            if _shown(view.lamp, bool(lit[row])):
                place = x[row] - shift[row, 0], y[row] - shift[row, 1], 0
                view.lamp.set_pos_hpr(*place, np.degrees(heading[row]), 0, 0)
                view.wear(view.lamp, view.lamps[colour[row]], code[row])


class _View:
    """The scene graph of one vehicle."""

    def __init__(self, cameras: Cameras, scene: Scene, builder: Builder, row: int) -> None:
        self.root = core.NodePath("scene")
        self.root.set_texture(cameras._look)
        self.coded = scene.fog_per_m > 0 or scene.darkness > 0
        self.worn: dict[core.NodePath, tuple[core.GeomNode, float]] = {}
        self._furnish(builder, cameras.roads.drift[row])
        self.plane = self._add(core.NodePath(geometry(ground_plane(scene))))
        self.cars = [self._add(core.NodePath("car")) for _ in range(CARS)]
        self.brakes = [car.attach_new_node("brakes") for car in self.cars[: LEAD + 2]]
        for brake in self.brakes:
            brake.attach_new_node(cameras._brakes)
        self.people = [self._add(core.NodePath("person")) for _ in range(scene.condition.pedestrians)]
        self.lamp = self._add(core.NodePath("lamp"))
        self.lamps = [geometry(meshes.lamps(colour, builder.kerb_y_m)) for colour in range(3)]
        self._mount(cameras, scene, row)

    def stand(self, x: float, y: float, heading_deg: float) -> None:
        """Puts the vehicle, and the far ground under it."""
        self.vehicle.set_pos_hpr(x, y, 0, heading_deg, 0, 0)
        self.plane.set_pos(x, y, 0)

    def wear(self, node: core.NodePath, model: core.GeomNode, code: float) -> None:
        """Shows `model` at `node`, with its place code where fog or night need it."""
        code = code if self.coded else 255.0
        old = self.worn.get(node)
        if old is None or old[0] is not model:
            for child in node.get_children():
                if child.get_name() == "mesh":
                    child.detach_node()
            node.attach_new_node(model)
        if old is None or old[1] != code:
            node.set_color_scale(1, 1, 1, code / 255)
        self.worn[node] = (model, code)

    def _furnish(self, builder: Builder, drift: Floats) -> None:
        pieces = [geometry(mesh) for mesh in builder.pieces()]
        turns = [*((-1, i) for i in range(PIECES - 1, PIECES)), *((0, i) for i in range(PIECES))]
        for turn, i in [*turns, *((1, i) for i in range(AHEAD_PIECES))]:
            node = self._add(core.NodePath("piece"))
            node.attach_new_node(pieces[i])
            node.set_pos(turn * drift[0], turn * drift[1], 0)

    def _add(self, node: core.NodePath) -> core.NodePath:
        """Puts a node into the scene. The order of drawing is fixed: where two surfaces are equally far, the
        picture must not depend on addresses in memory, by which Panda3D sorts."""
        node.reparent_to(self.root)
        node.set_bin("fixed", self.root.get_num_children())
        return node

    def _mount(self, cameras: Cameras, scene: Scene, row: int) -> None:
        self.vehicle = self.root.attach_new_node("vehicle")
        for index, camera in enumerate(cameras.rig.cameras):
            lens = core.PerspectiveLens()
            lens.set_film_size(camera.width_px, camera.height_px)
            lens.set_focal_length(camera.focal_px)
            lens.set_near_far(NEAR_M, FAR_M)
            node = self.vehicle.attach_new_node(core.Camera(camera.name, lens))
            node.set_pos(camera.x_m, camera.y_m, camera.z_m)
            # Panda3D's cameras look along their y axis, the vehicle's x axis points forward.
            node.set_hpr(math.degrees(camera.yaw_rad) - 90, math.degrees(camera.pitch_rad), 0)
            cameras.canvas.add_view(row * len(cameras.rig.cameras) + index, node, scene.sky_rgb)


def _visible(s: Floats, ego_s: Floats) -> Bools:
    ahead = s - (ego_s if s.ndim == 1 else ego_s[:, None])
    return np.asarray((ahead > -12.0) & (ahead < VISIBLE_M))


def _shown(node: core.NodePath, show: bool) -> bool:
    if show:
        node.show()
    else:
        node.hide()
    return show
