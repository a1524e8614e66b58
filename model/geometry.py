"""Where in the pictures before a point of this one was, if the vehicle moved so and the point stands still."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.rig import Rig
from model.sequences import STEP_S

AHEAD = 0.05
"""Least cosine to the view for a point to be in a picture."""
BEYOND = 4.0
"""Places farther outside the picture, in half pictures, are not told apart."""


class Eyes(NamedTuple):
    """C cameras, each looking at a grid of h x w points. Places are told in the rig's pictures side by side, in
    the order of its cameras: -1..1 from the left of the first to the right of the last, and from top to bottom,
    whatever the resolution."""

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


def sources(seen: Eyes, nearness: Tensor, action: Tensor, drift: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Places [B, C, h, w, 2] in the pictures STEP_S ago of what the grid points now look at, and whether that was
    outside of all pictures [B, C, 1, h, w], 0 or 1: then the place is at the border of the camera's own.

    `nearness` [B, C, 1, h, w] is 1/m along each ray; 0 is infinitely far, so that only the turn counts. `action`
    [B, 2] is the motion meanwhile: mean speed in m/s and yaw rate in rad/s, on an arc. No action: the identity.
    `drift` [B, C, 2, h, w] is added, in half pictures. What a camera did not see another one may have seen."""
    count, (height, width) = len(seen.rays), nearness.shape[-2:]
    places, ahead = _projected(seen, nearness, action)
    if drift is not None:
        places = places + drift.flatten(3).transpose(2, 3).unsqueeze(2)
    inside = (places.abs().amax(-1) <= 1) & (ahead > AHEAD)
    own = torch.eye(count, dtype=torch.long)[..., None]
    choice = (2 * inside + own).argmax(2, keepdim=True)
    outside = 1 - inside.gather(2, choice).float()
    x, y = places.gather(2, choice[..., None].expand(-1, -1, -1, -1, 2)).squeeze(2).unbind(-1)
    edge = 1 - 1 / width
    beside = (x.clamp(-edge, edge) + 2 * choice.squeeze(2) + 1 - count) / count
    places = torch.unflatten(torch.stack([beside, y], -1), 2, (height, width))
    return places, torch.unflatten(outside, 3, (height, width))


def _projected(seen: Eyes, nearness: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Of each camera's points in each of the J = C cameras: places in its picture, -1..1 both ways,
    [B, C, J, h * w, 2], and how far along its view in units of the distance, [B, C, J, h * w]."""
    turned, lever = _motion(seen, action)
    points = turned @ seen.rays[:, None] + nearness.flatten(3).unsqueeze(2) * lever
    ahead, left, up = points.unbind(-2)
    far = ahead.clamp(min=AHEAD)
    places = torch.stack([-left / far, -up / far], -1) * seen.reach[:, None]
    return places.clamp(-BEYOND, BEYOND), ahead


def _motion(seen: Eyes, action: Tensor) -> tuple[Tensor, Tensor]:
    """From each camera's axes now to those of each camera STEP_S ago: rotation [B, C, J, 3, 3] and displacement
    [B, C, J, 3, 1] in m."""
    way, angle = action[:, 0] * STEP_S, action[:, 1] * STEP_S
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    spin = torch.stack([cos, -sin, none, sin, cos, none, none, none, none + 1], -1).view(-1, 1, 1, 3, 3)
    shift = torch.stack([way * (angle / 2).cos(), way * (angle / 2).sin(), none], -1).view(-1, 1, 1, 3, 1)
    back, place = seen.turn.transpose(1, 2), seen.place[..., None]
    return back @ spin @ seen.turn[:, None], back @ (spin @ place[:, None] + shift - place)


def identity(cameras: int, height: int, width: int) -> Tensor:
    """The places of the pictures' own pixels, [C, 2, H, W]."""
    y = (2 * torch.arange(height) + 1) / height - 1
    x = (2 * torch.arange(cameras * width) + 1) / (cameras * width) - 1
    across = x.view(cameras, 1, width).expand(-1, height, -1)
    return torch.stack([across, y[:, None].expand(cameras, height, width)], 1)


def sample(fields: Tensor, places: Tensor) -> Tensor:
    """Fields [B, C, K, H, W] of C cameras looked up at places [B, C, h, w, 2], bilinear: [B, C, K, h, w]; outside
    is what is at the border."""
    beside = fields.permute(0, 2, 3, 1, 4).flatten(3)
    found = F.grid_sample(beside, places.flatten(1, 2), "bilinear", "border", align_corners=False)
    return torch.unflatten(found, 2, places.shape[1:3]).movedim(2, 1)
