"""Commands of `fleet campaigns` and `fleet replay`. They read their words, call one function and print what it
returns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.operations import Broker, Json, MaybeBroker, Prefix
from streams.contracts.campaigns import Edge

campaigns = typer.Typer(
    name="campaigns",
    help="Collection campaigns: what vehicles look out for.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Input = Annotated[
    Path | None, typer.Option("--input", help="Read a file, as `fleet streams record` writes it, instead.")
]
REPLAY_EXAMPLES = (
    "Examples:  fleet replay --input run.jsonl --when \"illumination == 'night'\" --probability 0.2  |  "
    "fleet replay --kafka HOST:9092 --from 7d --campaign night-fog --json  |  "
    "fleet replay --input run.jsonl --stage novelty --stage selection"
)
Name = Annotated[str, typer.Argument(help="The campaign.")]
By = Annotated[str, typer.Option(help="Who decides: a name that goes into the record.")]


@campaigns.command(
    "list", epilog="Examples:  fleet campaigns list --kafka 127.0.0.1:9092  |  ... --input run.jsonl"
)
def list_(kafka: MaybeBroker = None, source: Input = None, prefix: Prefix = "", json: Json = False) -> None:
    """One line for each campaign, as it stands.

    State, sampling probability, expiry, who approved it, and its condition.
    """
    from fleet.campaigns import Source, print_campaigns

    print_campaigns(Source(kafka, prefix, source), as_json=json)


@campaigns.command(epilog="Example:  fleet campaigns show night-fog --kafka 127.0.0.1:9092")
def show(name: Name, kafka: MaybeBroker = None, source: Input = None, prefix: Prefix = "") -> None:
    """One campaign whole, as JSON."""
    from fleet.campaigns import Source, print_campaign

    print_campaign(Source(kafka, prefix, source), name)


@campaigns.command(
    epilog="Example:  fleet campaigns create night-fog --by ada --kafka 127.0.0.1:9092 --probability 0.1 "
    "--when \"illumination == 'night' && visibility == 'fog'\""
)
def create(
    name: Name,
    when: Annotated[str, typer.Option(help="The condition, in CEL: see `fleet campaigns names`.")],
    by: By,
    kafka: Broker,
    prefix: Prefix = "",
    days: Annotated[float, typer.Option(min=0.01, max=365, help="It expires after so many.")] = 7.0,
    probability: Annotated[float, typer.Option(min=1e-9, max=1, help="Chance that an occurrence is kept.")] = 1.0,
    edge: Annotated[
        Edge, typer.Option(help="rising: as it becomes true. always: for as long as it is.")
    ] = Edge.RISING,
    interval: Annotated[
        float, typer.Option(min=0, max=86_400, metavar="SECONDS", help="At least between two of a vehicle.")
    ] = 30.0,
    pre: Annotated[float, typer.Option(min=0, max=10, metavar="SECONDS", help="Recorded before.")] = 2.0,
    post: Annotated[float, typer.Option(min=0.1, max=30, metavar="SECONDS", help="Recorded behind.")] = 2.0,
    daily_mb: Annotated[float, typer.Option(min=0, help="MB of one vehicle and day.")] = 50.0,
    priority: Annotated[int, typer.Option(min=0, help="Higher goes first on a vehicle with many.")] = 1,
    reason: Annotated[str, typer.Option(help="What it is for.")] = "",
    json: Json = False,
) -> None:
    """Write a campaign. It waits until somebody approves it.

    What it asks for never changes under its name.
    """
    from fleet.campaigns import Source, create_campaign, new_campaign

    campaign = new_campaign(
        name,
        when,
        by,
        days,
        sampling_probability=probability,
        edge=edge,
        min_interval_s=interval,
        pre_s=pre,
        post_s=post,
        daily_bytes=round(daily_mb * 1e6),
        priority=priority,
        reason=reason,
    )
    create_campaign(Source(kafka, prefix, None), campaign, as_json=json)


@campaigns.command(epilog="Example:  fleet campaigns approve night-fog --by grace --kafka 127.0.0.1:9092")
def approve(name: Name, by: By, kafka: Broker, prefix: Prefix = "", json: Json = False) -> None:
    """Let a waiting campaign collect, from its start to its expiry."""
    from fleet.campaigns import Source, move_campaign
    from streams.contracts.campaigns import CampaignState

    move_campaign(Source(kafka, prefix, None), name, CampaignState.APPROVED, by, "", as_json=json)


@campaigns.command(
    epilog="Example:  fleet campaigns kill night-fog --by ada --reason 'wrong street' --kafka HOST:9092"
)
def kill(
    name: Name,
    by: By,
    kafka: Broker,
    prefix: Prefix = "",
    reason: Annotated[str, typer.Option(help="Goes into the record.")] = "",
    json: Json = False,
) -> None:
    """End a campaign for good.

    Each vehicle stops with the next message that reaches it and gives up the campaign's clips; one that nothing
    reaches stops at the expiry.
    """
    from fleet.campaigns import Source, move_campaign
    from streams.contracts.campaigns import CampaignState

    move_campaign(Source(kafka, prefix, None), name, CampaignState.KILLED, by, reason, as_json=json)


@campaigns.command(epilog='Example:  fleet campaigns check "Vehicle.Speed > 50.0 && novelty > 0.95"')
def check(expression: Annotated[str, typer.Argument(help="A condition, in CEL.")], json: Json = False) -> None:
    """Tell whether vehicles would accept a condition.

    Exit 1 where they would not, with the reason.
    """
    from fleet.campaigns import print_check

    raise typer.Exit(print_check(expression, as_json=json))


@campaigns.command(epilog="Example:  fleet campaigns names --json")
def names(json: Json = False) -> None:
    """What a condition may name: signals, scores, flags, texts."""
    from fleet.campaigns import print_names

    print_names(as_json=json)


@campaigns.command(
    epilog="Examples:  fleet campaigns debt --kafka 127.0.0.1:9092  |  ... --input telemetry.jsonl --json"
)
def debt(kafka: MaybeBroker = None, source: Input = None, prefix: Prefix = "", json: Json = False) -> None:
    """Where the fleet drove, and what each ODD cell owes.

    Debt is the cell's share of the distance times the upper end of its disengagement rate (streams/debt.py).
    """
    from fleet.campaigns import Source, print_debt

    print_debt(Source(kafka, prefix, source), as_json=json)


def replay(
    when: Annotated[str, typer.Option(help="Replay a campaign of this condition.")] = "",
    campaign: Annotated[str, typer.Option(help="Replay this recorded campaign.")] = "",
    stage: Annotated[
        list[str] | None, typer.Option(help="Replay this stage; repeated: each on what the last one wrote.")
    ] = None,
    source: Input = None,
    kafka: MaybeBroker = None,
    prefix: Prefix = "",
    begin: Annotated[str, typer.Option("--from", help="RFC 3339 time, or how long ago: 90s, 2h, 7d.")] = "",
    end: Annotated[str, typer.Option("--to", help="Likewise; default: now.")] = "",
    probability: Annotated[
        float, typer.Option(min=1e-9, max=1, help="With --when: as of `fleet campaigns create`.")
    ] = 1.0,
    edge: Annotated[Edge, typer.Option(help="With --when.")] = Edge.RISING,
    interval: Annotated[float, typer.Option(min=0, max=86_400, metavar="SECONDS", help="With --when.")] = 30.0,
    pre: Annotated[float, typer.Option(min=0, max=10, metavar="SECONDS", help="With --when.")] = 2.0,
    post: Annotated[float, typer.Option(min=0.1, max=30, metavar="SECONDS", help="With --when.")] = 2.0,
    daily_mb: Annotated[float, typer.Option(min=0, help="With --when: MB of one vehicle and day.")] = 50.0,
    settle: Annotated[str, typer.Option(help="Stages: so much time behind the last record.")] = "1h",
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap: same seed, same intervals.")] = 1,
    json: Json = False,
) -> None:
    """Tell what a campaign or stages would have cost and found.

    Runs over recorded topics: events, clips, bytes and the GPU-hours of jobs that would start; the share of them
    that disengaged or is novel, weighted by inverse probability; 95 % intervals by a bootstrap over vehicles.

    A campaign is judged at recorded events, by the vehicle's own code; between them nothing is known.
    """
    from fleet.estimates import Bootstrap
    from fleet.replay import Recorded, What, run_replay

    fields: dict[str, object] = {
        "sampling_probability": probability,
        "edge": edge,
        "min_interval_s": interval,
        "pre_s": pre,
        "post_s": post,
        "daily_bytes": round(daily_mb * 1e6),
    }
    what = What(when, campaign, tuple(stage or ()))
    run_replay(what, Recorded(source, kafka, prefix, begin, end), fields, settle, Bootstrap(seed), as_json=json)
