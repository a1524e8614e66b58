"""Collection campaigns: what vehicles are asked to look out for, and what they answer. Data only: a campaign
collects clips, it never changes what a vehicle runs.

waiting -> approved -> active -> expired; killed from anywhere before. The topic is compacted by campaign: its
newest record is what stands, and `heard` is the one law by which vehicles and streams read it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from streams.contracts.types import Count, Id, Name, Text, TimeNs

MAX_EXPRESSION = 1000
"""Characters of a condition: with no loops in it, also the bound on what it costs."""
CAUSE = "campaign/"


class CampaignState(StrEnum):
    """How far a campaign got; expired and killed are final."""

    WAITING = "waiting"
    APPROVED = "approved"
    ACTIVE = "active"
    EXPIRED = "expired"
    KILLED = "killed"


class Edge(StrEnum):
    """When a condition fires: as it becomes true, or for as long as it is (both within the minimum interval)."""

    RISING = "rising"
    ALWAYS = "always"


FINAL = frozenset({CampaignState.EXPIRED, CampaignState.KILLED})
APPROVED = frozenset({CampaignState.APPROVED, CampaignState.ACTIVE})
MOVES: dict[CampaignState, frozenset[CampaignState]] = {
    CampaignState.WAITING: APPROVED | FINAL,
    CampaignState.APPROVED: frozenset({CampaignState.ACTIVE}) | FINAL,
    CampaignState.ACTIVE: FINAL,
    CampaignState.EXPIRED: frozenset(),
    CampaignState.KILLED: frozenset(),
}
"""State -> states it may move on to, whatever lay between (a compacted topic keeps the last record only)."""


class Campaign(Struct, frozen=True, tag="fleetwheel.campaign.v1", tag_field="type"):
    """A collection campaign as it stands. Goes down to vehicles: no personal data.

    What it asks for never changes under one id; only state, revision, time, approval and reason do.
    """

    campaign_id: Id
    time_ns: TimeNs
    """Of this state."""
    revision: Count
    """Grows with every change of state."""
    state: CampaignState
    expression: Annotated[str, Meta(min_length=1, max_length=MAX_EXPRESSION)]
    """When to collect: a boolean in CEL over VSS signals and the vehicle's own scores
    (edge.agent.expressions)."""
    start_ns: TimeNs
    expires_ns: TimeNs
    """Vehicles stop by themselves then, online or not."""
    origin: Name
    """Who wrote it: a person's name, or "coverage"."""
    approved_by: Name = ""
    """A person or "policy: ...". Without, nothing is collected."""
    edge: Edge = Edge.RISING
    pre_s: Annotated[float, Meta(ge=0.0, le=10.0)] = 2.0
    post_s: Annotated[float, Meta(gt=0.0, le=30.0)] = 2.0
    priority: Count = 1
    """Higher goes first where a vehicle has more campaigns than it can look after."""
    sampling_probability: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0
    """Chance that an occurrence is kept; events carry it, so that counts can be weighted back."""
    min_interval_s: Annotated[float, Meta(ge=0.0, le=86_400.0)] = 30.0
    """Between two occurrences on one vehicle."""
    daily_bytes: Count = 50_000_000
    """Bound on the clips of one vehicle and UTC day."""
    cell: Name = ""
    """The ODD cell whose coverage debt it is to pay, where there is one."""
    reason: Text = ""


class ReportState(StrEnum):
    """What became of a campaign on a vehicle. "exhausted": its bytes of the day are used up, so that from here to
    midnight UTC nothing is collected, however often it occurs."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    EXHAUSTED = "exhausted"
    ENDED = "ended"


class CampaignReport(Struct, frozen=True, tag="fleetwheel.campaign-report.v1", tag_field="type"):
    """A vehicle's answer to a campaign: nothing is refused in silence."""

    campaign_id: Id
    vehicle: Id
    time_ns: TimeNs
    state: ReportState
    reason: Text = ""
    occurrences: Count = 0
    """So far, on this vehicle, whether the lot fell on them or not."""
    collected: Count = 0
    bytes: Count = 0


class BadMove(ValueError):
    """A campaign in this state cannot do that: says which state it is in."""


def problem(campaign: Campaign) -> str:
    """What is wrong with a campaign apart from its expression; "" if nothing is."""
    if campaign.expires_ns <= campaign.start_ns:
        return f"it expires at {campaign.expires_ns} ns, not after its start at {campaign.start_ns} ns"
    if campaign.state in APPROVED and not campaign.approved_by:
        return f"it is {campaign.state} and names nobody who approved it"
    return ""


def obeyed(campaign: Campaign, now_ns: int) -> bool:
    """Whether a vehicle collects for it now. Nothing else makes a vehicle collect."""
    approved = campaign.state in APPROVED and bool(campaign.approved_by)
    return approved and campaign.start_ns <= now_ns < campaign.expires_ns


def moved(campaign: Campaign, to: CampaignState, now_ns: int, by: str = "", reason: str = "") -> Campaign:
    """The campaign in its next state. Raises BadMove."""
    if to not in MOVES[campaign.state]:
        told = "already" if to == campaign.state else f"and cannot become {to} any more"
        raise BadMove(f"campaign {campaign.campaign_id} is {campaign.state} {told}")
    if to in APPROVED and not (by or campaign.approved_by):
        raise BadMove(f"campaign {campaign.campaign_id} is approved by somebody: say who")
    return replace(
        campaign,
        state=to,
        time_ns=now_ns,
        revision=campaign.revision + 1,
        approved_by=(by or campaign.approved_by) if to in APPROVED else campaign.approved_by,
        reason=reason or campaign.reason,
    )


def same_request(one: Campaign, other: Campaign) -> bool:
    """Whether both ask for the same, whatever their state."""
    return _asked(one) == _asked(other)


def heard(known: Campaign, new: Campaign) -> tuple[Campaign, bool]:
    """What stands once `new` was read, and whether it contradicts that: then whoever keeps the topic must say
    again what stands, as a reader who comes later finds `new` alone. A kill stands whatever its revision; a final
    state stays final; what was asked for does not change."""
    if new == known:
        return known, False
    if new.state is CampaignState.KILLED and known.state not in FINAL:
        contradicts = new.revision <= known.revision or not same_request(known, new)
        revision = max(known.revision, new.revision)
        return replace(
            known, state=new.state, revision=revision, time_ns=new.time_ns, reason=new.reason
        ), contradicts
    if new.revision < known.revision:
        return known, False
    moves = new.revision > known.revision and new.state in MOVES[known.state]
    if moves and same_request(known, new) and not problem(new):
        return new, False
    return known, True


def cause_of(campaign_id: str) -> str:
    """The cause of events and clips that a campaign brings in: no other cause has a slash."""
    return CAUSE + campaign_id


def campaign_of(cause: str) -> str:
    """The campaign that a cause names; "" for other causes."""
    return cause.removeprefix(CAUSE) if cause.startswith(CAUSE) else ""


def _asked(campaign: Campaign) -> Campaign:
    return replace(campaign, time_ns=0, revision=0, state=CampaignState.WAITING, approved_by="", reason="")
