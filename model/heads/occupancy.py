"""What takes up the ground around the vehicle, seen from above: a grid that a person can look at."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from model.config import NetworkConfig
from model.heads.head import Classifier, Readout
from model.labels import GRID_CELLS, OCCUPANCY
from model.layers import Scene

PATCH = 4
"""Each query answers for so many cells each way: one for every cell would cost sixteen times as much."""


class Occupancy(Classifier):
    """Output: logits [B, *GRID_CELLS, classes of OCCUPANCY]."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        ahead, aside = (cells // PATCH for cells in GRID_CELLS)
        self.read = Readout(config, ahead * aside, config.occupancy)
        self.out = nn.Linear(config.width, PATCH * PATCH * len(OCCUPANCY))

    def forward(self, scene: Scene, ego: Tensor) -> Tensor:
        patches: Tensor = self.out(self.read(*scene.everything()))
        ahead, aside = (cells // PATCH for cells in GRID_CELLS)
        cells = patches.view(-1, ahead, aside, PATCH, PATCH, len(OCCUPANCY))
        return cells.transpose(2, 3).reshape(-1, *GRID_CELLS, len(OCCUPANCY))

    def cases(self, output: Tensor, labels: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Every cell is a case."""
        truth = labels["occupancy"].long()
        known = truth >= 0
        return output[known], truth[known]

    def told(self, output: Tensor) -> Tensor:
        """Probabilities, shaped as the output."""
        return output.softmax(-1)
