"""`fleet campaigns`: what vehicles are asked to look out for. Words are read here, decisions are made in
streams/contracts/campaigns.py and edge/agent/expressions.py."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import msgspec
import typer

from edge.agent.expressions import FLAGS, FUNCTIONS, SCORES, SIGNALS, TEXTS, BadExpression, check_expression
from fleet.dry_run import recorded
from fleet.times import utc
from streams.contracts.campaigns import Campaign, CampaignState, heard, moved, problem
from streams.contracts.clock import SECOND_NS, SystemClock
from streams.contracts.codec import Rejected, decode
from streams.contracts.drive import Telemetry
from streams.coverage import Coverage
from streams.transport.base import Record
from streams.transport.kafka import KafkaConfig, KafkaTransport
from streams.transport.messages import send

TOPIC = "fleet.campaigns"
Kind = TypeVar("Kind")


class NoSuchCampaign(ValueError):
    """Nobody wrote a campaign of that name."""


class BadCampaign(ValueError):
    """This campaign cannot be written: says why."""


class Source:
    """Where campaigns are read: a broker or a file."""

    def __init__(self, broker: str | None, prefix: str, file: Path | None) -> None:
        self.broker, self.prefix, self.file = broker, prefix, file

    def records(self, topic: str) -> Iterable[Record]:
        """Raises NoInput, ConnectionFailed, BadRecording, OSError."""
        return recorded(self.file, self.broker, self.prefix, (topic,), "", "")

    def campaigns(self) -> dict[str, Campaign]:
        """As they stand, by name."""
        standing: dict[str, Campaign] = {}
        for message in messages_of(self.records(TOPIC), Campaign):
            known = standing.get(message.campaign_id)
            standing[message.campaign_id] = heard(known, message)[0] if known else message
        return standing

    def campaign(self, name: str) -> Campaign:
        """One of them. Raises NoSuchCampaign."""
        found = self.campaigns()
        if name not in found:
            known = ", ".join(sorted(found)) or "none yet"
            raise NoSuchCampaign(f"no campaign {name!r}; there are: {known}")
        return found[name]


def print_campaigns(source: Source, *, as_json: bool) -> None:
    """One line each, those that collect first."""
    order = list(CampaignState)
    rows = sorted(source.campaigns().values(), key=lambda c: (-(order.index(c.state) % 3), c.campaign_id))
    if as_json:
        typer.echo(json.dumps([msgspec.to_builtins(c) for c in rows]))
        return
    typer.echo(f"{'campaign':24} {'state':9} {'chance':>7} {'expires':20} {'approved by':12}  condition")
    for c in rows:
        by = c.approved_by.partition(":")[0] or "-"
        told = f"{c.sampling_probability:7.4g} {utc(c.expires_ns):20} {by[:12]:12}  {c.expression}"
        typer.echo(f"{c.campaign_id:24} {c.state:9} {told}")
    typer.echo(f"{len(rows)} campaigns")


def print_campaign(source: Source, name: str) -> None:
    """One whole, as JSON. Raises NoSuchCampaign."""
    typer.echo(json.dumps(msgspec.to_builtins(source.campaign(name)), indent=1))


def create_campaign(source: Source, campaign: Campaign, *, as_json: bool) -> None:
    """Write a new campaign, waiting. Raises BadExpression, BadCampaign where its name is taken or it is none."""
    check_expression(campaign.expression)
    if wrong := problem(campaign):
        raise BadCampaign(f"campaign {campaign.campaign_id}: {wrong}")
    if campaign.campaign_id in source.campaigns():
        raise BadCampaign(
            f"campaign {campaign.campaign_id} exists: what it asks for never changes; take a new name"
        )
    _publish(source, campaign, as_json=as_json)


def move_campaign(source: Source, name: str, to: CampaignState, by: str, reason: str, *, as_json: bool) -> None:
    """Approve or kill. Raises NoSuchCampaign, BadMove."""
    known = source.campaign(name)
    told = f"{to} by {by}{': ' if reason else ''}{reason}" if to is CampaignState.KILLED else reason
    _publish(source, moved(known, to, SystemClock().now_ns(), by, told), as_json=as_json)


def new_campaign(name: str, expression: str, by: str, days: float, **fields: object) -> Campaign:
    """A waiting campaign from now on, its bounds checked. Raises BadCampaign."""
    now_ns = SystemClock().now_ns()
    built: dict[str, object] = {
        "campaign_id": name,
        "time_ns": now_ns,
        "revision": 0,
        "state": CampaignState.WAITING,
        "expression": expression,
        "start_ns": now_ns,
        "expires_ns": now_ns + round(days * 86_400 * SECOND_NS),
        "origin": by,
    }
    try:
        return msgspec.convert({**built, **fields, "type": "fleetwheel.campaign.v1"}, Campaign)
    except msgspec.ValidationError as error:
        raise BadCampaign(f"campaign {name!r}: {error}") from error


def print_check(expression: str, *, as_json: bool) -> int:
    """Whether vehicles would accept a condition; the exit status."""
    try:
        check_expression(expression)
        reason = ""
    except BadExpression as error:
        reason = str(error)
    if as_json:
        typer.echo(json.dumps({"expression": expression, "accepted": not reason, "reason": reason}))
    else:
        typer.echo(f"vehicles would refuse it: {reason}" if reason else "vehicles would accept it")
    return 1 if reason else 0


def print_names(*, as_json: bool) -> None:
    """What a condition may name."""
    tables = {"number (VSS)": SIGNALS, "number": SCORES, "true or false": FLAGS, "text": TEXTS}
    if as_json:
        typer.echo(json.dumps({"names": tables, "functions": sorted(FUNCTIONS)}))
        return
    for kind, names in tables.items():
        for name, meaning in names.items():
            typer.echo(f"{name:54} {kind:14} {meaning}")
    typer.echo(f"functions: {', '.join(sorted(FUNCTIONS))}; numbers have a decimal point: 30.0")


def print_debt(source: Source, *, as_json: bool) -> None:
    """The exposure table and what each cell owes."""
    stage = Coverage()
    state = stage.initial()
    for report in messages_of(source.records("fleet.telemetry"), Telemetry):
        state = stage.step(state, [report], 0).state
    ranked = stage.debts(state)
    if as_json:
        exposure = msgspec.to_builtins(state.table)
        debts = [asdict(d) for d in ranked]
        typer.echo(json.dumps({"model_version": stage.version(state), "debts": debts, "exposure": exposure}))
        return
    typer.echo(f"{'cell':34} {'km':>9} {'engaged':>9} {'diseng.':>7} {'per km':>7} {'up to':>7} {'debt':>6}")
    for d in ranked:
        km = f"{d.driven.km:9.1f} {d.driven.engaged_km:9.1f} {d.driven.disengagements:7}"
        typer.echo(f"{d.cell:34} {km} {d.rate_per_km:7.3f} {d.upper_per_km:7.3f} {d.part:6.1%}")
    typer.echo(f"{len(ranked)} cells; engaged and disengagements of model {stage.version(state) or 'none'}")


def _publish(source: Source, campaign: Campaign, *, as_json: bool) -> None:
    assert source.broker is not None, "the command asks for --kafka"
    transport = KafkaTransport(KafkaConfig(source.broker, prefix=source.prefix))
    send(transport, TOPIC, campaign, "fleetwheel/campaigns")
    transport.close()
    if as_json:
        typer.echo(json.dumps(msgspec.to_builtins(campaign)))
    else:
        typer.echo(f"campaign {campaign.campaign_id} is {campaign.state}")


def messages_of(records: Iterable[Record], kind: type[Kind]) -> Iterator[Kind]:
    """The messages of a type; what is no message is passed over, as engines report it."""
    for record in records:
        try:
            message = decode(record.headers, record.value, record.time_ns or SystemClock().now_ns())
        except Rejected:
            continue
        if isinstance(message, kind):
            yield message
