"""`fleet`: the command line. Commands read their words, call one function and print what it returns."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from fleet.collecting import REPLAY_EXAMPLES, campaigns, replay
from fleet.model import app as model
from fleet.operations import roles, topics
from fleet.operations import streams as operations
from fleet.streams import app as streams

PACKAGES = ("streams", "jobs", "model", "simulation", "edge", "registry", "monitoring", "fleet")
EXIT_FAILED, EXIT_BUG, EXIT_INTERRUPTED = 1, 70, 130

app = typer.Typer(
    name="fleet",
    help="Fleetwheel: from a vehicle's event to a better, signed model on that vehicle.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


@app.command(epilog="Examples:  fleet demo  |  fleet demo --quick --seed 3  |  fleet demo --kafka 127.0.0.1:9092")
def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for everything the run writes.  [default: runs/demo; quick: runs/demo-quick]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same run.")] = 1,
    turns: Annotated[int | None, typer.Option(min=1, max=9, help="Turns of the wheel.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The same loop cut down for tests.")] = False,
    kafka: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Send every message over this broker.")
    ] = None,
    store: Annotated[
        str, typer.Option(metavar="URL", help="Keep clips and models there, such as s3://fleetwheel/clips.")
    ] = "",
    mlflow: Annotated[str, typer.Option(metavar="URL", help="Track learning in this MLflow server.")] = "",
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve Prometheus metrics on 127.0.0.1 meanwhile.")
    ] = None,
    json: Json = False,
) -> None:
    """Turn the wheel: drive, select, learn, release.

    Writes summary.json and report.html into --out.
    """
    from fleet.demo import run_demo

    run_demo(
        out or Path("runs/demo-quick" if quick else "runs/demo"),
        seed=seed,
        turns=turns,
        quick=quick,
        kafka=kafka,
        store=store,
        mlflow=mlflow,
        metrics_port=metrics_port,
        as_json=json,
    )


@app.command(
    epilog="Examples:  fleet vehicle --log drive.mp4 --out clips  |  fleet vehicle --log SEGMENT/40 --json"
)
def vehicle(
    log: Annotated[Path, typer.Option(help="A comma2k19 segment folder, or a video file.")],
    out: Annotated[Path | None, typer.Option(help="Write the clips here, as MCAP files.")] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Bundle to drive with; default: the newest of runs/demo, else a fresh model."),
    ] = None,
    json: Json = False,
) -> None:
    """Run the vehicle's agent over a recorded drive.

    Tells the events and clips it would stream.
    """
    from fleet.vehicle import run_vehicle

    run_vehicle(log, out, bundle, as_json=json)


@app.command(epilog="Examples:  fleet benchmark flywheel  |  fleet benchmark streams --quick --json")
def benchmark(
    name: Annotated[
        str,
        typer.Argument(
            help="One of: adaptation, chaos, driving, flywheel, heads, language, novelty, rigs, scaling, streams, "
            "training, world-model."
        ),
    ],
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated; default: the benchmark's own.")] = "",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for NAME.json and NAME.md; default: docs/results, with --quick one under runs."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Cut down, for tests; says so in the object.")] = False,
    json: Json = False,
) -> None:
    """Measure, and hold the figures against the bars.

    Exit 1 where one does not hold.
    """
    from fleet.benchmarks import run_benchmark

    raise typer.Exit(run_benchmark(name, seeds=seeds, out=out, quick=quick, as_json=json))


@app.command(
    epilog="Examples:  fleet simulate zebra_crossing --video  |  fleet simulate roundabout --region uk "
    "--weather rain --time dusk --rig van-6  |  fleet simulate all --video  |  fleet simulate replay --log "
    "SEGMENT --from 10 --video  |  fleet simulate replay --log drive.csv --reactive --driver bundle.zip --json"
)
def simulate(
    name: Annotated[
        str, typer.Argument(help="A scenario, all, or replay with --log. An unknown name lists the scenarios.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same drive.")] = 1,
    video: Annotated[bool, typer.Option("--video", help="A short video too.")] = False,
    seconds: Annotated[float, typer.Option(min=1, max=120, help="Length of the video, or of the replay.")] = 16.0,
    region: Annotated[str, typer.Option(help="Drive in this region.")] = "",
    weather: Annotated[str, typer.Option(help="clear, rain, fog or snow.")] = "",
    time_of_day: Annotated[str, typer.Option("--time", help="day, dusk or night.")] = "",
    fault: Annotated[str, typer.Option(help="What is wrong with the cameras.")] = "",
    rig: Annotated[str, typer.Option(help="Cameras to look through; default: what shows the scenario.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for NAME.png and NAME.mp4.")] = Path("runs/simulate"),
    log: Annotated[
        Path | None,
        typer.Option(help="Recorded drive: a comma2k19 segment, a clip (.mcap), or a table of tracks (.csv)."),
    ] = None,
    tracks: Annotated[Path | None, typer.Option(help="Table of other road users around that drive.")] = None,
    from_s: Annotated[float, typer.Option("--from", min=0, help="Second of the recording to begin at.")] = 0.0,
    reactive: Annotated[bool, typer.Option("--reactive", help="Others brake for who is in front.")] = False,
    driver: Annotated[str, typer.Option(help="In a replay: expert, recorded, or the file of a model.")] = "expert",
    json: Json = False,
) -> None:
    """Show a scenario driven by the expert, or a recorded drive.

    Writes a picture of its most telling instant, and a video of the seconds around it. A replay is judged against
    what was recorded (PDMS and others, displacement, progress).
    """
    if (name == "replay") != (log is not None):
        raise typer.BadParameter("replay and --log RECORDING belong together", param_hint="--log")
    if log is not None:
        from fleet.log_replay import Asked, run_replay

        run_replay(
            Asked(log, tracks, from_s, seconds, reactive, driver),
            seed=seed,
            region=region,
            weather=weather,
            time_of_day=time_of_day,
            fault=fault,
            rig=rig,
            out=out,
            video=video,
            as_json=json,
        )
        return
    given = {"--tracks": tracks, "--from": from_s, "--reactive": reactive, "--driver": driver != "expert"}
    if alone := [option for option, value in given.items() if value]:
        raise typer.BadParameter("only a replay takes it: simulate replay --log RECORDING", param_hint=alone[0])
    from fleet.simulate import run_simulate

    run_simulate(
        name,
        seed=seed,
        seconds=seconds,
        region=region,
        weather=weather,
        time_of_day=time_of_day,
        fault=fault,
        rig=rig,
        out=out,
        video=video,
        as_json=json,
    )


@app.command(epilog="Examples:  fleet kafka  |  fleet kafka --port 19092 --dir build/kafka")
def kafka(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 9092,
    directory: Annotated[Path, typer.Option("--dir", help="Libraries, log and data.")] = Path("build/kafka"),
) -> None:
    """Run a native Apache Kafka until Ctrl-C.

    Needs Java 17 and Maven, which bring it from its published artifacts.
    """
    from fleet.kafka import run_kafka

    typer.echo("getting Kafka's libraries (once) and starting it ...", err=True)
    run_kafka(port, directory)


@app.command(epilog="Examples:  fleet flink  |  fleet flink --workers 2 --port 8081")
def flink(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the REST interface on 127.0.0.1.")] = 8081,
    workers: Annotated[int, typer.Option(min=1, help="Task managers, of one slot each.")] = 1,
    directory: Annotated[Path, typer.Option("--dir", help="Logs.")] = Path("runs/flink/cluster"),
) -> None:
    """Run a Flink session cluster until Ctrl-C.

    `fleet streams run --engine flink --master` submits to it. Needs `make flink`.
    """
    from fleet.flink_cluster import run_cluster

    run_cluster(port, workers, directory)


streams.add_typer(operations)
app.add_typer(streams)
app.add_typer(model)
app.add_typer(topics)
app.add_typer(roles)
app.add_typer(campaigns)
app.command(epilog=REPLAY_EXAMPLES)(replay)


def main() -> None:
    """Entry point: our own errors and the system's become one line on stderr, never a traceback."""
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        _say("interrupted; run the same command again to start over or resume")
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        if os.environ.get("FLEET_TRACEBACK"):
            traceback.print_exc()
        if isinstance(error, OSError) or type(error).__module__.split(".")[0] in PACKAGES:
            _say(str(error))
            sys.exit(EXIT_FAILED)
        _say(f"a bug in Fleetwheel: {type(error).__name__}: {error} (FLEET_TRACEBACK=1 shows where)")
        sys.exit(EXIT_BUG)


def _say(text: str) -> None:
    typer.echo(f"fleet: {text}", err=True)
