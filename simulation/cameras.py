"""What the cameras of B vehicles see: any rig, all views in one buffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from panda3d import core

from model.rig import Rig
from simulation import meshes, props
from simulation.arrays import Bools, Floats, Images, Ints, chance
from simulation.cast import Cast
from simulation.dynamics import Motion
from simulation.encounters import CAST, LOOKS
from simulation.faults import Lenses, mounted, swing
from simulation.panda import Canvas, Stage, geometries, geometry
from simulation.roads import PERIOD_M, Roads
from simulation.scenarios import LIGHT_LINE, Scene
from simulation.scenery import PIECES, Builder, ground_plane, place_code
from simulation.traffic import CARS, ONCOMING, Lines, Traffic
from simulation.weather import Weather

CAR_RGB = (
    (200, 200, 205), (30, 32, 36), (150, 24, 28), (28, 58, 130), (110, 112, 116), (190, 170, 120), (36, 90, 60),
)  # fmt: skip
COAT_RGB = ((235, 200, 40), (200, 40, 60), (60, 110, 200), (230, 230, 230), (40, 150, 90), (40, 40, 44))
AHEAD_PIECES = 4
"""Pieces of the next period shown at the end of one."""
PART_QUADS = 120
"""A piece is rendered in parts of at most so many: the renderer transforms all corners of a part of which a camera
sees any. In smaller ones what a part costs by itself outweighs what is left out."""
VISIBLE_M = 115.0
CAST_VISIBLE_M = 120.0
BLINK_S = 0.3
"""For so long one lamp of an emergency vehicle is lit, then the other."""
KERB_UP_M = 0.15
"""Pedestrians stand this high."""


class Cameras:
    """Renders `scenes` for `rig`. Moving things are looked up in Traffic at every frame."""

    def __init__(self, scenes: Sequence[Scene], roads: Roads, rig: Rig) -> None:
        first = rig.cameras[0]
        self.rig, self.roads = rig, roads
        self.canvas = Canvas(len(scenes) * len(rig.cameras), first.width_px, first.height_px)
        self.weather = Weather(scenes, rig)
        self.lenses = Lenses([scene.fault for scene in scenes], [scene.seed for scene in scenes], rig)
        self._cars = [geometry(meshes.car(rgb)) for rgb in CAR_RGB]
        self._people = [geometry(meshes.person(rgb)) for rgb in COAT_RGB]
        self.brakes = geometry(meshes.brake_lamps())
        self.wardrobe = Wardrobe(self._cars, self._people)
        self.views = [_View(self, scene, Builder(scene, roads, row), row) for row, scene in enumerate(scenes)]

    def render(
        self,
        motion: Motion,
        s: Floats,
        time_s: float,
        lines: Lines,
        traffic: Traffic,
        cast: Cast | None = None,
        rows: Ints | None = None,
    ) -> Images:
        """Images [B, C, H, W, 3] of this instant, weather and sensor noise included; of some rows only where these
        are named."""
        turn = np.floor(s / PERIOD_M)
        shift = turn[:, None] * self.roads.drift
        heading_deg = np.degrees(motion.heading)
        for row, view in enumerate(self.views):
            view.stand(motion.x[row] - shift[row, 0], motion.y[row] - shift[row, 1], heading_deg[row])
            view.shake(time_s)
        self._show_cars(s, shift, traffic)
        self._show_people(s, shift, traffic)
        self._show_lamps(s, shift, time_s, lines, traffic)
        if cast:
            self._show_cast(motion, shift, time_s, cast)
        shape = (len(self.views), len(self.rig.cameras))
        wanted = None if rows is None else np.repeat(np.isin(np.arange(shape[0]), rows), shape[1])
        rgb, code = (drawn.reshape(*shape, *drawn.shape[1:]) for drawn in self.canvas.draw(wanted))
        return self.lenses.spoil(self.weather.apply(rgb, code, s, time_s))

    def close(self) -> None:
        """Gives the buffer back."""
        self.canvas.close()

    def _show_cars(self, s: Floats, shift: Floats, traffic: Traffic) -> None:
        x, y, heading = self._poses(traffic.car_s, traffic.car_d, shift)
        degrees = np.degrees(heading) + np.where(np.arange(CARS) < ONCOMING, 0.0, 180.0)
        seen, code = _visible(traffic.car_s, s), place_code(traffic.car_s)
        paint = _pick(len(CAR_RGB), traffic.seed, traffic.spawns, 20)
        braking = (traffic.car_a < -0.8) | (traffic.car_v == 0)
        for row, view in enumerate(self.views):
            for car, thing in enumerate(view.cars):
                if thing.show(bool(seen[row, car])):
                    thing.pose(x[row, car], y[row, car], degrees[row, car])
                    thing.wear(self._cars[paint[row, car]], view.alpha(code[row, car]))
            for car, thing in enumerate(view.brakes):
                thing.show(bool(braking[row, car]))

    def _show_people(self, s: Floats, shift: Floats, traffic: Traffic) -> None:
        x, y, heading = self._poses(traffic.person_s, traffic.person_d, shift)
        degrees = np.degrees(heading) + 90 * np.sign(traffic.person_v)
        seen, code = _visible(traffic.person_s, s), place_code(traffic.person_s)
        coat = _pick(len(COAT_RGB), traffic.seed, traffic.person_spawns, 21)
        for row, view in enumerate(self.views):
            for person, thing in enumerate(view.people):
                if thing.show(bool(seen[row, person])):
                    thing.pose(x[row, person], y[row, person], degrees[row, person], KERB_UP_M)
                    thing.wear(self._people[coat[row, person]], view.alpha(code[row, person]))

    def _show_cast(self, motion: Motion, shift: Floats, time_s: float, cast: Cast) -> None:
        x, y, heading = cast.poses()
        near = np.hypot(x - motion.x[:, None], y - motion.y[:, None]) < CAST_VISIBLE_M
        seen, code = cast.visible & near, place_code(cast.s)
        degrees = np.degrees(heading)
        for row, view in enumerate(self.views):
            for column, thing in enumerate(view.cast):
                if thing.show(bool(seen[row, column])):
                    here = x[row, column] - shift[row, 0], y[row, column] - shift[row, 1]
                    thing.pose(*here, degrees[row, column])
                    model = self.wardrobe.model(cast, row, column, time_s)
                    thing.wear(model, view.alpha(code[row, column]))

    def _show_lamps(self, s: Floats, shift: Floats, time_s: float, lines: Lines, traffic: Traffic) -> None:
        """Only the next light is lit: others are out of sight."""
        number, line_s, kind = lines.next(s - meshes.HEADS[0][0])
        colour = lines.colour(number, time_s)
        x, y, heading = self._poses(line_s[:, None], traffic.lane_d[:, None], shift)
        lit, code = (kind == LIGHT_LINE) & _visible(line_s, s), place_code(line_s)
        for row, view in enumerate(self.views):
            if view.lamp.show(bool(lit[row])):
                view.lamp.pose(x[row, 0], y[row, 0], float(np.degrees(heading[row, 0])))
                view.lamp.wear(view.lamps[colour[row]], view.alpha(code[row]))

    def _poses(self, s: Floats, d: Floats, shift: Floats) -> tuple[Floats, Floats, Floats]:
        """x, y, heading [B, K] of road coordinates, moved by `shift` [B, 2] into the period that is drawn."""
        x, y, heading = self.roads.pose(s, d)
        return x - shift[:, :1], y - shift[:, 1:], heading


class Wardrobe:
    """The models that a cast wears, each built once."""

    def __init__(self, cars: Sequence[core.GeomNode], people: Sequence[core.GeomNode]) -> None:
        self._cars, self._people = cars, people
        self._built: dict[tuple[object, ...], core.GeomNode] = {}

    def model(self, cast: Cast, row: int, column: int, time_s: float) -> core.GeomNode:
        """What that member of a cast looks like now."""
        look, number = LOOKS[cast.look[row, column]], int(cast.number[row])
        draw = float(chance(cast.seed[row], number, 402, column))
        if look == "car":
            return self._cars[int(draw * len(self._cars))]
        if look == "person":
            return self._people[int(draw * len(self._people))]
        if look == "ambulance":
            lit = int(time_s / BLINK_S) % 2
            return self._model(lambda: props.ambulance(lit), look, lit)
        if look == "door":
            paint, opened = int(draw * len(CAR_RGB)), float(np.round(cast.opened[row, column] * 4) / 4)
            side = int(cast.side[row])
            return self._model(lambda: props.door_car(CAR_RGB[paint], side, opened), look, paint, side, opened)
        rgb = COAT_RGB[int(draw * len(COAT_RGB))] if look == "cyclist" else (232, 226, 210)
        return self._model(lambda: props.cyclist(rgb) if look == "cyclist" else props.van(rgb), look, rgb)

    def _model(self, build: Callable[[], meshes.Mesh], *key: object) -> core.GeomNode:
        if key not in self._built:
            self._built[key] = geometry(build())
        return self._built[key]


class _View:
    """What one vehicle has around it."""

    def __init__(self, cameras: Cameras, scene: Scene, builder: Builder, row: int) -> None:
        self.coded = max(scene.fog_per_m, scene.darkness, scene.rain, scene.snow) > 0
        stage = Stage()
        self._furnish(stage, builder, cameras.roads.drift[row])
        self.plane = stage.thing(geometry(ground_plane(scene)))
        self.cars = [stage.thing() for _ in range(CARS)]
        self.brakes = [car.part(cameras.brakes) for car in self.cars[:ONCOMING]]
        self.people = [stage.thing() for _ in range(scene.condition.pedestrians)]
        others = len(scene.log.agents) if scene.log else CAST if any(scene.encounters) else 0
        self.cast = [stage.thing() for _ in range(others)]
        self.lamp = stage.thing()
        self.lamps = [geometry(meshes.lamps(colour, builder.kerb_y_m)) for colour in range(4)]
        self.vehicle = stage.vehicle()
        self.scene = scene
        first = row * len(cameras.rig.cameras)
        self.mounts = [
            cameras.canvas.add_view(
                first + i, self.vehicle, mounted(camera, scene.fault, scene.seed, i), scene.sky_rgb
            )
            for i, camera in enumerate(cameras.rig.cameras)
        ]

    def stand(self, x: float, y: float, heading_deg: float) -> None:
        """Puts the vehicle, and the far ground under it."""
        self.vehicle.pose(x, y, heading_deg)
        self.plane.pose(x, y, 0.0)

    def shake(self, time_s: float) -> None:
        """Swings cameras that are loose."""
        fault = self.scene.fault
        if fault.shake_rad:
            swings = swing(fault, self.scene.seed, round(time_s * 10), len(self.mounts))
            for mount, (yaw, pitch) in zip(self.mounts, swings, strict=True):
                mount.swing(float(yaw), float(pitch))

    def alpha(self, code: float) -> float:
        """The alpha of what stands at a place code: only fog and night need to know."""
        return code if self.coded else 255.0

    def _furnish(self, stage: Stage, builder: Builder, drift: Floats) -> None:
        pieces = [geometries(mesh, PART_QUADS) for mesh in builder.pieces()]
        turns = [(-1, PIECES - 1), *((0, i) for i in range(PIECES)), *((1, i) for i in range(AHEAD_PIECES))]
        for turn, i in turns:
            stage.thing(*pieces[i]).pose(turn * drift[0], turn * drift[1], 0.0)


def _visible(s: Floats, ego_s: Floats) -> Bools:
    ahead = s - (ego_s if s.ndim == 1 else ego_s[:, None])
    return np.asarray((ahead > -12.0) & (ahead < VISIBLE_M))


def _pick(kinds: int, seed: Ints, spawns: Ints, stream: int) -> Ints:
    """Which of some looks each road user has, [B, K]; another after each respawn."""
    return (chance(seed[:, None], spawns, stream, np.arange(spawns.shape[1])) * kinds).astype(np.int64)
