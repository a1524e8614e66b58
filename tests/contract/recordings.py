"""A recording for each stage: what came, and when. Made by seed from the samples: any process makes the same.

A recording is played phase by phase: an engine takes all of a phase's records at the phase's instant, in whatever
batches, and is idle before the next. Where a stage decides by time, a phase of one record that changes nothing
(one that came before) lets time pass, so that no engine decides on a part of what came.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from streams.archive import Archive, ArchiveConfig
from streams.contracts.campaigns import CampaignState, moved
from streams.contracts.clips import CHUNK_BYTES, ClipRequest, LostClip
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message, encode
from streams.contracts.drive import Exposure, Telemetry, TriggerEvent
from streams.contracts.ids import job_fingerprint
from streams.contracts.jobs import JobStarted
from streams.contracts.releases import RolloutState
from streams.contracts.scenarios import Novelty
from streams.coverage import Coverage, CoverageConfig
from streams.dedup import Dedup
from streams.engines.undisturbed import Phase, Sent, sent
from streams.novelty import NoveltyConfig, NoveltyStage
from streams.pooling import PoolConfig
from streams.rollouts import Rollouts, RolloutsConfig, Wave
from streams.selection import Selection, SelectionConfig
from streams.stage import AnyStage
from streams.tagging import Tagging
from streams.triggers import Triggers, TriggersConfig
from tests.samples import (
    DAYLIGHT,
    T0,
    archived,
    campaign,
    chunks,
    embedding_of,
    event,
    finished,
    release,
    request,
    rollout,
    scenario,
    telemetry,
)

WINDOW = 60 * SECOND_NS
START = T0 // WINDOW * WINDOW
VEHICLES = [f"car-{i}" for i in range(12)]


@dataclass(frozen=True, slots=True)
class Recording:
    """What a stage's test plays; `stages` run together, the tested one among them."""

    stages: Callable[[], list[AnyStage]]
    phases: tuple[Phase, ...]


def phase(seconds: float, *records: Message | Sent) -> Phase:
    """At so many seconds after START."""
    time_ns = START + round(seconds * 1000) * 1_000_000
    return Phase(time_ns, tuple(r if isinstance(r, Sent) else sent(r) for r in records))


def poison(topic: str, key: str, time_s: float) -> list[Sent]:
    """What no stage may choke on: each becomes a dead letter."""
    headers, value = encode(event(1, key))
    future = event(999, key, time_ns=START + round(time_s) * SECOND_NS + 3600 * SECOND_NS)
    return [
        Sent(topic, key.encode(), (), b"junk"),
        Sent(topic, key.encode(), headers, value[:-9]),
        Sent(topic, key.encode(), (("ce_type", b"fleetwheel.event.v99"),), b"{}"),
        Sent(topic, key.encode(), *encode(future)),
        Sent(topic, key.encode(), *encode(rollout() if topic != "fleet.releases" else request())),
        Sent(topic, key.encode(), headers, b""),
    ]


def _chain() -> list[AnyStage]:
    return [Dedup(), Tagging(), NoveltyStage(NoveltyConfig(block=4, mature=8, prototypes=8, reservoir=32))]


def _events(seed: int, count: int, first: int = 0) -> list[TriggerEvent]:
    """Events of all vehicles in three cells, some with odd signals, most with an embedding near one of four."""
    dice = random.Random(seed)
    found = []
    for i in range(first, first + count):
        centre = [float(dice.randrange(4) == k) for k in range(4)]
        noisy = [c + dice.gauss(0, 0.05) for c in centre] + [dice.gauss(0, 0.1) for _ in range(4)]
        signals = DAYLIGHT | {
            "Vehicle.Speed": dice.choice([0.0, 30.0, 100.0]),
            "Vehicle.Exterior.LightIntensity": dice.choice([2.0, 90.0]),
            "Vehicle.Body.Raindetection.Intensity": dice.choice([0.0, 30.0, 90.0]),
            "Vehicle.Acceleration.Longitudinal": dice.choice([0.0, -5.0]),
            "Vehicle.ADAS.ABS.IsEngaged": float(dice.random() < 0.2),
        }
        found.append(
            event(
                i,
                dice.choice(VEHICLES),
                signals=signals,
                region=dice.choice(["us-ca", "gb", "de"]),
                cause=dice.choice(["lateral", "pedestrian", "stop_sign"]),
                embedding=embedding_of(noisy) if dice.random() < 0.9 else b"",
                embedding_version=dice.choice(["m1", "m1", "m2"]),
            )
        )
    return found


def _dedup() -> Recording:
    """Re-sends at once and later; changed copies; poison in the midst."""
    events = _events(1, 60)
    changed = [event(e.sequence, e.vehicle, cause="driver") for e in events[:5]]
    return Recording(
        _chain,
        (
            phase(0, *events[:30], *events[10:20]),
            phase(10, *events[30:], *changed, *poison("fleet.events", "car-1", 10)),
            phase(20, *events[:40], *changed),
            phase(3600, *events[20:], *_events(7, 20, 60)),
        ),
    )


def _tagging() -> Recording:
    return Recording(_chain, tuple(phase(i, *_events(2 + i, 40, 40 * i)) for i in range(2)))


def _novelty() -> Recording:
    """Long enough that every lane learns several blocks."""
    return Recording(_chain, tuple(phase(i, *_events(10 + i, 120, 120 * i)) for i in range(3)))


def _selection() -> Recording:
    """Windows that the whole fleet judges again; the second one's candidates come twice."""
    dice = random.Random(5)
    cells = ["right/day/clear/urban", "left/night/clear/urban", "right/day/fog/highway"]
    found = [
        scenario(
            i,
            dice.choice(VEHICLES),
            dice.choice(cells),
            embedding=_direction(dice),
            novelty=Novelty(0.1, dice.random(), False, "as its partition says"),
        )
        for i in range(90)
    ]
    pool = PoolConfig(mature=8, novelty=NoveltyConfig(block=4, prototypes=8, mature=4))
    return Recording(
        lambda: [Selection(SelectionConfig(window_ns=WINDOW, clips=9, per_vehicle=3, pool=pool))],
        (
            phase(1, *found[:50], *poison("fleet.scenarios", cells[0], 1)),
            phase(61, found[0]),
            phase(61, *found[50:], *found[40:70]),
            phase(121, found[0]),
            phase(200, found[1]),
        ),
    )


def _direction(dice: random.Random) -> bytes:
    return embedding_of([dice.gauss(0, 1) for _ in range(6)])


def _archive() -> Recording:
    """Whole clips, an early one, a lost one, one whose deadline passes, and everything that can be wrong."""
    data = {f"clip-{i}": bytes([i]) * (CHUNK_BYTES // 4 if i else CHUNK_BYTES + 7) for i in range(10)}
    asked: list[ClipRequest] = [
        request(n, VEHICLES[i], before_ns=START + 600 * SECOND_NS) for i, n in enumerate(data)
    ]
    up = {n: chunks(d, n, VEHICLES[i], time_ns=START) for i, (n, d) in enumerate(data.items())}
    broken = chunks(b"x" * 100, "clip-6", VEHICLES[6], time_ns=START, clip_sha256="0" * 64)
    return Recording(
        lambda: [Archive(lambda s: f"store://{s}", ArchiveConfig())],
        (
            phase(0, *asked[:7], *up["clip-8"], *poison("fleet.clips", "clip-0", 0)),
            phase(5, *up["clip-0"], *up["clip-1"], *up["clip-1"], *broken),
            phase(6, *chunks(b"foreign", "clip-2", "car-99", time_ns=START), asked[3], asked[8]),
            phase(7, LostClip("clip-3", VEHICLES[3], START, "evicted"), *up["clip-6"], *up["clip-9"]),
            phase(100, asked[0]),
            phase(700, asked[0]),
            phase(701, *up["clip-4"], *up["clip-0"], *up["clip-3"]),
        ),
    )  # fmt: skip


def _coverage() -> Recording:
    """Reports twice, a debt that writes campaigns; a person's that is approved, killed, contradicted; an end."""
    waiting = campaign("mine", CampaignState.WAITING, revision=0, time_ns=START, start_ns=START)
    approved = moved(waiting, CampaignState.APPROVED, START + SECOND_NS, "ada")
    killed = moved(waiting, CampaignState.KILLED, START + SECOND_NS, reason="wrong street")
    reports = [_driven(i) for i in range(60)]
    return Recording(
        lambda: [Coverage(CoverageConfig(look_ns=WINDOW, least_km=5.0, lifetime_ns=10 * WINDOW))],
        (
            # One topic at a time: which of two comes first is not told by their records.
            phase(1, *reports[:40], *reports[:9], *poison("fleet.telemetry", "car-1", 1)),
            phase(2, waiting),
            phase(61, reports[0]),
            phase(61.5, *reports[40:]),
            phase(62, approved, waiting, *poison("fleet.campaigns", "mine", 62)),
            phase(63, campaign("bad", start_ns=START, expires_ns=START), killed),
            phase(64, approved, killed),
            phase(900, reports[0]),
        ),
    )


def _driven(number: int) -> Telemetry:
    cells = ["right/day/clear/urban", "right/day/clear/urban", "left/night/clear/urban"]
    exposure = Exposure(
        cells[number % 3], 700.0 + number, 70.0, 33.3, 3.3, {"lateral": 1} if number % 5 == 0 else {}
    )
    return telemetry(number, VEHICLES[number % 12], time_ns=START, exposures=[exposure])


def _triggers() -> Recording:
    """Two jobs: one passes, its rollout is halted, and the next starts at once with what was learned in vain."""
    config = TriggersConfig(start_clips=6, start_vehicles=3, join_clips=2, debounce_ns=30 * SECOND_NS)
    cells = ["left/night/clear/urban", "right/day/fog/urban"]
    first = [archived(f"clip-{i}", VEHICLES[i % 5], cells[i % 2]) for i in range(20)]
    hashes = [c.sha256 for c in first]
    fingerprint = job_fingerprint(hashes, config.base_model, config.recipe, config.code)
    done = finished(fingerprint, model_version="m2", gpu_hours=0.5, release=release(2))
    halted = rollout(RolloutState.HALTED, release=release(2), reason="worse")
    return Recording(
        lambda: [Triggers(config)],
        (
            phase(0, *first, *first[:7], *poison("fleet.archive", "clip-1", 0)),
            phase(31, first[0]),
            phase(40, JobStarted(fingerprint, START, "run-1", "worker-1")),
            phase(50, done),
            phase(51, *[archived(f"late-{i}", VEHICLES[i % 4], cells[0]) for i in range(4)]),
            phase(60, halted),
            phase(70, halted, done),
        ),
    )


def _rollouts() -> Recording:
    """A first release for all; a second through canary and wave; a third that is halted."""
    config = RolloutsConfig(
        waves=(Wave(0.3, 2.0, 1.0, 60 * SECOND_NS), Wave(0.6, 5.0, 2.0, 60 * SECOND_NS)),
        control_share=0.3,
        silence_ns=900 * SECOND_NS,
    )
    phases = [phase(0, *_reports(0, "m0", "m0")), phase(1, _passed(1))]
    began = 10.0
    for version, crashes in ((2, 0), (3, 9)):
        phases.append(phase(began, _passed(version)))
        for turn in range(3):
            driven = began + 61 * turn + 20
            phases.append(phase(driven, *_reports(driven, f"m{version}", f"m{version - 1}", crashes)))
            phases.append(phase(driven + 41, _reports(0, "m0", "m0")[0]))
        began += 200
    return Recording(lambda: [Rollouts(config)], tuple(phases))


def _passed(version: int) -> Message:
    return finished(f"{version}" * 64, model_version=f"m{version}", release=release(version))


def _reports(seconds: float, new: str, old: str, crashes: int = 0) -> list[Telemetry]:
    """A report of each vehicle; every other drives the new model and has its crashes."""
    return [
        telemetry(
            round(seconds),
            vehicle,
            time_ns=START + round(seconds) * SECOND_NS,
            model_version=new if i % 2 else old,
            hardware="sim",
            exposures=[
                Exposure(
                    "right/day/clear/urban", 1500.0, 100.0, disengagements={"collision": crashes if i % 2 else 0}
                )
            ],
        )
        for i, vehicle in enumerate(VEHICLES)
    ]


RECORDINGS: dict[str, Callable[[], Recording]] = {
    "dedup": _dedup,
    "tagging": _tagging,
    "novelty": _novelty,
    "selection": _selection,
    "archive": _archive,
    "coverage": _coverage,
    "triggers": _triggers,
    "rollouts": _rollouts,
}
"""By stage."""
