"""Panda3D's software renderer behind few functions: meshes in, one picture with many views out."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray
from panda3d import core

from model.rig import Camera
from simulation.arrays import Bools, Images
from simulation.meshes import Mesh, atlas

core.loadPrcFileData(
    "fleetwheel",
    "load-display p3tinydisplay\nwindow-type offscreen\naudio-library-name null\n"
    "notify-level error\nnotify-level-x11display fatal\nnotify-level-device fatal\n"
    # Boxes are tighter than spheres around parts of a road; the default cache is too small for 48 vehicles.
    "bounds-type box\ngeom-cache-size 50000\n",
)
NEAR_M, FAR_M = 0.4, 130.0
MAX_WIDTH_PX, MAX_HEIGHT_PX = 1536, 4096


_IDLE: dict[tuple[int, int], list[core.GraphicsOutput]] = {}
"""Closed buffers by size, for reuse: Panda3D 1.10.16 does not free the memory of a removed one."""


class NoRenderer(RuntimeError):
    """The software renderer could not be opened: says what was missing."""


def geometry(mesh: Mesh) -> core.GeomNode:
    """A node with one mesh, textured by the atlas when put under a Canvas's root."""
    return geometries(mesh, len(mesh.tile))[0]


def geometries(mesh: Mesh, most: int) -> list[core.GeomNode]:
    """The same in nodes of at most `most` quadrilaterals that lie near one another."""
    vertices, parts = mesh.vertices(mesh.parts(most))
    data = core.GeomVertexData("mesh", _format(), core.Geom.UH_static)
    data.unclean_set_num_rows(len(vertices))
    memoryview(data.modify_array(0)).cast("B")[:] = vertices.data.cast("B")
    return [_node(data, quads) for quads in parts]


def _node(data: core.GeomVertexData, quads: NDArray[np.uint32]) -> core.GeomNode:
    index = np.ascontiguousarray(quads[:, [0, 1, 2, 0, 2, 3]]).reshape(-1)
    triangles = core.GeomTriangles(core.Geom.UH_static)
    triangles.set_index_type(core.Geom.NT_uint32)
    handle = triangles.modify_vertices()
    handle.unclean_set_num_rows(len(index))
    memoryview(handle).cast("B")[:] = index.data.cast("B")
    geom = core.Geom(data)
    geom.add_primitive(triangles)
    node = core.GeomNode("mesh")
    node.add_geom(geom)
    return node


@functools.cache
def _format() -> core.GeomVertexFormat:
    """Of meshes.VERTEX."""
    name, kind = core.InternalName, core.Geom
    columns = core.GeomVertexArrayFormat()
    columns.add_column(name.get_vertex(), 4, kind.NT_float32, kind.C_point)
    columns.add_column(name.get_color(), 4, kind.NT_uint8, kind.C_color)
    columns.add_column(name.get_texcoord(), 2, kind.NT_float32, kind.C_texcoord)
    return core.GeomVertexFormat.register_format(core.GeomVertexFormat(columns))


@functools.cache
def texture() -> core.Texture:
    """The atlas, one for the process: Panda3D keeps what it derived for each texture it ever saw."""
    pixels = atlas()
    out = core.Texture("atlas")
    out.setup_2d_texture(pixels.shape[1], pixels.shape[0], core.Texture.T_unsigned_byte, core.Texture.F_rgb)
    out.set_ram_image_as(np.ascontiguousarray(pixels).tobytes(), "RGB")
    out.set_magfilter(core.SamplerState.FT_nearest)
    out.set_minfilter(core.SamplerState.FT_nearest)
    return out


class Thing:
    """Something that moves in one scene, and looks like the model it wears."""

    def __init__(self, node: core.NodePath) -> None:
        self._node = node
        self._worn: core.NodePath | None = None
        self._alpha = -1.0

    def pose(self, x: float, y: float, heading_deg: float, z: float = 0.0) -> None:
        """Puts it there."""
        self._node.set_pos_hpr(x, y, z, heading_deg, 0, 0)

    def show(self, visible: bool) -> bool:
        """Shows or hides it; returns `visible`."""
        if visible:
            self._node.show()
        else:
            self._node.hide()
        return visible

    def wear(self, model: core.GeomNode, alpha: float) -> None:
        """Looks like `model`, its alpha scaled to `alpha` of 255."""
        if self._worn is None or self._worn.node() is not model:
            if self._worn is not None:
                self._worn.detach_node()
            self._worn = self._node.attach_new_node(model)
        if alpha != self._alpha:
            self._node.set_color_scale(1, 1, 1, alpha / 255)
            self._alpha = alpha

    def part(self, model: core.GeomNode) -> Thing:
        """A part that moves along, and can be shown by itself."""
        node = self._node.attach_new_node("part")
        node.attach_new_node(model)
        return Thing(node)


class Stage:
    """The scene graph of one vehicle."""

    def __init__(self) -> None:
        self._root = core.NodePath("stage")
        self._root.set_texture(texture())

    def thing(self, *models: core.GeomNode) -> Thing:
        """A new thing, perhaps already with what it looks like. The order of drawing is the order of creation:
        where two surfaces are equally far, the picture must not depend on addresses in memory, by which Panda3D
        sorts. Of one thing, models are drawn in the order given: the sorting of a fixed bin is stable."""
        node = self._root.attach_new_node("thing")
        node.set_bin("fixed", self._root.get_num_children())
        for model in models:
            node.attach_new_node(model)
        return Thing(node)

    def vehicle(self) -> Thing:
        """What cameras are mounted on; nothing of it is seen."""
        return Thing(self._root.attach_new_node("vehicle"))


class Mount:
    """What holds one camera on its vehicle."""

    def __init__(self, node: core.NodePath, camera: Camera) -> None:
        self._node, self._camera = node, camera

    def swing(self, yaw_rad: float, pitch_rad: float) -> None:
        """Turns the camera so far from where it belongs."""
        self._node.set_hpr(*_direction(self._camera.yaw_rad + yaw_rad, self._camera.pitch_rad + pitch_rad))


class Canvas:
    """One offscreen buffer tiled with equal views. Panda3D draws every active buffer at each call, so one
    that is not closed slows all others down."""

    def __init__(self, views: int, width_px: int, height_px: int) -> None:
        """Raises NoRenderer, or ValueError where so many views do not fit into a buffer."""
        self.across = max(1, min(views, MAX_WIDTH_PX // width_px))
        down = math.ceil(views / self.across)
        if down * height_px > MAX_HEIGHT_PX or width_px > MAX_HEIGHT_PX:
            raise ValueError(
                f"{views} views of {width_px}x{height_px} px do not fit a buffer of {MAX_WIDTH_PX}x"
                f"{MAX_HEIGHT_PX}: drive fewer vehicles at once"
            )
        self.view_px = (width_px, height_px)
        self.size_px = (self.across * width_px, down * height_px)
        self.views = views
        self._regions: list[core.DisplayRegion] = []
        self._engine = core.GraphicsEngine.get_global_ptr()
        self._buffer = self._open()
        self._picture = core.Texture("picture")
        self._buffer.add_render_texture(
            self._picture, core.GraphicsOutput.RTM_copy_ram, core.GraphicsOutput.RTP_color
        )
        self._buffer.set_clear_color_active(False)

    def _open(self) -> core.GraphicsOutput:
        idle = _IDLE.get(self.size_px)
        if idle:
            buffer = idle.pop()
            buffer.set_active(True)
            return buffer
        pipe = core.GraphicsPipeSelection.get_global_ptr().make_module_pipe("p3tinydisplay")
        if pipe is None:
            raise NoRenderer("Panda3D's p3tinydisplay is missing: install the panda3d wheel of this project")
        properties = core.FrameBufferProperties()
        properties.set_rgb_color(True)
        properties.set_alpha_bits(8)
        properties.set_depth_bits(24)
        size, kind = core.WindowProperties.size(*self.size_px), core.GraphicsPipe.BF_refuse_window
        buffer = self._engine.make_output(pipe, "canvas", 0, properties, size, kind)
        if buffer is None:
            raise NoRenderer(f"no offscreen buffer of {self.size_px[0]}x{self.size_px[1]} px could be opened")
        return buffer

    def add_view(self, index: int, vehicle: Thing, camera: Camera, sky: tuple[float, float, float]) -> Mount:
        """Shows in tile `index` what `camera` on `vehicle` sees, on a sky of RGB 0..1 and alpha 0."""
        (w, h), (width, height) = self.view_px, self.size_px
        column, row = index % self.across, index // self.across
        top = height - row * h
        region = self._buffer.make_display_region(
            column * w / width, (column + 1) * w / width, (top - h) / height, top / height
        )
        mount = _mount(vehicle, camera)
        region.set_camera(mount)
        region.set_clear_color_active(True)
        region.set_clear_color((*sky, 0.0))
        region.set_clear_depth_active(True)
        self._regions.append(region)
        return Mount(mount, camera)

    def draw(self, wanted: Bools | None = None) -> tuple[Images, Images]:
        """All views: RGB [views, H, W, 3] and the alpha code [views, H, W]. Not `wanted` [views] are not drawn:
        their RGB is 0."""
        wanted = np.ones(self.views, np.bool_) if wanted is None else wanted
        for region, drawn in zip(self._regions, wanted.tolist(), strict=False):
            region.set_active(drawn)
        self._engine.render_frame()
        (w, h), (width, height) = self.view_px, self.size_px
        flat = np.frombuffer(self._picture.get_ram_image(), np.uint8).reshape(height, width, 4)
        tiles = flat[::-1].reshape(height // h, h, self.across, w, 4).swapaxes(1, 2)
        rgb = np.empty((*tiles.shape[:-1], 3), np.uint8)
        # A channel at a time, from BGRA: three times as fast as all by an index.
        for channel in range(3):
            rgb[..., channel] = tiles[..., 2 - channel]
        rgb, code = rgb.reshape(-1, h, w, 3)[: self.views], tiles[..., 3].reshape(-1, h, w)[: self.views]
        rgb[~wanted] = 0
        return rgb, code

    def close(self) -> None:
        """Puts the buffer aside for the next canvas of its size. May be called again."""
        if self._buffer is None:
            return
        self._buffer.clear_render_textures()
        self._buffer.remove_all_display_regions()
        self._buffer.set_active(False)
        core.GeomCacheManager.get_global_ptr().flush()
        _IDLE.setdefault(self.size_px, []).append(self._buffer)
        self._buffer = None


def _mount(vehicle: Thing, camera: Camera) -> core.NodePath:
    lens = core.PerspectiveLens()
    lens.set_film_size(camera.width_px, camera.height_px)
    lens.set_focal_length(camera.focal_px)
    lens.set_near_far(NEAR_M, FAR_M)
    node = vehicle._node.attach_new_node(core.Camera(camera.name, lens))
    node.set_pos(camera.x_m, camera.y_m, camera.z_m)
    node.set_hpr(*_direction(camera.yaw_rad, camera.pitch_rad))
    return node


def _direction(yaw_rad: float, pitch_rad: float) -> tuple[float, float, float]:
    """Heading, pitch and roll: Panda3D's cameras look along their y axis, the vehicle's x axis points forward."""
    return math.degrees(yaw_rad) - 90, math.degrees(pitch_rad), 0.0
