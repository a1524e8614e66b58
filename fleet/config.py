"""A run of the wheel as one typed value. Functions return complete ones; the command line picks and overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from jobs.context import Budget, GatePolicy, Settings
from model.recipes import recipe
from simulation.scenarios import BASE, UNSEEN
from streams.contracts.clock import SECOND_NS
from streams.coverage import CoverageConfig
from streams.rollouts import RolloutsConfig, Wave
from streams.selection import CURATED, SelectionConfig
from streams.triggers import TriggersConfig

WINDOW_NS = 3600 * SECOND_NS
"""A turn's driving lies in one selection window: an hour."""
FLEET_MIX: dict[str, float] = {BASE: 0.77} | {name: 0.23 / len(UNSEEN) for name in UNSEEN}
"""Where the fleet drives: mostly what the first model knows."""

OPEN_GATE = GatePolicy(
    alpha=1e-9, base_certainty=0.0, least_km_share=0.0, require_improvement=False, latency_ms=1000.0
)
"""Lets all pass that runs at all: for tests, and where arms are compared by what their clips teach."""


@dataclass(frozen=True, slots=True)
class WheelConfig:
    """All that a run depends on."""

    seed: int
    turns: int
    vehicles: int
    trips: int
    """Drives of each vehicle in a turn."""
    trip_s: float
    rollout_trip_s: float
    """Length of the drives with which a rollout is watched."""
    rollout_trips: int
    """At most so many of them a release."""
    recipe: str
    settings: Settings
    selection: SelectionConfig
    triggers: TriggersConfig
    rollouts: RolloutsConfig
    mix: Mapping[str, float] = field(default_factory=lambda: dict(FLEET_MIX))
    coverage: CoverageConfig = field(default_factory=lambda: CoverageConfig(open_campaigns=0))
    """No campaigns by default: what is collected is what selection is measured by."""
    sample_s: float = 4.0
    """Every so often a vehicle offers a clip whatever happens: a uniform sample of its driving."""
    spool_bytes: int = 256 * 1024 * 1024
    processes: int = 2

    def with_mode(self, mode: str) -> WheelConfig:
        """The same run with clips chosen in another way (streams.selection)."""
        return replace(self, selection=replace(self.selection, mode=mode))


def demo(seed: int) -> WheelConfig:
    """`fleet demo`: minutes on two cores."""
    return WheelConfig(
        seed=seed,
        turns=2,
        vehicles=48,
        # Many short trips rather than a few long ones: what a clip is chosen from are places, not minutes.
        trips=4,
        trip_s=25.0,
        rollout_trip_s=12.0,
        rollout_trips=6,
        recipe="demo",
        settings=Settings(
            # Base decides alone, and has the fewest disengagements: twelve kilometres with ten of them told two
            # models apart that were alike on twice as many.
            budget=Budget(vehicles=24, seconds=38.0, base_factor=4.0, seed=seed),
            # Not worse anywhere, nor slower, nor stalling: non-inferiority. A second turn gains a fifth,
            # which a few dozen kilometres cannot always tell from none.
            gate=GatePolicy(require_improvement=False),
            base_seed=seed,
            seed=seed,
        ),
        selection=_selection(recipe("demo").clips_per_turn),
        triggers=_triggers("demo", start_clips=6),
        rollouts=_rollouts(km=(0.5, 1.0)),
    )


def quick(seed: int) -> WheelConfig:
    """The same loop cut down for tests: it turns, it proves nothing about driving."""
    return replace(
        demo(seed),
        vehicles=8,
        trips=1,
        trip_s=16.0,
        rollout_trip_s=6.0,
        rollout_trips=4,
        recipe="quick",
        settings=Settings(
            budget=Budget(vehicles=2, seconds=10.0, seed=seed, shard_vehicles=2),
            # A model that learnt next to nothing may be worse by chance; what is tested is that the wheel turns.
            gate=OPEN_GATE,
            base_seed=seed,
            seed=seed,
        ),
        selection=_selection(recipe("quick").clips_per_turn),
        triggers=_triggers("quick", start_clips=1),
        # Eight vehicles: two arms of half the fleet each, so that neither is likely to be empty.
        rollouts=RolloutsConfig(
            waves=(Wave(0.5, 0.02, 0.02),), control_share=0.5, look_ns=5 * SECOND_NS, report_ns=5 * SECOND_NS
        ),
    )


def _selection(clips: int) -> SelectionConfig:
    # A small fleet meets a new environment with two or three vehicles: each may give a tenth of the clips.
    return SelectionConfig(
        mode=CURATED, window_ns=WINDOW_NS, clips=clips, per_vehicle=max(clips // 10, 2), upload_ns=24 * WINDOW_NS
    )


def _triggers(recipe: str, start_clips: int) -> TriggersConfig:
    return TriggersConfig(
        recipe=recipe,
        kind="learn",
        start_clips=start_clips,
        start_vehicles=min(2, start_clips),
        join_clips=1,
        debounce_ns=60 * SECOND_NS,
        cooldown_ns=SECOND_NS,
    )


def _rollouts(km: tuple[float, float]) -> RolloutsConfig:
    """Two waves beside a control, each watched for a few kilometres of a small fleet."""
    canary_km, wave_km = km
    return RolloutsConfig(
        waves=(Wave(0.25, canary_km, canary_km), Wave(0.6, wave_km, canary_km)),
        control_share=0.3,
        look_ns=5 * SECOND_NS,
        report_ns=5 * SECOND_NS,
    )
