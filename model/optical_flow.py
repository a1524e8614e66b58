"""Dense optical flow of two pictures, and a world that goes on flowing alike: the yardstick of a world model.

Horn and Schunck (1981), from coarse to fine with warping (Brox et al., ECCV 2004): the flow is smooth where a
picture has no texture, so that it can be gone on with everywhere."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from model.geometry import identity, sample

LEVELS, WARPS, SWEEPS = 4, 4, 25
STIFFNESS = 0.3
"""Weight of smoothness against squared differences of grey in 0..1."""


def flow(before: Tensor, now: Tensor) -> Tensor:
    """Displacements [V, 2, H, W] in half pictures with now(p) = before(p + flow(p)), of pictures [V, 3, H, W]."""
    pyramids = [[picture.mean(1, keepdim=True)] for picture in (before, now)]
    for pyramid in pyramids:
        for _ in range(LEVELS - 1):
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    found = torch.zeros(len(now), 2, *pyramids[0][-1].shape[-2:])
    for earlier, later in zip(*(reversed(pyramid) for pyramid in pyramids), strict=True):
        found = F.interpolate(found, later.shape[-2:], mode="bilinear", align_corners=False)
        for _ in range(WARPS):
            found = _refined(earlier, later, found)
    return found


def constant_flow(before: Tensor, now: Tensor, steps: int) -> Tensor:
    """[V, K, 3, H, W]: each picture is the one before it, flowed as `now` [V, 3, H, W] did from `before`."""
    moved, out = flow(before, now), [now]
    for _ in range(steps):
        out.append(_warped(out[-1], moved))
    return torch.stack(out[1:], 1)


def _refined(earlier: Tensor, later: Tensor, found: Tensor) -> Tensor:
    """A better flow: the linearised problem around `found`, solved by sweeps of Jacobi."""
    height, width = later.shape[-2:]
    warped = _warped(earlier, found)
    slope = (_slope(warped) + _slope(later)) / 2
    change, stiff = warped - later, STIFFNESS + slope.square().sum(1, keepdim=True)
    per_pixel = torch.tensor([width / 2, height / 2]).view(1, 2, 1, 1)
    start = found * per_pixel
    moved = start
    for _ in range(SWEEPS):
        mean = _smooth(moved)
        wrong = (slope * (mean - start)).sum(1, keepdim=True) + change
        moved = mean - slope * wrong / stiff
    return moved / per_pixel


def _warped(picture: Tensor, found: Tensor) -> Tensor:
    """[V, K, H, W] looked up where a flow [V, 2, H, W] says."""
    places = (identity(1, *picture.shape[-2:]) + found).permute(0, 2, 3, 1)
    return sample(picture[:, None], places[:, None])[:, 0]


def _slope(picture: Tensor) -> Tensor:
    """Central differences right and down, per pixel, [V, 2, H, W]."""
    wide = F.pad(picture, (1, 1, 1, 1), mode="replicate")
    right = wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]
    down = wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]
    return torch.cat([right, down], 1) / 2


def _smooth(field: Tensor) -> Tensor:
    wide = F.pad(field, (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(wide, 3, stride=1)
