"""Coverage: where the fleet has driven, what it owes, and the campaigns that are to pay. It keeps the campaigns of
people too: it lets them begin and expire, and says again what stands where somebody contradicts it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from streams.contracts.campaigns import (
    FINAL,
    Campaign,
    CampaignState,
    Edge,
    heard,
    moved,
    problem,
)
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message, message_id
from streams.contracts.drive import Exposure, Telemetry
from streams.contracts.ids import digest
from streams.debt import Debt, Driven, debts
from streams.dedup import Seen
from streams.stage import Emit, Outcome, Refused
from streams.state import unpack

HOUR_NS = 3600 * SECOND_NS
DAY_NS = 24 * HOUR_NS
ORIGIN = "coverage"
OTHER = "other"
"""Takes what is beyond the bounds of the table."""
_PLAIN = re.compile(r"[A-Za-z0-9_./-]{1,128}")
"""Cells that may stand in an expression: vehicles name them."""


@dataclass(frozen=True, slots=True)
class CoverageConfig:
    """When the stage looks, what it asks for, and what it may approve by itself."""

    look_ns: int = HOUR_NS
    """The debt is looked at when such a stretch of time ends."""
    recent_ns: int = DAY_NS
    """A model that nobody reported for so long does not drive any more."""
    prior_km: float = 50.0
    """Driving that the prior is worth."""
    quantile: float = 0.95
    least_km: float = 10.0
    """Engaged driving of the present model before anything is asked for."""
    least_part: float = 0.1
    """Of the whole debt: a cell of less gets no campaign."""
    open_campaigns: int = 3
    """Of this stage's own, at once."""
    clips: int = 100
    """Wanted of one campaign."""
    clip_bytes: int = 300_000
    """What one is expected to take."""
    lifetime_ns: int = 7 * DAY_NS
    rest_ns: int = DAY_NS
    """From the end of a cell's campaign to its next."""
    min_interval_s: float = 30.0
    daily_bytes: int = 3_000_000
    auto_vehicle_bytes: int = 25_000_000
    """Policy: approved without a person where no vehicle can be asked for more in the campaign's life, ..."""
    auto_fleet_bytes: int = 100_000_000
    """... and no more is expected of the whole fleet. 0: a person approves each."""
    max_cells: int = 4096
    max_versions: int = 32
    max_campaigns: int = 1000
    seen_ids: int = 400_000

    def __post_init__(self) -> None:
        if not 0.5 <= self.quantile < 1 or self.prior_km <= 0 or self.look_ns <= 0:
            raise ValueError("quantile must lie in [0.5, 1), prior_km and look_ns above 0")


class Tally(msgspec.Struct, frozen=True):
    """Driving in one cell with one model: whole millimetres and milliseconds, so that sums do not depend on the
    order in which reports came."""

    engaged_mm: int = 0
    engaged_ms: int = 0
    manual_mm: int = 0
    manual_ms: int = 0
    disengagements: int = 0

    def plus(self, e: Exposure) -> Tally:
        """With a report's exposure."""
        return Tally(
            self.engaged_mm + round(e.engaged_m * 1000),
            self.engaged_ms + round(e.engaged_s * 1000),
            self.manual_mm + round(e.manual_m * 1000),
            self.manual_ms + round(e.manual_s * 1000),
            self.disengagements + sum(e.disengagements.values()),
        )


Table = dict[str, dict[str, Tally]]
"""Cell -> model version -> what was driven."""


class CoverageState(msgspec.Struct, frozen=True):
    """The exposure table, when each model was heard of, and the campaigns as they stand."""

    seen: Seen
    table: Table = {}
    heard_ns: dict[str, int] = {}
    """Model version -> time of its newest report."""
    from_ns: int = 2**63 - 1
    to_ns: int = 0
    """What the reports span."""
    campaigns: dict[str, Campaign] = {}
    read: Seen = Seen(30 * DAY_NS, 20_000)
    """Records of campaigns that were taken into account."""
    look: int = -1
    """Number of the stretch of time it is in; -1 before the first step."""


class Coverage:
    """fleet.telemetry + fleet.campaigns -> fleet.campaigns."""

    name = "coverage"

    def __init__(self, config: CoverageConfig | None = None) -> None:
        self.config = config or CoverageConfig()

    def initial(self) -> CoverageState:
        """Nothing driven."""
        return CoverageState(Seen(2 * DAY_NS, self.config.seen_ids))

    def step(self, state: CoverageState, batch: Sequence[Message], now_ns: int) -> Outcome[CoverageState]:
        """Let time pass, look at the debt if it is time, then take the batch in."""
        campaigns = _Campaigns(state.campaigns, state.read, now_ns)
        campaigns.let_time_pass(self.config.rest_ns)
        look = now_ns // self.config.look_ns
        if 0 <= state.look < look:
            for wanted in self._ask(state, campaigns.standing, now_ns):
                campaigns.put(wanted)
        for message in batch:
            if isinstance(message, Campaign):
                campaigns.hear(message, self.config.max_campaigns)
        state = self._drove(state, [m for m in batch if isinstance(m, Telemetry)], now_ns)
        read = state.read.remember(campaigns.read, now_ns)
        state = replace(state, campaigns=campaigns.standing, read=read, look=max(look, state.look))
        return Outcome(state, tuple(campaigns.emits), tuple(campaigns.refused))

    def load(self, data: bytes) -> CoverageState:
        """Raises StateUnreadable."""
        return unpack(data, CoverageState)

    def debts(self, state: CoverageState) -> list[Debt]:
        """Of every cell, the largest first."""
        version = self.version(state)
        driven = {cell: _driven(by_version, version) for cell, by_version in state.table.items()}
        return debts(driven, self.config.prior_km, self.config.quantile)

    def version(self, state: CoverageState) -> str:
        """The model that drives now: of those heard of lately, the one that drove most."""
        lately = max(state.heard_ns.values(), default=0) - self.config.recent_ns
        engaged: dict[str, int] = {v: 0 for v, at in state.heard_ns.items() if at >= lately}
        for by_version in state.table.values():
            for version, tally in by_version.items():
                if version in engaged:
                    engaged[version] += tally.engaged_mm
        return max(engaged, key=lambda v: (engaged[v], v), default="")

    def _drove(self, state: CoverageState, reports: Sequence[Telemetry], now_ns: int) -> CoverageState:
        """Adds what these tell, each report once."""
        new: dict[str, Telemetry] = {}
        for told in reports:
            if told.event_id not in state.seen:
                new.setdefault(told.event_id, told)
        table, heard_ns = dict(state.table), dict(state.heard_ns)
        touched: set[str] = set()
        for report in new.values():
            version = (
                report.model_version if _fits(report.model_version, heard_ns, self.config.max_versions) else OTHER
            )
            heard_ns[version] = max(heard_ns.get(version, 0), report.time_ns)
            for exposure in report.exposures:
                cell = exposure.cell if _fits(exposure.cell, table, self.config.max_cells) else OTHER
                if cell not in touched:
                    table[cell] = dict(table.get(cell, {}))
                    touched.add(cell)
                table[cell][version] = table[cell].get(version, Tally()).plus(exposure)
        times = [t.time_ns for t in new.values()]
        return replace(
            state,
            seen=state.seen.remember(dict.fromkeys(new, 0), now_ns),
            table=table,
            heard_ns=heard_ns,
            from_ns=min([state.from_ns, *times]),
            to_ns=max([state.to_ns, *times]),
        )

    def _ask(self, state: CoverageState, standing: dict[str, Campaign], now_ns: int) -> list[Campaign]:
        """New campaigns for the cells that owe most and have none."""
        ranked = self.debts(state)
        if sum(d.driven.engaged_km for d in ranked) < self.config.least_km:
            return []
        ours = [c for c in standing.values() if c.origin == ORIGIN]
        places = self.config.open_campaigns - sum(c.state not in FINAL for c in ours)
        served = {c.cell for c in ours}
        owing = [d for d in ranked if d.part >= self.config.least_part and d.cell not in served]
        owing = [d for d in owing if d.cell != OTHER and _PLAIN.fullmatch(d.cell)]
        return [self._campaign(state, debt, now_ns) for debt in owing[: max(places, 0)]]

    def _campaign(self, state: CoverageState, debt: Debt, now_ns: int) -> Campaign:
        """To sample the driving in a cell: about so many clips in its life, if the fleet drives on as it did."""
        config = self.config
        campaign = Campaign(
            campaign_id=f"coverage-{digest('coverage', debt.cell, str(now_ns // config.look_ns))[:12]}",
            time_ns=now_ns,
            revision=0,
            state=CampaignState.WAITING,
            expression=f"cell == '{debt.cell}'",
            start_ns=now_ns,
            expires_ns=now_ns + config.lifetime_ns,
            origin=ORIGIN,
            edge=Edge.ALWAYS,
            sampling_probability=self._probability(state, debt.cell),
            min_interval_s=config.min_interval_s,
            daily_bytes=config.daily_bytes,
            cell=debt.cell,
            reason=_told(debt),
        )
        policy = self._policy()
        return moved(campaign, CampaignState.APPROVED, now_ns, policy) if policy else campaign

    def _probability(self, state: CoverageState, cell: str) -> float:
        """Clips wanted over the occurrences to expect, of which a vehicle has one an interval."""
        driven_s = sum(t.engaged_ms + t.manual_ms for t in state.table[cell].values()) / 1000
        lives = self.config.lifetime_ns / max(state.to_ns - state.from_ns, HOUR_NS)
        occurrences = driven_s * lives / max(self.config.min_interval_s, 1.0)
        return min(1.0, max(1e-4, round(self.config.clips / max(occurrences, 1.0), 4)))

    def _policy(self) -> str:
        """Who approves a campaign of this stage; "" where a person must."""
        config = self.config
        days = -(-config.lifetime_ns // DAY_NS) + 1  # a life may touch one more UTC day
        vehicle_bytes, fleet_bytes = config.daily_bytes * days, config.clips * config.clip_bytes
        small = vehicle_bytes <= config.auto_vehicle_bytes and fleet_bytes <= config.auto_fleet_bytes
        if not small:
            return ""
        return f"policy: at most {vehicle_bytes} bytes of a vehicle, about {fleet_bytes} of the fleet"


class _Campaigns:
    """The campaigns as they stand while one batch is taken in, and what is to be said of them."""

    def __init__(self, standing: dict[str, Campaign], read: Seen, now_ns: int) -> None:
        self.standing, self._read, self._now_ns = dict(standing), read, now_ns
        self.read: dict[str, int] = {}
        self.emits: list[Emit] = []
        self.refused: list[Refused] = []

    def put(self, campaign: Campaign) -> None:
        """A campaign stands, and as far as time has brought it."""
        self.standing[campaign.campaign_id] = campaign
        self.read[message_id(campaign)] = 0
        self.emits.append(Emit("fleet.campaigns", campaign))
        self._bring_forward(campaign)

    def let_time_pass(self, rest_ns: int) -> None:
        """Begin and end what is due; forget those that ended long ago."""
        for name in sorted(self.standing):
            campaign = self.standing[name]
            self._bring_forward(campaign)
            ended_ns = max(campaign.time_ns, campaign.expires_ns)
            if campaign.state in FINAL and self._now_ns >= ended_ns + rest_ns:
                del self.standing[name]

    def hear(self, new: Campaign, limit: int) -> None:
        """What somebody put on the topic. What we put there ourselves, or read before, is nothing new."""
        name = message_id(new)
        if name in self.read or name in self._read:
            return
        self.read[name] = 0
        known = self.standing.get(new.campaign_id)
        if known is None:
            self._begin(new, limit)
            return
        stands, contradicts = heard(known, new)
        self.standing[new.campaign_id] = stands
        if contradicts or stands.revision > new.revision:
            why = f"stands, whatever revision {new.revision} says; {stands.reason}"
            revision = max(stands.revision, new.revision) + 1
            # The topic keeps the last record only: it must be what stands.
            self.put(replace(stands, revision=revision, time_ns=self._now_ns, reason=why[:2000]))
        else:
            self._bring_forward(stands)

    def _begin(self, new: Campaign, limit: int) -> None:
        wrong = problem(new)
        if not wrong and len(self.standing) >= limit:
            wrong = f"{limit} campaigns stand already: kill some"
        if wrong:
            self.refused.append(Refused(new, "no-campaign", f"campaign {new.campaign_id}: {wrong}"))
            return
        self.standing[new.campaign_id] = new
        self._bring_forward(new)

    def _bring_forward(self, campaign: Campaign) -> None:
        if campaign.state in FINAL:
            return
        if self._now_ns >= campaign.expires_ns:
            self.put(moved(campaign, CampaignState.EXPIRED, self._now_ns))
        elif campaign.state is CampaignState.APPROVED and self._now_ns >= campaign.start_ns:
            self.put(moved(campaign, CampaignState.ACTIVE, self._now_ns))


def _fits(name: str, known: Iterable[str], limit: int) -> bool:
    """Whether a name has a row of its own."""
    names = known if isinstance(known, dict) else set(known)
    return name in names or len(names) < limit


def _driven(by_version: dict[str, Tally], version: str) -> Driven:
    now = by_version.get(version, Tally())
    mm = sum(t.engaged_mm + t.manual_mm for t in by_version.values())
    return Driven(mm / 1e6, now.engaged_mm / 1e6, now.disengagements)


def _told(debt: Debt) -> str:
    return (
        f"{debt.part:.0%} of the coverage debt: {debt.share:.1%} of the km, {debt.driven.disengagements} "
        f"disengagements in {debt.driven.engaged_km:.1f} km, {debt.rate_per_km:.3f} per km expected, up to "
        f"{debt.upper_per_km:.3f}"
    )
