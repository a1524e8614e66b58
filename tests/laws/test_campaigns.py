"""Campaigns: whatever comes in whatever order, a killed, expired or unapproved one never collects."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from edge.agent.campaigns import Campaigns
from edge.agent.expressions import values_of
from streams.contracts.campaigns import (
    APPROVED,
    FINAL,
    MOVES,
    BadMove,
    Campaign,
    CampaignState,
    Edge,
    campaign_of,
    cause_of,
    heard,
    moved,
    obeyed,
    problem,
)
from streams.contracts.clock import SECOND_NS
from tests.samples import T0, campaign

STATES = tuple(CampaignState)
FIRST = campaign(state=CampaignState.WAITING, revision=0, expression="true", edge=Edge.ALWAYS, min_interval_s=0.0)
LATER = FIRST.expires_ns - T0


def versions() -> st.SearchStrategy[Campaign]:
    """Any record that somebody could put on the topic under one id."""
    return st.builds(
        lambda state, revision, by, text: replace(
            FIRST, state=state, revision=revision, approved_by=by, expression=text
        ),
        st.sampled_from(STATES),
        st.integers(0, 4),
        st.sampled_from(["", "ada"]),
        st.sampled_from(["true", "true", "true", "1.0 > 0.0"]),
    )


@given(st.sampled_from(STATES), st.sampled_from(STATES), st.sampled_from(["", "ada"]))
def test_a_move_is_in_the_table_or_refused(now: CampaignState, to: CampaignState, by: str) -> None:
    start = replace(FIRST, state=now, approved_by="bob" if now in APPROVED else "")
    if to not in MOVES[now] or (to in APPROVED and not (by or start.approved_by)):
        with pytest.raises(BadMove, match="night-fog"):
            moved(start, to, T0, by)
        return
    after = moved(start, to, T0 + 1, by)
    assert (after.state, after.revision, after.time_ns) == (to, start.revision + 1, T0 + 1)
    assert heard(start, after) == (after, False)
    assert problem(after) == ""


@given(versions(), versions())
def test_a_final_state_stays_and_a_kill_always_stands(known: Campaign, new: Campaign) -> None:
    stands, contradicts = heard(known, new)
    if known.state in FINAL:
        assert stands == known
    elif new.state is CampaignState.KILLED:
        assert stands.state is CampaignState.KILLED
    assert stands.expression == known.expression
    assert heard(stands, stands) == (stands, False)
    if stands == known and new != known and new.revision >= known.revision:
        assert contradicts


@given(st.lists(versions(), max_size=6), st.integers(-5, 5))
def test_only_what_was_approved_is_obeyed_and_only_in_its_time(told: list[Campaign], around_s: int) -> None:
    stands = FIRST
    for one in told:
        stands = heard(stands, one)[0]
    for now_ns in (FIRST.start_ns + around_s * SECOND_NS, FIRST.expires_ns + around_s * SECOND_NS):
        if obeyed(stands, now_ns):
            assert stands.state in APPROVED and stands.approved_by
            assert FIRST.start_ns <= now_ns < FIRST.expires_ns


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True))
def test_a_cause_names_its_campaign_and_no_other_does(name: str) -> None:
    assert campaign_of(cause_of(name)) == name
    assert campaign_of(name) == ""


class VehicleMachine(RuleBasedStateMachine):
    """A vehicle, what it was told, the clock, restarts by its file; beside it the plain truth."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = T0
        self.killed = self.ended = self.approved = False
        self.stands = FIRST
        self.folder = tempfile.TemporaryDirectory()
        self.vehicle = Campaigns("v1", Path(self.folder.name), durable=False)

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule()
    def it_restarts(self) -> None:
        self.vehicle = Campaigns("v1", Path(self.folder.name), durable=False)

    @rule(to=st.sampled_from(STATES), by=st.sampled_from(["", "ada"]))
    def person_or_policy_moves_it(self, to: CampaignState, by: str) -> None:
        try:
            self.stands = moved(self.stands, to, self.now_ns, by)
        except BadMove:
            return
        self._hear(self.stands)

    @rule(old=versions())
    def anything_else_comes(self, old: Campaign) -> None:
        self._hear(old)

    @rule(seconds=st.integers(1, 3 * 24 * 3600))
    def time_passes(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND_NS

    @rule()
    def the_drive_ends(self) -> None:
        self.vehicle.end_drive()

    def _hear(self, message: Campaign) -> None:
        self.vehicle.receive(message, self.now_ns)
        self.killed |= message.state is CampaignState.KILLED
        self.approved |= message.state in APPROVED and bool(message.approved_by)

    @invariant()
    def collects_only_what_it_may(self) -> None:
        self.now_ns += 60 * SECOND_NS
        fired = self.vehicle.watch(values_of({}, "gb", {}), self.now_ns)
        if fired:
            assert not self.killed, "after a kill"
            assert self.approved, "without approval"
            assert FIRST.start_ns <= self.now_ns < FIRST.expires_ns, "out of its time"
        self.vehicle.take_reports()


VehicleMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestVehicle = VehicleMachine.TestCase
