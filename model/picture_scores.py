"""How alike pictures are: mean squared error, PSNR, SSIM. All take uint8 pictures [N, ..., C, H, W, 3]."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Pictures = NDArray[np.uint8]
WINDOW, SIGMA_PX = 11, 1.5
STABILITY = (0.01**2, 0.03**2)
"""K1 and K2 of Wang et al. (2004), squared, for values in 0..1."""
AT_ONCE = 64


def mse(seen: Pictures, real: Pictures) -> NDArray[np.float64]:
    """Mean squared error in grey levels squared (0..255²), [N]."""
    change = seen.astype(np.float32) - real
    return np.asarray(np.square(change).reshape(len(seen), -1).mean(1, dtype=np.float64))


def psnr(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Peak signal to noise ratio in dB of an `mse`; at most 99."""
    return np.asarray(10 * np.log10(255.0**2 / np.maximum(error, 255.0**2 / 10**9.9)))


def ssim(seen: Pictures, real: Pictures) -> NDArray[np.float64]:
    """Structural similarity (Wang et al., IEEE TIP 13(4), 2004), [N]: the mean over channels of that with an 11 x
    11 Gaussian window of 1.5 pixels, without borders."""
    parts = [
        _ssim(_planes(seen[i : i + AT_ONCE]), _planes(real[i : i + AT_ONCE])) for i in range(0, len(seen), AT_ONCE)
    ]
    per_plane = torch.cat(parts)
    return np.asarray(per_plane.view(len(seen), -1).mean(1).double().numpy())


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x, var_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    both = _blurred(x * y) - mean_x * mean_y
    a, b = STABILITY
    alike = (2 * mean_x * mean_y + a) * (2 * both + b) / ((mean_x**2 + mean_y**2 + a) * (var_x + var_y + b))
    return alike.flatten(1).mean(1)


def _planes(pictures: Pictures) -> Tensor:
    """Every channel a picture of its own, [planes, 1, H, W], 0..1."""
    last = np.moveaxis(pictures, -1, -3)
    planes = np.ascontiguousarray(last).reshape(-1, 1, *last.shape[-2:])
    return torch.from_numpy(planes).float() / 255


def _blurred(planes: Tensor) -> Tensor:
    at = torch.arange(WINDOW) - WINDOW // 2
    weight = torch.exp(-(at.float() ** 2) / (2 * SIGMA_PX**2))
    weight = weight / weight.sum()
    tall = F.conv2d(planes, weight.view(1, 1, -1, 1))
    return F.conv2d(tall, weight.view(1, 1, 1, -1))
