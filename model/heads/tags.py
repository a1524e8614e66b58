"""What is in view: objects, weather and light, and what happens there."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from model.config import NetworkConfig
from model.heads.head import Classifier, Readout, binary
from model.labels import TAGS
from model.layers import Scene


class Tags(Classifier):
    """Output [B, len(TAGS)]: the logit of each tag, several of which may hold at once."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.read = Readout(config, len(TAGS), config.tags)
        self.out = nn.Linear(config.width, 1)

    def forward(self, scene: Scene, ego: Tensor) -> Tensor:
        logits: Tensor = self.out(self.read(*scene.everything()))
        return logits[..., 0]

    def cases(self, output: Tensor, labels: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Every tag is a case."""
        truth = labels["tags"].long()
        known = truth >= 0
        return binary(output[known]), truth[known]

    def told(self, output: Tensor) -> Tensor:
        """Probabilities, shaped as the output."""
        return output.sigmoid()
