"""Collection campaigns on the vehicle: which it accepted, when they occur, what they may still take today.

`occurs`, `drawn` and `room` decide and are pure; `Campaigns` keeps what outlives a drive in one small file. A
campaign that is not approved, not begun, expired or killed collects nothing: `obeyed` is asked at every frame.

Cost: at most MAX_CAMPAIGNS conditions a frame, together within FRAME_BUDGET_S at 10 Hz (2 % of one core); measured
in tests/benchmarks/test_campaign_cost.py.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from edge.agent.expressions import BadExpression, Expression, Value
from edge.agent.files import write_atomic
from streams.contracts.campaigns import (
    FINAL,
    Campaign,
    CampaignReport,
    CampaignState,
    Edge,
    ReportState,
    heard,
    obeyed,
    problem,
)
from streams.contracts.clock import SECOND_NS
from streams.contracts.ids import bucket

log = logging.getLogger(__name__)
MAX_CAMPAIGNS = 16
"""That one vehicle looks after; of more, those of highest priority."""
FRAME_BUDGET_S = 0.002
MAX_REMEMBERED = 256
"""Ended campaigns whose end is remembered, so that an old message does not begin them again."""
MAX_CLIPS = 256
"""Clips of one campaign that a kill takes back out of the spool."""
DAY_NS = 24 * 3600 * SECOND_NS


class Watch(msgspec.Struct, frozen=True):
    """A campaign and what this vehicle remembers of it."""

    campaign: Campaign
    ready: bool = True
    """May fire on a rising edge."""
    occurred_ns: int = -1
    occurrences: int = 0
    collected: int = 0
    bytes: int = 0
    day: int = -1
    day_bytes: int = 0
    exhausted_day: int = -1
    clips: tuple[str, ...] = ()
    """Those it brought in, newest last."""
    ended: bool = False
    """Not looked after any more, whatever its state."""


def occurs(watch: Watch, holds: bool | None, now_ns: int) -> tuple[Watch, bool]:
    """Whether the condition occurs now, and what to remember. Undecided changes nothing; an occurrence needs the
    minimum interval since the last one, and its window closed. Whether the lot falls on it is not asked here, so
    that every occurrence has the same chance."""
    campaign = watch.campaign
    if holds is None:
        return watch, False
    if not holds:
        return (watch if watch.ready else replace(watch, ready=True)), False
    fires = watch.ready or campaign.edge is Edge.ALWAYS
    apart_ns = int(max(campaign.min_interval_s, campaign.pre_s + campaign.post_s) * SECOND_NS)
    if not fires or 0 <= watch.occurred_ns > now_ns - apart_ns:
        return (replace(watch, ready=False) if watch.ready else watch), False
    return replace(watch, ready=False, occurred_ns=now_ns, occurrences=watch.occurrences + 1), True


def drawn(campaign: Campaign, vehicle: str, now_ns: int) -> bool:
    """Whether the lot falls on an occurrence: fixed by campaign, vehicle and instant, so that a replay draws
    alike."""
    return bucket(f"campaign/{campaign.campaign_id}/{vehicle}", str(now_ns)) < campaign.sampling_probability


def room(watch: Watch, now_ns: int) -> int:
    """Bytes that the campaign may still take on this UTC day."""
    return watch.campaign.daily_bytes - (watch.day_bytes if watch.day == now_ns // DAY_NS else 0)


class Campaigns:
    """All campaigns of one vehicle. Nothing here raises for a message that passed the codec."""

    def __init__(self, vehicle: str, folder: Path | None = None, durable: bool = True) -> None:
        """Goes on with what `folder` remembers; None: nothing outlives this object. Raises OSError where the
        folder cannot be read."""
        self._vehicle, self._durable = vehicle, durable
        self._file = folder / "campaigns.json" if folder else None
        self._watches: dict[str, Watch] = {w.campaign.campaign_id: w for w in _read(self._file)}
        self._conditions: dict[str, Expression] = {}
        self._reports: list[CampaignReport] = []
        for name in [n for n, w in self._watches.items() if not w.ended]:
            self._conditions[name] = Expression(self._watches[name].campaign.expression)

    def receive(self, campaign: Campaign, now_ns: int) -> tuple[str, ...]:
        """Takes note of a campaign as it stands now; the clips to give up, if it was killed."""
        known = self._watches.get(campaign.campaign_id)
        if known is not None:
            return self._changed(known, heard(known.campaign, campaign)[0], now_ns)
        if campaign.state in FINAL:
            self._keep(Watch(campaign, ended=True))
        elif campaign.state is not CampaignState.WAITING and now_ns < campaign.expires_ns:
            self._accept(campaign, now_ns)
        self._save()
        return ()

    def watch(self, values: Mapping[str, Value], now_ns: int) -> list[Campaign]:
        """The campaigns to collect for at this instant. Call it once a frame, in order of time."""
        fired = []
        for name, condition in list(self._conditions.items()):
            known = self._watches[name]
            if now_ns >= known.campaign.expires_ns:
                self._end(known, "it expired", now_ns)
            elif obeyed(known.campaign, now_ns):
                self._watches[name], occurred = occurs(known, condition.holds(values), now_ns)
                if occurred and self._has_room(name, now_ns) and drawn(known.campaign, self._vehicle, now_ns):
                    fired.append(known.campaign)
        return fired

    def spend(self, campaign_id: str, clip_id: str, size: int, now_ns: int) -> bool:
        """Books a clip of `size` bytes; False: it is more than the day has left, and must not be kept, nor is
        anything else collected on this day. Also False for a campaign that ended meanwhile."""
        known = self._watches.get(campaign_id)
        if known is None or known.campaign.state is CampaignState.KILLED:
            return False
        day, left = now_ns // DAY_NS, room(known, now_ns)
        spent = known.campaign.daily_bytes - left + min(size, left)
        known = replace(known, day=day, day_bytes=known.campaign.daily_bytes if size > left else spent)
        if size <= left:
            clips = (*known.clips, clip_id)[-MAX_CLIPS:]
            known = replace(known, collected=known.collected + 1, bytes=known.bytes + size, clips=clips)
        self._watches[campaign_id] = known
        self._has_room(campaign_id, now_ns)
        self._save()
        return size <= left

    def end_drive(self) -> None:
        """The next frame stands alone: whatever holds then has risen."""
        self._watches = {n: replace(w, ready=True) for n, w in self._watches.items()}

    def take_reports(self) -> list[CampaignReport]:
        """What is to be told since the last call."""
        taken, self._reports = self._reports, []
        return taken

    @property
    def longest_pre_s(self) -> float:
        """What the ring must hold before an instant."""
        return max((self._watches[n].campaign.pre_s for n in self._conditions), default=0.0)

    @property
    def active(self) -> tuple[str, ...]:
        """The campaigns that are looked after, by name."""
        return tuple(sorted(self._conditions))

    def _accept(self, campaign: Campaign, now_ns: int) -> None:
        """Checks a new campaign as if nobody had: refused with a reason, or looked after from the next frame."""
        watch = Watch(campaign)
        refused = problem(campaign)
        try:
            condition = Expression(campaign.expression)
        except BadExpression as error:
            refused = f"its expression: {error}"
        if not refused and not self._make_room(campaign, now_ns):
            refused = f"this vehicle looks after {MAX_CAMPAIGNS} campaigns of no lower priority"
        if refused:
            self._report(watch, ReportState.REFUSED, refused, now_ns)
            return
        self._conditions[campaign.campaign_id] = condition
        self._keep(watch)
        self._report(watch, ReportState.ACCEPTED, "", now_ns)

    def _changed(self, known: Watch, stands: Campaign, now_ns: int) -> tuple[str, ...]:
        if stands == known.campaign:
            return ()
        known = replace(known, campaign=stands)
        self._watches[stands.campaign_id] = known
        if stands.state in FINAL and stands.campaign_id in self._conditions:
            self._end(known, f"it was {stands.state}", now_ns)
        self._save()
        return known.clips if stands.state is CampaignState.KILLED else ()

    def _make_room(self, campaign: Campaign, now_ns: int) -> bool:
        """Gives up the campaign of lowest priority for one of higher."""
        if len(self._conditions) < MAX_CAMPAIGNS:
            return True
        watches = [self._watches[n] for n in self._conditions]
        lowest = min(watches, key=lambda w: (w.campaign.priority, w.campaign.campaign_id))
        if lowest.campaign.priority >= campaign.priority:
            return False
        self._end(lowest, f"{campaign.campaign_id} of higher priority took its place", now_ns)
        return True

    def _end(self, watch: Watch, reason: str, now_ns: int) -> None:
        name = watch.campaign.campaign_id
        self._conditions.pop(name, None)
        self._watches[name] = replace(watch, ended=True)
        self._save()
        self._report(watch, ReportState.ENDED, reason, now_ns)

    def _has_room(self, name: str, now_ns: int) -> bool:
        """Whether the day has bytes left; that it has none is told once a day."""
        watch, day = self._watches[name], now_ns // DAY_NS
        if room(watch, now_ns) > 0:
            return True
        if watch.exhausted_day != day:
            self._watches[name] = watch = replace(watch, exhausted_day=day)
            used = f"{watch.campaign.daily_bytes} bytes of the day are used up"
            self._report(watch, ReportState.EXHAUSTED, used, now_ns)
        return False

    def _keep(self, watch: Watch) -> None:
        """Remembers it; of those that ended, the newest."""
        self._watches[watch.campaign.campaign_id] = watch
        ended = [n for n, w in self._watches.items() if w.ended and n != watch.campaign.campaign_id]
        for name in ended[: max(0, len(ended) - MAX_REMEMBERED)]:
            del self._watches[name]

    def _report(self, watch: Watch, state: ReportState, reason: str, now_ns: int) -> None:
        campaign = watch.campaign
        log.info("campaign %s is %s: %s", campaign.campaign_id, state, reason)
        self._reports.append(
            CampaignReport(
                campaign.campaign_id,
                self._vehicle,
                now_ns,
                state,
                reason[:2000],
                watch.occurrences,
                watch.collected,
                watch.bytes,
            )
        )

    def _save(self) -> None:
        """A full disk costs the memory of this moment, not the drive."""
        if self._file is None:
            return
        try:
            write_atomic(self._file, msgspec.json.encode(list(self._watches.values())), self._durable)
        except OSError as error:
            log.warning("campaigns are not kept over a restart: %s", error)


def _read(path: Path | None) -> list[Watch]:
    """What was kept; nothing where the file is damaged: campaigns come again with their topic."""
    if path is None or not path.exists():
        return []
    try:
        watches = msgspec.json.decode(path.read_bytes(), type=list[Watch])
        for watch in watches:
            Expression(watch.campaign.expression)
        return watches
    except (msgspec.MsgspecError, UnicodeDecodeError, BadExpression) as error:
        log.warning("%s is damaged (%s): campaigns are taken anew", path, error)
        return []
