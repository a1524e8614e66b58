"""`fleet model`: what a model can do besides driving."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="model",
    help="Train models, look into them, and into what they dream.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Base = Annotated[Path, typer.Argument(help="The base model's checkpoint, a safetensors file.")]
Steps = Annotated[int, typer.Option(min=1, help="Of the optimiser.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same result.")]


@app.command(
    epilog="Examples:  fleet model data runs/data --frames 64000  |  "
    "fleet model data s3://fleetwheel/base --rig van-6  |  "
    "fleet model data runs/clips --store runs/demo/store --dataset SHA256"
)
def data(
    url: Annotated[str, typer.Argument(help="Folder or URL that the dataset is written to: new, or empty.")],
    frames: Annotated[int, typer.Option(min=1, help="Frames of expert driving to record, at least.")] = 8_000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same drives.")] = 1,
    rig: Annotated[str, typer.Option(help="Cameras to record with. An unknown name lists them.")] = "three-96x48",
    conditions: Annotated[
        str, typer.Option(help="Conditions to record, comma-separated, in equal shares.")
    ] = "base",
    split: Annotated[str, typer.Option(help="Worlds to record in: train or heldout.")] = "train",
    store: Annotated[str, typer.Option(metavar="URL", help="Take archived clips of this store instead ...")] = "",
    dataset: Annotated[str, typer.Option(metavar="SHA256", help="... those of this dataset version.")] = "",
    shard_frames: Annotated[int, typer.Option(min=1, help="Frames of a shard.")] = 512,
    json: Json = False,
) -> None:
    """Write a dataset to train from: shards of samples at any URL.

    From drives of the simulated expert, or from archived clips. What is half written is never read.
    """
    from fleet.sample_data import FromClips, FromExpert, run_data

    source = FromClips(store, dataset) if store or dataset else FromExpert(frames, seed, rig, conditions, split)
    run_data(url, source, shard_frames, as_json=json)


@app.command(
    epilog="Examples:  fleet model train tiny --data runs/data  |  "
    "fleet model train tiny --data runs/data --set steps=200 --set batch=32 --out runs/short  |  "
    "torchrun --no-python --nproc-per-node 2 fleet model train small --data s3://fleetwheel/base"
)
def train(
    recipe: Annotated[str, typer.Argument(help="An unknown name lists the recipes.")],
    data: Annotated[str, typer.Option(metavar="URL", help="Dataset that `fleet model data` wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for checkpoints, log.jsonl, model.safetensors.  [runs/train/RECIPE]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same model.")] = 1,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="A field of the recipe's training.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Begin with these weights instead of fresh ones.")
    ] = None,
    json: Json = False,
) -> None:
    """Train a network by a recipe, alone or under torchrun.

    Stopped by Ctrl-C or killed, the same command goes on where it was, to the same model bit for bit.
    """
    from fleet.train import run_train

    raise typer.Exit(run_train(recipe, data, out, seed, settings or [], start, as_json=json))


@app.command(
    epilog="Examples:  fleet model convert runs/train/tiny/checkpoints/step-00000500 at-500.safetensors  |  "
    "fleet model convert model.safetensors runs/sharded"
)
def convert(
    source: Annotated[Path, typer.Argument(help="A checkpoint: the folder of one step, or a safetensors file.")],
    destination: Annotated[
        Path, typer.Argument(help="The other form: a file, or the folder to write the step's into.")
    ],
    json: Json = False,
) -> None:
    """Turn a run's sharded checkpoint into one file, or a file into a sharded checkpoint."""
    from fleet.train import run_convert

    run_convert(source, destination, as_json=json)


@app.command(
    epilog="Examples:  fleet model examine model.safetensors  |  fleet model examine bundle.zip --suites "
    "base,regions,long-tail --scenes 24 --json  |  fleet model examine model.safetensors --regressions past.json"
)
def examine(
    model: Annotated[Path, typer.Argument(help="A checkpoint, or a bundle as vehicles run it (.zip).")],
    suites: Annotated[str, typer.Option(help="Comma-separated: base, regions, long-tail.")] = "base,long-tail",
    scenes: Annotated[int, typer.Option(min=1, help="Of each suite.")] = 12,
    seconds: Annotated[float, typer.Option(min=6, max=300, help="Of each drive.")] = 30.0,
    regressions: Annotated[
        Path | None,
        typer.Option(help="File of past disengagements: driven again, and what fails now is added."),
    ] = None,
    rig: Annotated[str, typer.Option(help="Cameras to drive with.")] = "three-96x48",
    seed: Seed = 1,
    json: Json = False,
) -> None:
    """Drive a model in closed loop beside the expert.

    Tells disengagements per km and hour, driving score, PDMS and others by suite, with intervals. Seeds are those
    for tuning; fleet benchmark driving reports on others.
    """
    from fleet.examining import Asked, run_examine

    chosen = tuple(name.strip() for name in suites.split(","))
    run_examine(model, Asked(chosen, scenes, seconds, seed, rig, regressions), as_json=json)


@app.command(
    epilog="Examples:  fleet model score model.safetensors runs/heldout  |  "
    "fleet model score model.safetensors runs/heldout --calibrate calibrated.safetensors --json"
)
def score(
    model: Annotated[Path, typer.Argument(help="A checkpoint.")],
    dataset: Annotated[
        str, typer.Argument(help="URL of a dataset (fleet model data) that it has not learnt from.")
    ],
    most: Annotated[int, typer.Option(min=2, help="Frames to look at.")] = 4_000,
    calibrate: Annotated[
        Path | None, typer.Option(help="Write the model here with confidences that mean what they say.")
    ] = None,
    json: Json = False,
) -> None:
    """Score a model's answers on recorded frames.

    Displacement of its plans, and the skill of every head that it has against the best constant answer.
    """
    from fleet.scoring import Asked, run_score

    run_score(model, Asked(dataset, most, calibrate), as_json=json)


@app.command(
    epilog="Examples:  fleet model adapt base.safetensors uk --region uk --home us,de  |  "
    "fleet model adapt base.safetensors van --clips runs/clips --rig van-6 --json"
)
def adapt(
    base: Base,
    name: Annotated[str, typer.Argument(help="Of the region or vehicle type: the adapter keeps it.")],
    region: Annotated[str, typer.Option(help="Learn from the expert's drives in this region.")] = "",
    clips: Annotated[
        Path | None, typer.Option(help="Learn from the clips (*.mcap) of this folder instead.")
    ] = None,
    home: Annotated[
        str,
        typer.Option(help="Regions that the base knows, comma-separated: 40 % of each batch is from there."),
    ] = "",
    out: Annotated[Path | None, typer.Option(help="The adapter's file.  [adapters/NAME.safetensors]")] = None,
    drives: Annotated[int, typer.Option(min=1, help="With --region, --home: so many, of 10 s each.")] = 40,
    steps: Steps = 300,
    rank: Annotated[int, typer.Option(min=1, help="Of the changes; more has more parameters.")] = 1,
    rig: Annotated[str, typer.Option(help="Cameras of the drives or clips.")] = "three-96x48",
    seed: Seed = 1,
    json: Json = False,
) -> None:
    """Teach a model one region or vehicle type.

    Writes an adapter: at most 3 % of the base's parameters, of use with that base alone. Few clips alone make a
    base worse where it was nearly right: say with --home what it is to keep. Stopped, the same command goes on
    where it was.
    """
    from fleet.adapting import Asked, run_adapt

    known = tuple(region.strip() for region in home.split(",") if region.strip())
    asked = Asked(name, region, clips, drives, steps, rank, seed, rig, known)
    run_adapt(base, asked, out or Path("adapters") / f"{name}.safetensors", as_json=json)


@app.command(
    epilog="Examples:  fleet model merge base.safetensors adapters/uk.safetensors --out uk.safetensors  |  "
    "fleet model merge base.safetensors adapters/uk.safetensors adapters/van.safetensors --out uk-van.safetensors "
    "--onnx uk-van.onnx"
)
def merge(
    base: Base,
    adapters: Annotated[list[Path], typer.Argument(help="Adapters of that base; their changes add up.")],
    out: Annotated[Path, typer.Option(help="The merged model's checkpoint.")],
    onnx: Annotated[Path | None, typer.Option(help="Export the merged model here too.")] = None,
    rig: Annotated[str, typer.Option(help="Cameras that the export is for.")] = "three-96x48",
    json: Json = False,
) -> None:
    """Add adapters to their base: one model, as vehicles run it.

    An adapter of another base is refused.
    """
    from fleet.adapting import run_merge

    run_merge(base, adapters, out, onnx, rig, as_json=json)


@app.command(
    epilog="Examples:  fleet model practise base.safetensors --out better.safetensors  |  "
    "fleet model practise base.safetensors --out better.safetensors --conditions base,pedestrians --json"
)
def practise(
    base: Base,
    out: Annotated[Path, typer.Option(help="The better model's checkpoint.")],
    rounds: Annotated[int, typer.Option(min=1, help="Times that it drives and learns from that.")] = 20,
    conditions: Annotated[str, typer.Option(help="Scenarios to drive in, comma-separated, evenly.")] = "base",
    vehicles: Annotated[int, typer.Option(min=1, help="Drives of a round.")] = 24,
    seed: Seed = 1,
    json: Json = False,
) -> None:
    """Let a model drive, and learn from what its plans are worth.

    Group-relative policy optimisation: plans like its own are tried in the simulated world and scored by PDM
    terms, lights and stop signs. Stopped, the same command goes on where it was.
    """
    from fleet.practising import run_practise

    run_practise(base, out, rounds, conditions, vehicles, seed, as_json=json)


@app.command(
    epilog="Examples:  fleet model explain clips/ID.mcap  |  fleet model explain drive.mp4 --at 4.2  |  "
    "fleet model explain zebra_crossing --seed 3 --region uk --json"
)
def explain(
    clip: Annotated[
        str,
        typer.Argument(help="A clip (MCAP), a video, a comma2k19 segment folder, or a simulated scenario's name."),
    ],
    at: Annotated[
        float | None,
        typer.Option(min=0, help="The instant to explain, in s; default: that of the event, or the middle."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint to ask; default: what fleet benchmark language left.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("runs/explain"),
    seed: Annotated[int, typer.Option(min=0, help="Of a scenario: same seed, same drive.")] = 1,
    region: Annotated[str, typer.Option(help="Of a scenario: drive in this region.")] = "",
    weather: Annotated[str, typer.Option(help="Of a scenario: clear, rain, fog or snow.")] = "",
    json: Json = False,
) -> None:
    """Say why: what it does, the cause, the Highway Code's rule and its quantities.

    Writes a picture of the cameras with what the model looked at.
    """
    from fleet.explain import run_explain

    run_explain(
        clip,
        at_s=at,
        model=model,
        out=out,
        seed=seed,
        region=region,
        weather=weather,
        as_json=json,
    )


@app.command(
    epilog="Examples:  fleet model dream base --what-if left  |  "
    "fleet model dream base --edit oncoming --what-if straight --samples  |  "
    "fleet model dream zebra_crossing --what-if swerve-right:1,stop --seconds 5 --at 12"
)
def dream(
    scenario: Annotated[str, typer.Argument(help="A scenario. An unknown name lists the scenarios.")] = "base",
    what_if: Annotated[
        str,
        typer.Option(
            "--what-if",
            metavar="NAME[:SECONDS],...",
            help="What the vehicle does: straight, left, right, swerve-left, swerve-right, faster, stop, expert.",
        ),
    ] = "expert",
    edit: Annotated[
        str, typer.Option(help="Put into its way: oncoming, pedestrian, cyclist, door, roadworks.")
    ] = "",
    seconds: Annotated[float, typer.Option(min=0.2, max=30, help="Length of the dream.")] = 3.0,
    at: Annotated[
        float,
        typer.Option(
            "--at", min=0.1, max=120, help="The dream begins here, in s of the drive; with --edit, when it shows."
        ),
    ] = 9,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same scene.")] = 1,
    model: Annotated[
        Path | None,
        typer.Option(
            help="World model; one that is not there is trained first (minutes) and kept.  "
            "[default: runs/model/world.safetensors; quick: world-quick.safetensors]"
        ),
    ] = None,
    rig: Annotated[str, typer.Option(help="Cameras to dream through.")] = "three-96x48",
    samples: Annotated[
        bool, typer.Option("--samples", help="Also write what to learn from it: pictures, and how to correct.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Train next to nothing where a model is missing.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the video, the picture and the samples.")] = Path(
        "runs/dream"
    ),
    json: Json = False,
) -> None:
    """Dream what would have happened.

    Drives a scene, then lets the world model go on alone under other actions. The video shows what is dreamt above
    what the simulation gives for the same actions.
    """
    from fleet.dream import Asked, run_dream

    run_dream(
        Asked(scenario, what_if, edit, seconds, at, seed, rig),
        model or Path("runs/model") / ("world-quick.safetensors" if quick else "world.safetensors"),
        out,
        samples=samples,
        quick=quick,
        as_json=json,
    )
