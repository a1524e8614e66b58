"""Pooling: prototypes that all partitions share. What is rare in its partition is judged once more by the fleet.

Partitions learn apart, so that a new kind of event is novel once in each of them, and each has seen but its own
part of what is usual. Where all candidates meet, at the end of selection's window, those that are rare in their
partition (their p-value is at most `share`) are judged by prototypes and distances of the fleet's rare events, in
the order in which they were driven. A p-value among the rare ones times `share` is a p-value among all: it is
uniform where both are, so the threshold is still the false-alarm rate; and prototypes that only stand for what is
rare tell apart more of it.

The order in which candidates came does not show, so neither does which partition was read first, nor a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from streams.contracts.scenarios import Novelty, Scenario
from streams.novelty import EVERYWHERE, Model, Models, NoveltyConfig, NoveltyStage, model_key


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """Bounds are those of novelty: it is the same model, of other events."""

    share: float = 0.5
    """Largest p-value in its partition with which a candidate is judged by the fleet too."""
    mature: int = 256
    """Rare events of an embedding version that the fleet must have learned from before its word counts."""
    novelty: NoveltyConfig = field(default_factory=NoveltyConfig)

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share {self.share} is not in (0, 1]: 1 judges every candidate again")


class Pool:
    """The fleet's second look at candidates. Pure: equal models and candidates give equal verdicts."""

    def __init__(self, config: PoolConfig | None = None) -> None:
        self.config = config or PoolConfig()
        self._stage = NoveltyStage(self.config.novelty)

    def judge(self, models: Models, candidates: Sequence[Scenario]) -> tuple[Models, list[Scenario]]:
        """Candidates of different ids as the fleet sees them, in the order given, and the models that learned from
        them. Those that are not rare, and those of an embedding version that the fleet knows little of, keep the
        verdict of their partition."""
        rare = [s for s in candidates if s.event.embedding and s.novelty.p_value <= self.config.share]
        rare.sort(key=lambda s: (s.event.time_ns, s.event.event_id))
        known = {key for key, cells in models.items() if self._mature(cells)}
        learned, judged = self._stage.score(models, rare)
        verdicts = {
            s.event.event_id: replace(s, novelty=self._pooled(own.novelty, s.novelty))
            for own, s in zip(rare, judged, strict=True)
            if model_key(s) in known
        }
        return learned, [verdicts.get(s.event.event_id, s) for s in candidates]

    def _mature(self, cells: dict[str, Model]) -> bool:
        return EVERYWHERE in cells and cells[EVERYWHERE].events >= self.config.mature

    def _pooled(self, own: Novelty, fleets: Novelty) -> Novelty:
        """The fleet's verdict, scaled to all events, with both reasons."""
        p_value = self.config.share * fleets.p_value
        why = f"p = {p_value:.4f}: among the fleet's rare events {fleets.explanation}; in its partition "
        novel = p_value <= self.config.novelty.false_alarm_rate
        return Novelty(fleets.distance, p_value, novel, why + own.explanation)
