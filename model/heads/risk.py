"""How likely it is that the safety driver will have to take over before the plan ends."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from model.config import NetworkConfig
from model.heads.head import Classifier, Readout, binary
from model.layers import Scene


class Risk(Classifier):
    """Output [B]: the logit of a disengagement within RISK_STEPS instants."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.read = Readout(config, 1, config.risk)
        self.out = nn.Linear(config.width, 1)

    def forward(self, scene: Scene, ego: Tensor) -> Tensor:
        logits: Tensor = self.out(self.read(*scene.everything()))
        return logits[:, 0, 0]

    def cases(self, output: Tensor, labels: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Every frame is a case."""
        truth = labels["risk"].long()
        known = truth >= 0
        return binary(output[known]), truth[known]

    def told(self, output: Tensor) -> Tensor:
        """Probabilities, shaped as the output."""
        return output.sigmoid()
