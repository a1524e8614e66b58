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
    target: Annotated[
        Path, typer.Argument(help="The other form: a file, or the folder to write the step's into.")
    ],
    json: Json = False,
) -> None:
    """Turn a run's sharded checkpoint into one file, or a file into a sharded checkpoint."""
    from fleet.train import run_convert

    run_convert(source, target, as_json=json)


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
