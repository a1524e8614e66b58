"""The virtual fleet: agents, each with its spool and its slots, in simulated worlds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.agent.campaigns import Campaigns
from edge.agent.frame import Frame
from edge.agent.main import Agent, AgentConfig
from edge.agent.spool import Spool
from edge.agent.triggers import Sampling
from edge.agent.tuf_source import TufSource
from edge.agent.updater import Installer, model_file
from edge.agent.updates import Conditions, Do, Policy
from edge.runtimes.onnx import OnnxPolicy
from edge.sources.source import rig_json
from edge.sources.world import world_frames
from model.policy import PLAN_PERIOD_S, Memory, Observation, Plan, frames_seen
from model.rig import THREE_CAMERAS
from simulation.episode import Supervised, now_ns
from simulation.expert import RULES
from simulation.scenarios import Scene
from simulation.world import World
from streams.contracts.clock import SECOND_NS, VirtualClock
from streams.contracts.codec import Message
from streams.contracts.ids import sha256_hex

PERIOD_NS = round(PLAN_PERIOD_S * SECOND_NS)
EXCHANGE_STEPS = 5
"""Messages go in and out once a second of driving."""
UPLOAD_BYTES = 64 * 1024 * 1024
"""What a parked vehicle may send at once."""
PARKED = Conditions(parked=True)
# Trips of the virtual fleet are short: a release proves itself within one.
UPDATES = Policy(healthy_frames=20, window_s=60.0, retry_s=0.0)

Send = Callable[[Sequence[Message]], None]
"""Takes messages for good; the vehicles then forget them."""


@dataclass(frozen=True, slots=True)
class Driver:
    """A release as it runs: the network and what its bundle says."""

    policy: OnnxPolicy
    model_version: str
    watts: float


@dataclass(slots=True)
class Vehicle:
    """What outlives a drive."""

    name: str
    spool: Spool
    installer: Installer
    campaigns: Campaigns
    agent: Agent | None = None
    driver: Driver | None = None
    """None: no release is installed, the person drives."""


class VirtualFleet:
    """Vehicles that drive together, step by step."""

    def __init__(
        self,
        folder: Path,
        count: int,
        sample_s: float,
        spool_bytes: int,
        releases: Path,
        root: bytes,
        hardware: str,
    ) -> None:
        self._sampling = Sampling(sample_s, 1.0)
        self._drivers: dict[str, Driver] = {}
        self._trips = 0
        url = releases.resolve().as_uri()
        self.vehicles = [
            Vehicle(
                name,
                # One process for the whole fleet: what a power cut may take is not the point here (ADR 0002).
                Spool(folder / name / "spool", spool_bytes, durability="none"),
                Installer(
                    folder / name / "slots", hardware, TufSource(folder / name / "tuf", url, root), policy=UPDATES
                ),
                Campaigns(name, folder / name, durable=False),
            )
            for name in (f"v{number:03d}" for number in range(count))
        ]
        self.scene_of: dict[tuple[str, str], Scene] = {}
        """(vehicle, boot) -> where it drove: the truth that no message carries."""

    def drive(
        self,
        scenes: Sequence[Scene],
        seconds: float,
        clock: VirtualClock,
        send: Send,
        exchange: Callable[[], None],
        progress: Callable[[int, int], None],
    ) -> None:
        """Every vehicle drives one scene; `exchange` is called once a second of driving. Raises ValueError where
        there are not as many scenes as vehicles."""
        self._start(scenes)
        start_ns, steps = clock.now_ns(), round(seconds / PLAN_PERIOD_S)
        # The agents keep an instant while the next one is drawn: drawing leaves the interpreter to them.
        with World(scenes, THREE_CAMERAS) as world, ThreadPoolExecutor(1) as aside:
            supervised, causes, memory = Supervised(world), dict[int, str](), Memory()
            kept = aside.submit(list[Message])
            for step in range(steps):
                observation = memory.recall(world.observe(), now_ns(world), self._instants())
                plan, driven = self._plan(observation)
                self._send(send, kept.result(), clock.now_ns())
                latency_ms = self._latency_ms(observation) if step % 25 == 0 else None
                if step % EXCHANGE_STEPS == 1:
                    exchange()
                frames = self._frames(world, supervised, observation, plan, driven, causes, start_ns, latency_ms)
                causes = self._act(world, supervised, plan, driven)
                kept = aside.submit(self._keep, frames)
                clock.advance(PERIOD_NS)
                progress(step + 1, steps)
            self._send(send, kept.result(), clock.now_ns())
        self._send(send, [m for v in self.vehicles for m in _agent(v).end_drive(clock.now_ns())], clock.now_ns())
        exchange()

    def park(self, now_ns: int) -> None:
        """Parked: updates go on as far as they can, then what is installed boots."""
        for vehicle in self.vehicles:
            for _ in range(4):
                if vehicle.installer.step(now_ns, PARKED) is Do.NOTHING:
                    break
            vehicle.driver = self._boot(vehicle.installer)

    def receive(self, message: Message, now_ns: int, send: Send) -> None:
        """Hand a message to the vehicles; each knows what is meant for it."""
        for vehicle in self.vehicles:
            if vehicle.agent is not None:
                self._send(send, vehicle.agent.receive(message, now_ns), now_ns, vehicle)
            else:
                self._agent(vehicle, "setup", "").receive(message, now_ns)

    def upload(self, now_ns: int, send: Send) -> int:
        """Send what was asked for; the number of messages sent."""
        sent = 0
        for vehicle in self.vehicles:
            if vehicle.agent is not None:
                messages = vehicle.agent.pump(now_ns, UPLOAD_BYTES)
                self._send(send, messages, now_ns, vehicle)
                sent += len(messages)
        return sent

    def releases_installed(self) -> dict[str, str]:
        """Vehicle -> release that boots, "" for none."""
        return {v.name: v.installer.release for v in self.vehicles}

    def _start(self, scenes: Sequence[Scene]) -> None:
        if len(scenes) != len(self.vehicles):
            raise ValueError(f"{len(scenes)} scenes for {len(self.vehicles)} vehicles")
        self._trips += 1
        for vehicle, scene in zip(self.vehicles, scenes, strict=True):
            boot = f"trip-{self._trips}"
            vehicle.agent = self._agent(vehicle, boot, scene.region.name)
            self.scene_of[vehicle.name, boot] = scene

    def _agent(self, vehicle: Vehicle, boot: str, region: str) -> Agent:
        config = self._config(vehicle.name, boot, region)
        return Agent(config, vehicle.spool, vehicle.installer, vehicle.campaigns)

    def _config(self, name: str, boot: str, region: str) -> AgentConfig:
        return AgentConfig(
            vehicle=name,
            boot=boot,
            region=region,
            rig_json=rig_json(THREE_CAMERAS),
            sampling=self._sampling,
            telemetry_s=5.0,
        )

    def _keep(self, frames: Sequence[Frame]) -> list[Message]:
        """Each agent takes its frame; what they have to say."""
        pairs = zip(self.vehicles, frames, strict=True)
        return [m for vehicle, frame in pairs for m in _agent(vehicle).observe(frame)]

    def _frames(
        self,
        world: World,
        supervised: Supervised,
        observation: Observation,
        plan: Plan | None,
        driven: NDArray[np.bool_],
        causes: dict[int, str],
        start_ns: int,
        latency_ms: float | None,
    ) -> list[Frame]:
        """What each vehicle notes of this instant, before it acts."""
        return world_frames(
            world,
            observation,
            plan,
            supervised.engaged & driven,
            causes,
            cameras=tuple(c.name for c in THREE_CAMERAS.cameras),
            rules=RULES,
            start_ns=start_ns,
            model_versions=[v.driver.model_version if v.driver else "" for v in self.vehicles],
            latency_ms=latency_ms,
            watts=max((v.driver.watts for v in self.vehicles if v.driver), default=None),
        )

    def _act(
        self, world: World, supervised: Supervised, plan: Plan | None, driven: NDArray[np.bool_]
    ) -> dict[int, str]:
        """Drive on; the takeovers that it brings. A vehicle without a release is driven by its person."""
        expert = world.expert().trajectory
        trajectory = expert if plan is None else np.where(driven[:, None, None], plan.best, expert)
        outcome = supervised.step(trajectory.astype(np.float32))
        return {d.vehicle: d.cause for d in outcome.disengagements}

    def _plan(self, observation: Observation) -> tuple[Plan | None, NDArray[np.bool_]]:
        """Plans of all vehicles, each by its own release; and who has one. None where nobody has."""
        drivers = [v.driver for v in self.vehicles]
        driven = np.array([d is not None for d in drivers])
        plans = {}
        for driver in {id(d): d for d in drivers if d is not None}.values():
            rows = np.array([i for i, d in enumerate(drivers) if d is driver])
            plans[rows.tobytes()] = (rows, driver.policy.plan(observation.take(rows)))
        return _merged(list(plans.values()), len(drivers)), driven

    def _instants(self) -> int:
        """As many as any release wants to see."""
        return max((frames_seen(v.driver.policy) for v in self.vehicles if v.driver), default=1)

    def _latency_ms(self, observation: Observation) -> float | None:
        """Of one plan for one vehicle, measured here."""
        driver = next((v.driver for v in self.vehicles if v.driver), None)
        if driver is None:
            return None
        one = observation.take(slice(0, 1))
        started = time.perf_counter()
        driver.policy.plan(one)
        return (time.perf_counter() - started) * 1e3

    def _boot(self, installer: Installer) -> Driver | None:
        """The verified slot's network; equal files share one session."""
        slot = installer.boot()
        if slot is None:
            return None
        model, manifest = model_file(slot).read_bytes(), msgspec.json.decode((slot / "manifest.json").read_bytes())
        name = sha256_hex(model) + manifest["model_version"]
        if name not in self._drivers:
            policy = OnnxPolicy(model, THREE_CAMERAS)
            self._drivers[name] = Driver(policy, manifest["model_version"], manifest["watts"])
        return self._drivers[name]

    def _send(self, send: Send, messages: Sequence[Message], now_ns: int, only: Vehicle | None = None) -> None:
        """Send, then let the vehicles forget what is now the transport's."""
        if not messages:
            return
        send(messages)
        if only is not None:
            _agent(only).delivered(messages, now_ns)
            return
        by_vehicle: dict[str, list[Message]] = {}
        for message in messages:
            by_vehicle.setdefault(str(getattr(message, "vehicle", "")), []).append(message)
        for vehicle in self.vehicles:
            if vehicle.name in by_vehicle:
                _agent(vehicle).delivered(by_vehicle[vehicle.name], now_ns)


def _agent(vehicle: Vehicle) -> Agent:
    assert vehicle.agent is not None, "a vehicle drives with an agent"
    return vehicle.agent


def _merged(parts: Sequence[tuple[NDArray[np.intp], Plan]], count: int) -> Plan | None:
    """The plans of several releases as one, in the vehicles' order; rows without a release are zero. Releases of
    one fleet share the numbers of modes and of embedding components."""
    if not parts:
        return None
    fields = ("modes", "confidence", "scale_m", "embedding")
    first = parts[0][1]
    whole = {f: np.zeros((count, *getattr(first, f).shape[1:]), np.float32) for f in fields}
    for rows, plan in parts:
        for f in fields:
            whole[f][rows] = getattr(plan, f)
    return Plan(**whole)
