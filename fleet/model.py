"""`fleet model`: what a model can do besides driving."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="model", help="Look into models, and into what they dream.", no_args_is_help=True, rich_markup_mode=None
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


@app.callback()
def main() -> None:
    """Keeps the name of a single command."""


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
