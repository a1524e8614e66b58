"""Where in the picture before a point of this picture was, if the vehicle moved so and the point stands still."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.rig import Rig
from model.sequences import STEP_S

AHEAD = 0.05
"""Least cosine to the view for a point to be projected: what is beside or behind the camera falls far outside."""
BEYOND = 4.0
"""Places farther outside the picture, in half pictures, are not told apart."""


class Eyes(NamedTuple):
    """C cameras, each looking at a grid of h x w points. Places in a picture are in half pictures from its
    centre, right and down positive: -1..1, whatever the resolution."""

    rays: Tensor
    """[C, 3, h * w], unit directions in the camera's axes: x along its view, y left, z up."""
    features: Tensor
    """[C, 6, h, w], as of `Rig.rays`."""
    ground: Tensor
    """[C, 1, h, w], 1/m: how near the flat road is along each ray, 0 above the horizon."""
    turn: Tensor
    """[C, 3, 3], from the camera's axes to the vehicle's."""
    place: Tensor
    """[C, 3], m, in the vehicle's axes."""
    reach: Tensor
    """[C, 2], focal length in half widths and half heights of a picture."""

    def take(self, cameras: list[int]) -> Eyes:
        """Some of the cameras."""
        return Eyes(*(field[cameras] for field in self))


def eyes(rig: Rig, cell_px: int) -> Eyes:
    """The rig looking at the centres of squares of `cell_px` pixels. Raises BadRig where these do not tile."""
    rays = rig.rays(cell_px)
    first = rig.cameras[0]
    shape = (len(rays), -1, first.height_px // cell_px, first.width_px // cell_px)
    turn = np.stack([camera.rotation for camera in rig.cameras])
    local = np.einsum("cpv,cvk->ckp", rays[..., :3].astype(float), turn)
    ground = np.maximum(-rays[..., 2], 0) / rays[..., 5]
    place = rays[:, 0, 3:]
    reach = [(c.focal_px / (c.width_px / 2), c.focal_px / (c.height_px / 2)) for c in rig.cameras]
    arrays = (local, rays.swapaxes(1, 2).reshape(shape), ground.reshape(shape), turn, place, np.array(reach))
    return Eyes(*(torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in arrays))


def sources(seen: Eyes, nearness: Tensor, action: Tensor) -> Tensor:
    """Places [B, C, h, w, 2] in the picture STEP_S ago of what the grid points now look at.

    `nearness` [B, C, 1, h, w] is 1/m along each ray; 0 is infinitely far, so that only the turn counts. `action`
    [B, 2] is the motion meanwhile: mean speed in m/s and yaw rate in rad/s, on an arc. No action: the identity."""
    turned, lever = _motion(seen, action)
    points = turned @ seen.rays + nearness.flatten(3) * lever
    ahead = points[:, :, 0].clamp(min=AHEAD)
    reach = seen.reach[:, None]
    places = torch.stack([-points[:, :, 1] / ahead, -points[:, :, 2] / ahead], -1) * reach
    return places.clamp(-BEYOND, BEYOND).unflatten(2, nearness.shape[-2:])


def _motion(seen: Eyes, action: Tensor) -> tuple[Tensor, Tensor]:
    """Of each camera in its own axes: rotation [B, C, 3, 3] and displacement [B, C, 3, 1] in m over STEP_S."""
    way, angle = action[:, 0] * STEP_S, action[:, 1] * STEP_S
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    spin = torch.stack([cos, -sin, none, sin, cos, none, none, none, none + 1], -1).view(-1, 1, 3, 3)
    shift = torch.stack([way * (angle / 2).cos(), way * (angle / 2).sin(), none], -1)[:, None, :, None]
    back, place = seen.turn.transpose(1, 2), seen.place[..., None]
    return back @ spin @ seen.turn, back @ (spin @ place + shift - place)


def identity(height: int, width: int) -> Tensor:
    """The places of a picture's own pixels, [2, H, W]."""
    y = (2 * torch.arange(height) + 1) / height - 1
    x = (2 * torch.arange(width) + 1) / width - 1
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])


def sample(pictures: Tensor, places: Tensor) -> Tensor:
    """Pictures [..., K, H, W] looked up at places [..., h, w, 2], bilinear; outside is what is at the border."""
    flat = pictures.flatten(0, -4)
    found = F.grid_sample(flat, places.flatten(0, -4), "bilinear", "border", align_corners=False)
    return found.unflatten(0, pictures.shape[:-3])
