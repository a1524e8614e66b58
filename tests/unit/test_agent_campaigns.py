"""Campaigns on a vehicle: edges, intervals, lots, bytes of a day, priorities, restarts, refusals; and the agent
that obeys them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as with_fields
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge.agent.campaigns import DAY_NS, MAX_CAMPAIGNS, Campaigns, Watch, occurs
from edge.agent.expressions import values_of
from edge.agent.main import Agent, AgentConfig
from edge.agent.spool import Spool
from streams.contracts.campaigns import Campaign, CampaignReport, CampaignState, Edge, ReportState, cause_of, moved
from streams.contracts.clips import LostClip
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message, decode, encode
from streams.contracts.drive import Trigger, TriggerEvent
from streams.contracts.odd import SPEED
from tests.samples import campaign as sample
from tests.unit.vehicle_frames import PERIOD_NS, START_NS, frame, seen

WEEK_NS = 7 * DAY_NS


def campaign(name: str = "fast", state: CampaignState = CampaignState.ACTIVE, **changes: object) -> Campaign:
    fields = {
        "expression": "Vehicle.Speed > 50.0",
        "start_ns": START_NS - DAY_NS,
        "expires_ns": START_NS + WEEK_NS,
    }
    return sample(name, state, **fields | {"min_interval_s": 1.0, "pre_s": 0.4, "post_s": 0.4} | changes)


def fired(campaigns: Campaigns, speeds_kmh: Sequence[float | None], period_ns: int = PERIOD_NS) -> list[int]:
    """Frames at which something is collected."""
    found = []
    for i, speed in enumerate(speeds_kmh):
        values = values_of({} if speed is None else {SPEED: speed}, "gb", {})
        found += [i] * len(campaigns.watch(values, START_NS + i * period_ns))
    return found


def looking_after(*wanted: Campaign, folder: Path | None = None) -> Campaigns:
    campaigns = Campaigns("v1", folder)
    for one in wanted:
        campaigns.receive(one, START_NS)
    return campaigns


def told(campaigns: Campaigns) -> list[tuple[str, ReportState]]:
    return [(r.campaign_id, r.state) for r in campaigns.take_reports()]


def test_a_rising_edge_fires_once_and_again_after_it_fell() -> None:
    assert fired(looking_after(campaign()), [40, 60, 70, 60, 40, *[40] * 5, 60, 60]) == [1, 10]


def test_always_fires_for_as_long_as_it_holds_at_the_interval() -> None:
    assert fired(looking_after(campaign(edge=Edge.ALWAYS)), [60.0] * 16) == [0, 5, 10, 15]


def test_an_occurrence_within_the_interval_is_none_and_does_not_wait_for_it() -> None:
    assert fired(looking_after(campaign(min_interval_s=2.0)), [60, 40, 60, *[60] * 10, 40, 60]) == [0, 14]


def test_windows_of_one_campaign_do_not_overlap() -> None:
    wanted = campaign(edge=Edge.ALWAYS, min_interval_s=0.0, pre_s=1.0, post_s=1.0)
    assert fired(looking_after(wanted), [60.0] * 21) == [0, 10, 20]


def test_what_is_undecided_neither_fires_nor_rearms() -> None:
    assert fired(looking_after(campaign()), [60, *[None] * 10, 60]) == [0]
    watch = Watch(campaign())
    assert occurs(watch, None, START_NS) == (watch, False)


def test_the_lot_keeps_its_share_whatever_the_vehicle_and_the_same_again() -> None:
    wanted = campaign(edge=Edge.ALWAYS, sampling_probability=0.3, daily_bytes=10**12)
    speeds = [60.0] * 4000
    first, again = fired(looking_after(wanted), speeds), fired(looking_after(wanted), speeds)
    assert first == again
    assert 0.25 < len(first) / 800 < 0.35
    assert fired(looking_after(replace(wanted, campaign_id="other")), speeds) != first


def test_the_chance_of_an_occurrence_does_not_hang_on_earlier_lots() -> None:
    """The interval runs from the last occurrence, drawn or not: else those after an undrawn one were likelier."""
    sure = fired(looking_after(campaign(edge=Edge.ALWAYS)), [60.0] * 500)
    some = fired(looking_after(campaign(edge=Edge.ALWAYS, sampling_probability=0.5)), [60.0] * 500)
    assert set(some) < set(sure)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": CampaignState.WAITING},
        {"state": CampaignState.EXPIRED},
        {"state": CampaignState.KILLED},
        {"approved_by": ""},
        {"start_ns": START_NS + DAY_NS},
        {"start_ns": 0, "expires_ns": START_NS},
    ],
    ids=str,
)
def test_what_does_not_stand_collects_nothing(changes: dict[str, object]) -> None:
    assert fired(looking_after(campaign(**changes)), [60.0] * 20) == []  # type: ignore[arg-type]


def test_it_ends_by_itself_without_a_message() -> None:
    campaigns = looking_after(campaign(edge=Edge.ALWAYS, expires_ns=START_NS + 2 * SECOND_NS))
    assert fired(campaigns, [60.0] * 40) == [0, 5]
    assert told(campaigns) == [("fast", ReportState.ACCEPTED), ("fast", ReportState.ENDED)]


def test_a_kill_takes_effect_at_once_and_an_old_message_does_not_undo_it(tmp_path: Path) -> None:
    running = campaign(edge=Edge.ALWAYS)
    campaigns = looking_after(running, folder=tmp_path)
    assert fired(campaigns, [60.0]) == [0]
    campaigns.receive(moved(running, CampaignState.KILLED, START_NS), START_NS)
    for again in (campaigns, Campaigns("v1", tmp_path)):
        again.receive(running, START_NS)
        again.receive(replace(running, revision=9), START_NS)
        assert again.active == () and fired(again, [60.0] * 20) == []


def test_a_kill_that_came_before_the_campaign_is_remembered() -> None:
    running = campaign()
    killed = moved(running, CampaignState.KILLED, START_NS)
    assert looking_after(killed, running).active == ()


def test_what_was_asked_for_does_not_change_under_one_id() -> None:
    campaigns = looking_after(campaign(), campaign(expression="true", revision=5))
    assert fired(campaigns, [40.0] * 10) == []


def test_the_bytes_of_a_day_hold_and_come_back_the_next_day() -> None:
    campaigns = looking_after(campaign(edge=Edge.ALWAYS, daily_bytes=100))
    assert fired(campaigns, [60.0]) == [0]
    assert campaigns.spend("fast", "c1", 60, START_NS)
    assert not campaigns.spend("fast", "c2", 41, START_NS)
    assert fired(campaigns, [60.0] * 20) == []
    assert told(campaigns) == [("fast", ReportState.ACCEPTED), ("fast", ReportState.EXHAUSTED)]
    tomorrow = (START_NS // DAY_NS + 1) * DAY_NS
    assert campaigns.watch(values_of({SPEED: 60.0}, "gb", {}), tomorrow)
    assert campaigns.spend("fast", "c3", 100, tomorrow)


def test_the_bytes_of_a_day_outlive_a_restart(tmp_path: Path) -> None:
    looking_after(campaign(edge=Edge.ALWAYS, daily_bytes=100), folder=tmp_path).spend("fast", "c", 100, START_NS)
    again = Campaigns("v1", tmp_path)
    assert again.active == ("fast",) and fired(again, [60.0] * 20) == []


def test_of_too_many_those_of_highest_priority_are_looked_after() -> None:
    crowd = [campaign(f"c{i:02d}", priority=1 + i) for i in range(MAX_CAMPAIGNS)]
    campaigns = looking_after(*crowd, campaign("low", priority=1), campaign("high", priority=99))
    assert "low" not in campaigns.active and "c00" not in campaigns.active and "high" in campaigns.active
    reports = campaigns.take_reports()
    assert [(r.campaign_id, r.state) for r in reports[-3:]] == [
        ("low", ReportState.REFUSED), ("c00", ReportState.ENDED), ("high", ReportState.ACCEPTED),
    ]  # fmt: skip
    assert "no lower priority" in reports[-3].reason


def test_a_malformed_campaign_is_refused_with_the_reason_and_harms_nothing() -> None:
    campaigns = looking_after(campaign(), campaign("typo", expression="Vehicle.Sped > 1.0"))
    campaigns.receive(campaign("backwards", expires_ns=START_NS - 2 * DAY_NS), START_NS)
    campaigns.receive(campaign("loop", expression="[1].all(x, true)"), START_NS)
    reports = {r.campaign_id: r for r in campaigns.take_reports()}
    assert campaigns.active == ("fast",)
    assert reports["typo"].state is ReportState.REFUSED and "Vehicle.Sped" in reports["typo"].reason
    assert reports["loop"].state is ReportState.REFUSED and "all()" in reports["loop"].reason
    assert fired(campaigns, [60.0]) == [0]


@pytest.mark.parametrize("data", [b"", b"{", b"[{}]", b"\xff\xfe"])
def test_a_damaged_memory_starts_anew(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "campaigns.json").write_bytes(data)
    assert Campaigns("v1", tmp_path).active == ()


# The agent


def agent(tmp_path: Path, *wanted: Campaign, limit: int = 10**8) -> Agent:
    vehicle = Agent(AgentConfig("v1", "boot1", "gb"), Spool(tmp_path, limit, "none"), campaigns=Campaigns("v1"))
    for one in wanted:
        vehicle.receive(one, START_NS)
    return vehicle


def drive(vehicle: Agent, count: int = 60, fast: range = range(30, 60)) -> list[Message]:
    frames = [seen(i, signals={SPEED: 60.0 if i in fast else 36.0}) for i in range(count)]
    return [m for f in frames for m in vehicle.observe(f)]


def collected(messages: Sequence[Message]) -> list[TriggerEvent]:
    return [m for m in messages if isinstance(m, TriggerEvent) and m.kind is Trigger.CAMPAIGN]


def test_an_event_carries_campaign_probability_and_the_campaigns_window(tmp_path: Path) -> None:
    vehicle = agent(tmp_path, campaign(sampling_probability=0.99, pre_s=6.0, post_s=1.0))
    (event,) = collected(drive(vehicle))
    assert (event.cause, event.collection_probability) == (cause_of("fast"), 0.99)
    assert event.time_ns == START_NS + 30 * PERIOD_NS
    assert event.clip is not None
    assert event.clip.start_ns == event.time_ns - 6 * SECOND_NS
    assert event.clip.end_ns == event.time_ns + SECOND_NS - PERIOD_NS
    assert decode(*encode(event), now_ns=event.time_ns) == event


def test_a_worthier_event_does_not_swallow_a_campaigns(tmp_path: Path) -> None:
    """Else occurrences beside a takeover would have another chance than the rest."""
    vehicle = agent(tmp_path, campaign())
    frames = [seen(i, signals={SPEED: 60.0 if i >= 30 else 36.0}, engaged=i < 30) for i in range(60)]
    kinds = [m.kind for f in frames for m in vehicle.observe(f) if isinstance(m, TriggerEvent)]
    assert sorted(kinds) == [Trigger.CAMPAIGN, Trigger.DISENGAGEMENT]


def test_without_campaigns_an_agent_says_what_it_always_said(tmp_path: Path) -> None:
    plain = Agent(AgentConfig("v1", "boot1", "gb"), Spool(tmp_path / "a", 10**8, "none"))
    assert plain.receive(campaign(), START_NS) == []
    assert drive(plain) == drive(agent(tmp_path / "b"))


def test_answers_are_messages_and_a_bad_campaign_does_not_stop_the_drive(tmp_path: Path) -> None:
    vehicle = agent(tmp_path)
    (answer,) = vehicle.receive(campaign("bad", expression="(("), START_NS)
    assert isinstance(answer, CampaignReport) and answer.state is ReportState.REFUSED
    assert decode(*encode(answer), now_ns=START_NS) == answer
    assert answer in vehicle._spool.outbox.values()
    assert collected(drive(vehicle)) == []


def test_a_kill_gives_up_open_windows_and_clips_that_wait(tmp_path: Path) -> None:
    running = campaign()
    vehicle = agent(tmp_path, running)
    (event,) = collected(drive(vehicle))
    assert event.event_id in vehicle._spool.clips
    killed = moved(running, CampaignState.KILLED, START_NS)
    answers = vehicle.receive(killed, START_NS + 60 * PERIOD_NS)
    assert [type(a) for a in answers] == [CampaignReport]
    assert event.event_id not in vehicle._spool.clips
    assert not any(isinstance(m, LostClip) for m in vehicle._spool.outbox.values())
    other = agent(tmp_path / "b", running)
    drive(other, count=31)
    other.receive(killed, START_NS + 31 * PERIOD_NS)
    assert collected([m for i in range(31, 60) for m in other.observe(seen(i))]) == []


def test_a_clip_beyond_the_bytes_of_the_day_is_not_kept_but_told(tmp_path: Path) -> None:
    vehicle = agent(tmp_path, campaign(daily_bytes=1000))
    messages = drive(vehicle)
    (event,) = collected(messages)
    assert event.clip is None and vehicle._spool.bytes == 0
    assert [m.state for m in messages if isinstance(m, CampaignReport)] == [ReportState.EXHAUSTED]


def test_what_is_recorded_ends_with_the_campaign(tmp_path: Path) -> None:
    ends = START_NS + 33 * PERIOD_NS
    vehicle = agent(tmp_path, campaign(post_s=5.0, expires_ns=ends))
    (event,) = collected(drive(vehicle))
    assert event.clip is not None and event.clip.end_ns < ends


def test_conditions_see_scores_and_takeovers(tmp_path: Path) -> None:
    vehicle = agent(tmp_path, campaign(expression="takeover && cause == 'stop_sign' && engaged == false"))
    frames = [frame(i, engaged=i < 30, takeover_cause="stop_sign" if i == 30 else "") for i in range(60)]
    frames = [with_fields(f, images=seen(0).images, cameras=seen(0).cameras) for f in frames]
    (event,) = collected([m for f in frames for m in vehicle.observe(f)])
    assert event.time_ns == START_NS + 30 * PERIOD_NS
