"""Speed, yaw rate and place in the lane, from the pictures alone: so video without signals teaches too."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import NetworkConfig
from model.heads.head import Head, Readout, known_mean
from model.labels import MOTION
from model.layers import Scene

UNITS = (10.0, 0.5, 1.0, 0.2)
"""Of MOTION: m/s, rad/s, m and rad that make outputs of order one."""
SMALLEST_SCALE = 0.01
"""Of the predicted Laplace scale, in UNITS: errors below it matter to nobody."""


class Motion(Head[Tensor]):
    """Output [B, 4, 2]: location and Laplace scale of each of MOTION. It looks at the tokens, which know nothing
    of the signals, and not at the latents, from which it would copy them."""

    units: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.read = Readout(config, len(MOTION), config.motion)
        self.out = nn.Linear(config.width, 2)
        self.register_buffer("units", torch.tensor(UNITS), persistent=False)

    def forward(self, scene: Scene, ego: Tensor) -> Tensor:
        place, spread = self.out(self.read(scene.tokens, scene.seen)).unbind(-1)
        scale = SMALLEST_SCALE + F.softplus(spread)
        return torch.stack([place, scale], -1) * self.units[:, None]

    def loss(self, output: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        """The Laplace negative log-likelihood, in UNITS."""
        truth = labels["motion"] / self.units
        known = ~truth.isnan()
        place, scale = (output / self.units[:, None]).unbind(-1)
        error = (place - torch.where(known, truth, 0.0)).abs()
        return known_mean(error / scale + torch.log(2 * scale), known)
