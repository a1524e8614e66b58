"""Commands of `fleet streams` and `fleet topics` that look and mend. They read their words, call one function and
print what it returns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BROKER = "FLEET_KAFKA"
"""Environment: the broker where --kafka names none."""
Broker = Annotated[
    str, typer.Option("--kafka", metavar="HOST:PORT", envvar=BROKER, help="The broker.", show_envvar=True)
]
MaybeBroker = Annotated[
    str | None,
    typer.Option("--kafka", metavar="HOST:PORT", help=f"Read this broker.  [default: ${BROKER}, unless --input]"),
]
Prefix = Annotated[str, typer.Option(help="Before every topic and group: several fleets on one broker.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Number = Annotated[int, typer.Argument(min=0, help="Its number in the list.")]

streams = typer.Typer(rich_markup_mode=None)
"""Added to `fleet streams`."""
dead_letters = typer.Typer(
    name="dead-letters", help="What was refused: list, show, replay.", no_args_is_help=True, rich_markup_mode=None
)
streams.add_typer(dead_letters)
topics = typer.Typer(
    name="topics", help="The table of topics, and a broker held against it.", rich_markup_mode=None
)


@topics.callback(invoke_without_command=True, epilog="Examples:  fleet topics  |  fleet topics --json")
def topics_table(context: typer.Context, json: Json = False) -> None:
    """The table of topics; `diff` holds a broker against it, `apply` makes it so."""
    from fleet.tables import print_topics

    if context.invoked_subcommand is None:
        print_topics(as_json=json)


@topics.command("diff", epilog="Example:  fleet topics diff --kafka 127.0.0.1:9092")
def topics_diff(kafka: Broker, prefix: Prefix = "", json: Json = False) -> None:
    """Tell where a broker differs from the table; change nothing.

    Partitions, retention, compaction and record size. Exit 1 where something differs.
    """
    from fleet.topic_tables import print_differences

    raise typer.Exit(print_differences(kafka, prefix, as_json=json))


@topics.command("apply", epilog="Example:  fleet topics apply --kafka 127.0.0.1:9092 --replication 3")
def topics_apply(
    kafka: Broker,
    prefix: Prefix = "",
    replication: Annotated[int, typer.Option(min=1, help="Replicas of topics that are made.")] = 1,
    grow: Annotated[
        bool, typer.Option("--grow", help="Add partitions too. Equal keys move: drain the readers first.")
    ] = False,
    json: Json = False,
) -> None:
    """Make a broker's topics as the table has them.

    Makes what is missing and sets what differs; nothing is deleted. Again changes nothing.
    """
    from fleet.topic_tables import apply_table

    raise typer.Exit(apply_table(kafka, prefix, replication, grow=grow, as_json=json))


@streams.command(epilog="Examples:  fleet streams lag --kafka 127.0.0.1:9092 --watch  |  ... --json")
def lag(
    kafka: Broker,
    prefix: Prefix = "",
    group: Annotated[list[str] | None, typer.Option(help="This group alone; may be repeated.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C, with rates.")] = False,
    every: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="Between two looks.")] = 2.0,
    json: Json = False,
) -> None:
    """How far each group is behind, by topic.

    With --watch also records a second in and out, and when the lag is gone; with --json one object a look.
    """
    from fleet.lag import print_lag

    print_lag(kafka, prefix, tuple(group or ()), every if watch else None, as_json=json)


@streams.command(
    epilog="Examples:  fleet streams asyncapi > asyncapi.json  |  fleet streams asyncapi --against released.json"
)
def asyncapi(
    against: Annotated[
        Path | None, typer.Option(help="A released document: tell what broke since; exit 1 where something did.")
    ] = None,
) -> None:
    """The AsyncAPI 3 document of all topics and messages, as JSON."""
    from fleet.documents import print_asyncapi, print_breaks

    if against is None:
        print_asyncapi()
        return
    raise typer.Exit(print_breaks(against))


@streams.command(
    epilog="Example:  fleet streams record --kafka HOST:9092 --topics fleet.events --from 2h --out events.jsonl"
)
def record(
    kafka: Broker,
    topics: Annotated[str, typer.Option(help="Topics, comma-separated.")],
    out: Annotated[Path, typer.Option(help="File to write: a JSON object a line.")],
    prefix: Prefix = "",
    begin: Annotated[str, typer.Option("--from", help="RFC 3339 time, or how long ago: 90s, 2h, 7d.")] = "",
    end: Annotated[str, typer.Option("--to", help="Likewise; default: now.")] = "",
) -> None:
    """Write a stretch of topics into a file.

    For what takes `--input`: dry-run, replay, campaigns debt and list. Nothing on the broker is changed.
    """
    from fleet.dry_run import record_topics

    record_topics(kafka, prefix, topics, begin, end, out)


@streams.command(
    "dry-run",
    epilog="Examples:  fleet streams dry-run novelty --input events.jsonl  |  "
    "fleet streams dry-run selection --kafka 127.0.0.1:9092 --from 2h --json",
)
def dry_run(
    stage: Annotated[str, typer.Argument(help="A stage of streams/topology.py.")],
    source: Annotated[
        Path | None, typer.Option("--input", help="Records in a file, as `fleet streams record` writes it.")
    ] = None,
    kafka: MaybeBroker = None,
    prefix: Prefix = "",
    begin: Annotated[str, typer.Option("--from", help="RFC 3339 time, or how long ago: 90s, 2h, 7d.")] = "",
    end: Annotated[str, typer.Option("--to", help="Likewise; default: now.")] = "",
    settle: Annotated[
        str, typer.Option(help="Let so much time pass behind the last record: windows close, timers fire.")
    ] = "1h",
    show: Annotated[int, typer.Option(min=0, help="Print so many of the emits.")] = 10,
    json: Json = False,
) -> None:
    """Tell what a stage would emit for recorded input.

    Runs the stage, and those before it that reach it inside the process, from an empty state, on the records' own
    time. Nothing is published, stored or committed.
    """
    from fleet.dry_run import print_dry_run

    print_dry_run(stage, source, kafka, prefix, (begin, end, settle), show, as_json=json)


@streams.command(
    epilog="Example:  fleet streams play --input events.jsonl --topics fleet.events --prefix again. "
    "--kafka 127.0.0.1:9092"
)
def play(
    source: Annotated[
        Path, typer.Option("--input", help="Records in a file, as `fleet streams record` writes it.")
    ],
    kafka: Broker,
    topics: Annotated[str, typer.Option(help="Topics, comma-separated.")],
    prefix: Prefix = "",
) -> None:
    """Send topics of a recording to a broker.

    Each record with its key, its headers and its time: when it was taken, else when it happened. Stages go by
    that with --set now=records; by the clock what is older than 90 days is a dead letter. The broker drops what is
    older than the topic keeps (`fleet topics`). Of events that come again within a day stages take one; vehicles
    obey the releases and campaigns that they hear again: give those a --prefix of its own.
    """
    from fleet.playing import play_recording

    play_recording(source, kafka, prefix, topics)


@dead_letters.command(
    "list",
    epilog="Examples:  fleet streams dead-letters list --kafka 127.0.0.1:9092 --json  |  "
    "... --reason malformed --topic fleet.events --from 2h",
)
def dead_letters_list(
    kafka: Broker,
    prefix: Prefix = "",
    topic: Annotated[str, typer.Option(help="Refused from this topic alone.")] = "",
    reason: Annotated[str, typer.Option(help="Refused for this reason alone, such as malformed.")] = "",
    begin: Annotated[str, typer.Option("--from", help="RFC 3339 time, or how long ago: 90s, 2h, 7d.")] = "",
    end: Annotated[str, typer.Option("--to", help="Likewise; default: now.")] = "",
    json: Json = False,
) -> None:
    """One line for each dead letter.

    Its number, when it was refused (by the clock that the stages were run with), where the record stood, and why.
    """
    from fleet.tables import Wanted, print_dead_letters

    print_dead_letters(kafka, prefix, Wanted(topic, reason, begin, end), as_json=json)


@dead_letters.command("show", epilog="Example:  fleet streams dead-letters show 3 --kafka 127.0.0.1:9092")
def dead_letters_show(kafka: Broker, number: Number, prefix: Prefix = "") -> None:
    """One dead letter whole, as JSON.

    Reason, headers and original bytes.
    """
    from fleet.tables import show_dead_letter

    show_dead_letter(kafka, prefix, number)


@dead_letters.command("replay", epilog="Example:  fleet streams dead-letters replay 3 --kafka 127.0.0.1:9092")
def dead_letters_replay(kafka: Broker, number: Number, prefix: Prefix = "") -> None:
    """Send a dead letter's original record again.

    It goes to its topic; readers deduplicate by id.
    """
    from fleet.tables import replay_dead_letter

    replay_dead_letter(kafka, prefix, number)


roles = typer.Typer(rich_markup_mode=None)
"""Added to `fleet`: what runs as a service of its own."""
Idle = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="Stop after so long without a message.")
]
Home = Annotated[Path, typer.Option(help="Folder of clip index, lineage, releases and keys.")]


@roles.command(
    epilog="Examples:  fleet worker --kafka 127.0.0.1:9092  |  "
    "fleet worker --kafka HOST:9092 --store s3://fleet/clips --mlflow http://127.0.0.1:5000"
)
def worker(
    kafka: Broker,
    prefix: Prefix = "",
    home: Home = Path("runs/fleet"),
    store: Annotated[
        str, typer.Option(envvar="FLEET_STORE", help="Folder or URL of the store; default: in --home.")
    ] = "",
    mlflow: Annotated[
        str, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow's tracking URI; default: SQLite in --home.")
    ] = "",
    config: Annotated[str, typer.Option(help="Settings of the jobs: demo or quick.")] = "demo",
    seed: Annotated[int, typer.Option(min=0, help="Of the settings.")] = 1,
    processes: Annotated[int, typer.Option(min=1, help="Processes that a step may use at once.")] = 2,
    name: Annotated[str, typer.Option(help="How messages name this worker.")] = "worker",
    idle: Idle = None,
) -> None:
    """Run learning jobs as they are asked for.

    One worker a fleet: it takes requests from learning.jobs and trains, tests, compiles and signs. Killed at any
    point, it goes on where it stood. An s3:// store takes AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
    AWS_ENDPOINT_URL from the environment.
    """
    from fleet.worker import WorkerOptions, run_worker

    run_worker(WorkerOptions(kafka, prefix, home, store, mlflow, config, seed, processes, name, idle))


@roles.command(epilog="Example:  fleet registrar --kafka 127.0.0.1:9092 --home runs/fleet")
def registrar(kafka: Broker, prefix: Prefix = "", home: Home = Path("runs/fleet"), idle: Idle = None) -> None:
    """Keep the index of archived clips, and their lineage.

    The worker's jobs are curated from it: give both the same --home.
    """
    from fleet.registrar import run_registrar

    run_registrar(kafka, prefix, home, idle)


@roles.command(epilog="Example:  fleet exporter --kafka 127.0.0.1:9092 --port 9464")
def exporter(
    kafka: Broker,
    prefix: Prefix = "",
    address: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 9464,
    lag_every: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Between two looks at the groups' offsets.")
    ] = 15.0,
    idle: Idle = None,
) -> None:
    """Serve the fleet's metrics for Prometheus.

    Disengagements, exposure, clips, jobs, rollouts, and how far each consumer group is behind.
    """
    from fleet.exporter import run_exporter

    run_exporter(kafka, prefix, address, port, lag_every, idle)


@roles.command(epilog="Examples:  fleet services  |  fleet services --kafka-port 0 --s3-port 0 --mlflow-port 0")
def services(
    directory: Annotated[Path, typer.Option("--dir", help="Data and logs.")] = Path("build/services"),
    kafka_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 9092,
    s3_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7070,
    mlflow_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 5000,
    prometheus_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 9090,
) -> None:
    """Run Kafka, S3, MLflow and Prometheus on 127.0.0.1.

    Natively, without containers: what compose.yaml runs, from the same configuration. Prints their addresses;
    Ctrl-C ends them all.
    """
    from fleet.services import Ports, run_services

    run_services(directory, Ports(kafka_port, s3_port, mlflow_port, prometheus_port))
