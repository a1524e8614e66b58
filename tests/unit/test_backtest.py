"""Replay: counts are those of the vehicle's own law, shares are weighted back, intervals cover and repeat."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from edge.agent.campaigns import Campaigns
from edge.agent.expressions import values_of
from fleet.backtest import Known, in_time_order, jobs_for, replay_campaign, replay_stages
from fleet.campaigns import Source, print_campaigns, print_debt
from fleet.estimates import Bootstrap, Item, estimates
from fleet.replay import NothingToReplay, Recorded, What, run_replay
from fleet.stages import make_stages
from registry.store import Store
from streams.contracts.campaigns import Campaign, CampaignState, Edge, moved
from streams.contracts.clips import ClipRequest
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message, encode
from streams.contracts.drive import ClipOffer, Trigger, TriggerEvent
from streams.contracts.odd import SPEED
from streams.recording import write_recording
from streams.topics import BY_NAME, TOPICS, key_of
from streams.transport.base import Record
from streams.triggers import TriggersConfig
from tests.samples import DAYLIGHT, T0, campaign, event, scenario, telemetry

CARS = 6
FAST = campaign("fast", expression="Vehicle.Speed > 50.0", edge=Edge.ALWAYS, min_interval_s=10.0)


def driving(
    vehicle: int, sequence: int, speed: float, kind: Trigger = Trigger.SAMPLE, **changes: Any
) -> TriggerEvent:
    return event(
        sequence,
        f"car-{vehicle}",
        kind=kind,
        cause="lateral" if kind is Trigger.DISENGAGEMENT else "",
        signals=DAYLIGHT | {SPEED: speed},
        time_ns=T0 + sequence * 4 * SECOND_NS,
        clip=ClipOffer(f"c-{vehicle}-{sequence}", T0, T0 + 4 * SECOND_NS, 40_000),
        **changes,
    )


def fleet() -> list[TriggerEvent]:
    """Each car samples itself every 4 s; the higher its number, the more of them are fast."""
    return [driving(v, i, 60.0 if i % CARS <= v else 30.0) for v in range(CARS) for i in range(60)]


def record(message: Message, offset: int = 0) -> Record:
    headers, value = encode(message)
    topic = next(t for t in TOPICS if isinstance(message, t.carries))
    return Record(topic.name, 0, offset, key_of(BY_NAME[topic.name], message).encode(), headers, value)


def known(messages: Sequence[Message]) -> Known:
    found = Known()
    for one in in_time_order(record(m, i) for i, m in enumerate(messages)):
        found.take(one)
    return found


@pytest.mark.parametrize(
    "wanted", [FAST, replace(FAST, edge=Edge.RISING, sampling_probability=0.4)], ids=["a", "b"]
)
def test_a_replayed_campaign_collects_what_the_vehicles_would_have(wanted: Campaign) -> None:
    expected = []
    for v in range(CARS):
        vehicle = Campaigns(f"car-{v}")
        vehicle.receive(wanted, T0)
        for e in (e for e in fleet() if e.vehicle == f"car-{v}"):
            if vehicle.watch(values_of(e.signals, e.region, {}), e.time_ns):
                expected.append(e.event_id)
    found = replay_campaign(wanted, known(fleet()), TriggersConfig())
    assert [i.clip_id for i in found.collected] == expected and len(expected) > 20
    assert {i.bytes for i in found.collected} == {40_000}
    assert {i.probability for i in found.collected} == {wanted.sampling_probability}


def test_the_bytes_of_a_day_bound_the_replay_too() -> None:
    found = replay_campaign(replace(FAST, daily_bytes=100_000), known(fleet()), TriggersConfig())
    assert max(sum(i.vehicle == f"car-{v}" for i in found.collected) for v in range(CARS)) == 2
    assert len(found.seen) > len(found.collected)


def test_a_takeover_in_the_window_is_the_campaigns_find() -> None:
    messages = [*fleet(), driving(0, 200, 30.0, Trigger.DISENGAGEMENT), driving(0, 100, 60.0)]
    close = driving(0, 101, 30.0, Trigger.DISENGAGEMENT)
    found = replay_campaign(
        FAST, known([*messages, replace(close, time_ns=T0 + 401 * SECOND_NS)]), TriggersConfig()
    )
    assert [i.time_ns for i in found.seen if i.disengaged] == [T0 + 400 * SECOND_NS]


def test_what_events_do_not_tell_is_counted_as_undecided() -> None:
    found = replay_campaign(replace(FAST, expression="novelty > 0.9"), known(fleet()), TriggersConfig())
    assert (len(found.seen), found.undecided) == (0, 60 * CARS)


def test_recorded_twice_in_any_order_is_the_same() -> None:
    once = replay_campaign(FAST, known(fleet()), TriggersConfig())
    assert replay_campaign(FAST, known([*fleet()[::-1], *fleet()]), TriggersConfig()) == once


def test_shares_are_weighted_by_the_inverse_probability() -> None:
    rare = [Item("a", T0, 0.1, disengaged=True), Item("b", T0, 0.1)]
    sure = [Item("a", T0, 1.0, novel=True) for _ in range(20)]
    _, shares = estimates([], [*rare, *sure], ["a", "b"], Bootstrap())
    assert shares["disengaged"].value == pytest.approx(10 / 40)
    assert shares["novel"].value == pytest.approx(20 / 40)


def test_the_interval_covers_the_fleets_own_figure_and_repeats() -> None:
    """Totals of fleets of 40 vehicles, drawn from one population: the true mean lies in about 95 % of them."""
    rng, covered = np.random.default_rng(5), 0
    for trial in range(80):
        counts = rng.poisson(rng.gamma(2.0, 5.0, 40))
        items = [Item(f"v{v}", T0, 1.0, 100, True) for v, n in enumerate(counts) for _ in range(n)]
        cost, _ = estimates(items, items, [f"v{v}" for v in range(40)], Bootstrap(seed=trial, resamples=400))
        clips = cost["clips"]
        assert clips.low is not None and clips.high is not None
        covered += clips.low <= 400 <= clips.high
        if trial == 0:
            assert estimates(items, items, [f"v{v}" for v in range(40)], Bootstrap(trial, 400))[0] == cost
    assert 70 <= covered <= 80


def test_without_items_or_with_one_vehicle_nothing_is_made_up() -> None:
    cost, shares = estimates([], [], ["a", "b"], Bootstrap())
    assert cost["clips"].value == 0 and shares["novel"].value is None
    cost, _ = estimates([Item("a", T0, 1.0)], [], ["a"], Bootstrap())
    assert (cost["events"].value, cost["events"].low) == (1, None)


def test_clips_that_would_start_jobs_are_priced() -> None:
    config = TriggersConfig(start_clips=4, start_vehicles=2, per_vehicle=4, job_gpu_hours=1.5)
    items = [Item(f"v{i % 3}", T0 + i, 1.0, 10, True, cell="x", clip_id=f"c{i}") for i in range(9)]
    assert jobs_for(items, config) == (1, 1.5)
    assert jobs_for(items[:1], config) == (0, 0.0)
    assert jobs_for([], config) == (0, 0.0)


def test_stages_read_what_the_one_before_wrote() -> None:
    records = in_time_order(record(e, i) for i, e in enumerate(fleet()))
    records += [record(scenario(i, "car-recorded"), i) for i in range(5)]
    found, messages = replay_stages(
        ("novelty", "selection"), lambda n: make_stages(n, Store("memory://t")), records, 3600 * SECOND_NS
    )
    asked = [m for m in messages if isinstance(m, ClipRequest)]
    assert found.emitted == {"fleet.clip-requests": len(asked)} and asked
    assert {a.vehicle for a in asked} <= {f"car-{v}" for v in range(CARS)}
    assert {i.bytes for i in found.collected} == {40_000}
    assert [i.probability for i in found.collected] == [a.inclusion_probability for a in asked]


# The commands


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "run.jsonl"
    reports = [telemetry(500 + v, f"car-{v}", time_ns=T0 + 300 * SECOND_NS) for v in range(CARS)]
    waiting = replace(FAST, state=CampaignState.WAITING, approved_by="", revision=0)
    said: list[Message] = [
        waiting,
        moved(waiting, CampaignState.APPROVED, T0, "ada"),
        campaign("other", CampaignState.KILLED),
    ]
    write_recording(path, [record(m, i) for i, m in enumerate([*fleet(), *reports, *said])])
    return path


def report_of(capsys: pytest.CaptureFixture[str], what: What, path: Path, **fields: object) -> dict[str, Any]:
    run_replay(what, Recorded(path, None), fields, "1h", Bootstrap(), as_json=True)
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_the_command_tells_cost_and_yield_and_the_same_again(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = report_of(capsys, What(campaign="fast"), recording)
    assert first == report_of(capsys, What(campaign="fast"), recording)
    assert first["recording"]["vehicles"] == CARS and first["recording"]["km"] == CARS
    clips = first["cost"]["clips"]
    assert clips["low"] < clips["value"] < clips["high"]
    assert first["cost"]["bytes"]["value"] == clips["value"] * 40_000
    assert first["yield"]["disengaged"]["value"] == 0
    run_replay(What(campaign="fast"), Recorded(recording, None), {}, "1h", Bootstrap(), as_json=False)
    text = capsys.readouterr().out
    assert f"clips       {clips['value']:.0f} [" in text and "(95%, by vehicle)" in text


def test_a_condition_and_stages_replay_too(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rare = report_of(capsys, What(when="Vehicle.Speed > 50.0"), recording, sampling_probability=0.1)
    often = report_of(capsys, What(when="Vehicle.Speed > 50.0"), recording)
    assert rare["occurrences"] == often["occurrences"]
    assert rare["cost"]["clips"]["value"] < often["cost"]["clips"]["value"]
    stages = report_of(capsys, What(stages=("novelty", "selection")), recording)
    assert stages["emitted"]["fleet.clip-requests"] == stages["cost"]["clips"]["value"] > 0


def test_what_cannot_be_replayed_is_told(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingToReplay, match="one of them"):
        run_replay(What(), Recorded(recording, None), {}, "1h", Bootstrap(), as_json=True)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(NothingToReplay, match="0 records"):
        run_replay(What(when="true"), Recorded(empty, None), {}, "1h", Bootstrap(), as_json=True)


def test_campaigns_are_listed_as_they_stand(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_campaigns(Source(None, "", recording), as_json=True)
    states = {c["campaign_id"]: c["state"] for c in json.loads(capsys.readouterr().out)}
    assert states == {"fast": "approved", "other": "killed"}
    print_campaigns(Source(None, "", recording), as_json=False)
    assert "2 campaigns" in capsys.readouterr().out


def test_debt_is_told_by_cell(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_debt(Source(None, "", recording), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["model_version"] == "m1" and told["debts"][0]["driven"]["km"] == CARS
    assert told["exposure"]["right/day/clear/urban"]["m1"]["engaged_mm"] == CARS * 1_000_000
    print_debt(Source(None, "", recording), as_json=False)
    assert "1 cells" in capsys.readouterr().out
