"""Virtual vehicles: the simulated world as frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.agent.main import Agent, AgentConfig
from edge.agent.spool import Spool
from edge.sources.world import light_percent, visibility_m, world_frames
from model.policy import Plan
from model.rig import THREE_CAMERAS
from simulation.episode import Supervised
from simulation.expert import RULES
from simulation.scenarios import scenes
from simulation.world import World
from streams.contracts.drive import Telemetry, TriggerEvent
from streams.contracts.odd import LIGHT, SPEED, VISIBILITY, odd_cell
from tests.unit.vehicle_frames import CAMERAS, START_NS

MIX = {"base": 1.0, "left_hand": 1.0, "night": 1.0, "fog": 1.0}


def blind(vehicles: int) -> Plan:
    """Plans to leave the road."""
    away = np.zeros((vehicles, 1, 8, 2), np.float32)
    away[..., 0], away[..., 1] = np.arange(1, 9) * 2.0, np.arange(1, 9) * 0.8
    return Plan(away, np.ones((vehicles, 1), np.float32), np.ones_like(away), np.ones((vehicles, 4), np.float32))


def test_a_supervised_world_drives_agents(tmp_path: Path) -> None:
    count, messages, driven_m = 4, [], np.zeros(4)
    agents: list[Agent] = []
    with World(scenes(MIX, count, 3, "heldout"), THREE_CAMERAS) as world:
        for row, scene in enumerate(world.scenes):
            config = AgentConfig(f"v{row}", "b", scene.region.name)
            agents.append(Agent(config, Spool(tmp_path / str(row), 10**8, "none")))
        supervised, causes = Supervised(world), dict[int, str]()
        for _ in range(60):
            observation, engaged = world.observe(), supervised.engaged.copy()
            frames = world_frames(
                world, observation, blind(count), engaged, causes, cameras=CAMERAS, rules=RULES,
                start_ns=START_NS, model_versions=["m1"] * count,
            )  # fmt: skip
            for row, frame in enumerate(frames):
                messages += agents[row].observe(frame)
            outcome = supervised.step(blind(count).best)
            causes = {e.vehicle: e.cause for e in outcome.disengagements}
            driven_m += outcome.metres
        for vehicle in agents:
            messages += vehicle.end_drive(START_NS + 12 * 10**9)
        cells = {odd_cell(f.signals, s.region.name) for f, s in zip(frames, world.scenes, strict=True)}
    assert any("night" in c for c in cells) and any("fog" in c for c in cells)
    assert any(c.startswith("left/") for c in cells)
    events = [m for m in messages if isinstance(m, TriggerEvent)]
    assert {e.cause for e in events if e.kind == "disengagement"} >= {"lateral"}
    assert {e.vehicle for e in events} == {"v0", "v1", "v2", "v3"}
    exposures = [e for m in messages if isinstance(m, Telemetry) for e in m.exposures]
    assert sum(e.engaged_m for e in exposures) == pytest.approx(driven_m.sum(), rel=0.05)
    assert sum(sum(e.disengagements.values()) for e in exposures) == len(
        [e for e in events if e.kind == "disengagement"]
    )


def test_images_of_a_frame_are_not_painted_over_by_the_next_one() -> None:
    with World(scenes(MIX, 2, 3, "heldout"), THREE_CAMERAS) as world:
        first = world.observe().images
        kept = first.copy()
        world.step(world.expert().trajectory)
        world.observe()
        assert np.array_equal(first, kept)


def test_weather_as_signals() -> None:
    assert light_percent(0.0) == 100 and light_percent(0.9) == pytest.approx(10)
    assert visibility_m(0.05) == pytest.approx(60) and visibility_m(0.0) == 20_000
    night = {SPEED: 30.0, LIGHT: light_percent(0.8), VISIBILITY: visibility_m(0.0)}
    assert odd_cell(night, "left_mph") == "left/night/clear/urban"
