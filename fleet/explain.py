"""`fleet model explain`: why the model would do what it does in a clip, the rule it cites, and where it looked."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edge.drive_log import NEUTRAL_SPEED_MPS
from fleet.footage import BadClip, Footage, open_footage
from fleet.simulate import ACROSS, ENLARGED
from model.checkpoint import load
from model.explainer import Explained, Explainer
from model.grammar import Explanation, citation, quantity_of, reckoning, sentence
from model.rig import Rig

MODEL = Path("runs/benchmarks/language/model.safetensors")
"""What `fleet benchmark language` leaves."""
LINE_PX = 16
HEAT_RGB = np.array([255, 60, 30], np.float32)
SHADED = 0.55
"""How much of a picture's own colour the most looked-at patch loses."""
TOLD_SHARE = 0.1
"""Of the look: patches with more are told, and framed in the picture."""
Picture = NDArray[np.uint8]


class NoModel(FileNotFoundError):
    """There is no model that explains."""


@dataclass(frozen=True, slots=True)
class LookedAt:
    """A patch that was looked at: its camera, its share of the look, its box in pixels of the model's image."""

    camera: str
    share: float
    box_px: tuple[int, int, int, int]
    """Left, top, right, bottom."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is printed of one instant."""

    name: str
    time_s: float
    sentence: str
    rule: int
    duty: str
    text: str
    quantity: str
    """What the rule names and what it comes to at this speed; "" where it names nothing."""
    metres: float | None
    """The quantity on the road, worked out; None where there is none."""
    probability: float
    """Of the cause."""
    looked_at: list[LookedAt]
    truth: str
    """What the expert would say: known in simulation alone."""
    picture: str


def run_explain(
    what: str,
    *,
    at_s: float | None,
    model: Path | None,
    out: Path,
    seed: int,
    region: str,
    weather: str,
    as_json: bool,
) -> None:
    """The command. Raises NoModel, BadClip, and what the readers raise for damaged files."""
    checkpoint = load(_model(model))
    footage = open_footage(what, seed=seed, region=region, weather=weather, at_s=at_s)
    explainer = Explainer(checkpoint, footage.rig)
    footage = footage if explainer.gaps else _told_speed(footage)
    explained = explainer.explain(footage.seen)
    at = _nearest(footage, footage.at_s if at_s is None else at_s)
    out.mkdir(parents=True, exist_ok=True)
    picture = out / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', footage.name)}.png"
    told = _instant(footage, explained, at, picture)
    Image.fromarray(drawn(footage, explained, at, told)).save(picture)
    periods = _periods(footage, explained)
    if as_json:
        typer.echo(json.dumps(asdict(told) | {"periods": periods, "warnings": footage.warnings}))
    else:
        typer.echo(_text(told, periods, footage.warnings))


def _model(model: Path | None) -> Path:
    if model is None and not MODEL.exists():
        raise NoModel(f"no model that explains at {MODEL}: fleet benchmark language leaves one, or give --model")
    return model or MODEL


def _told_speed(footage: Footage) -> Footage:
    """With a neutral speed and no turning where they are not known, for a model that must be told."""
    seen = footage.seen
    if np.isnan(seen.speed_mps).any():
        footage.warnings.append(f"speed is not known: the model is told {NEUTRAL_SPEED_MPS:g} m/s")
    speed = np.where(np.isnan(seen.speed_mps), NEUTRAL_SPEED_MPS, seen.speed_mps).astype(np.float32)
    yaw_rate = np.nan_to_num(seen.yaw_rate_radps, nan=0.0)
    return replace(footage, seen=replace(seen, speed_mps=speed, yaw_rate_radps=yaw_rate))


def _nearest(footage: Footage, at_s: float) -> int:
    first, last = float(footage.times_s[0]), float(footage.times_s[-1])
    if not first - 0.2 <= at_s <= last + 0.2:
        raise BadClip(f"{footage.name}: --at {at_s:g} is not within it: it has {first:.1f} to {last:.1f} s")
    return int(np.abs(footage.times_s - at_s).argmin())


def _instant(footage: Footage, explained: Explained, at: int, picture: Path) -> Told:
    said, speed = explained.said[at], float(footage.seen.speed_mps[at])
    quantity = quantity_of(said)
    return Told(
        name=footage.name,
        time_s=round(float(footage.times_s[at]), 2),
        sentence=sentence(said),
        rule=said.number,
        duty=said.duty,
        text=citation(said, footage.side),
        quantity=reckoning(said, speed),
        # A video tells no speed, and without one there is no distance.
        metres=quantity.metres(speed) if quantity and np.isfinite(speed) else None,
        probability=round(float(explained.probability[at]), 3),
        looked_at=_looked_at(footage.rig, explained.look[at]),
        truth=_truth(footage.truth[at]) if footage.truth else "",
        picture=str(picture),
    )


def _truth(said: Explanation) -> str:
    return f"{sentence(said)}. Rule {said.rule} ({said.duty})"


def _looked_at(rig: Rig, look: NDArray[np.float32]) -> list[LookedAt]:
    """The patches of more than TOLD_SHARE of `look` [C, rows, columns], most first."""
    side = rig.cameras[0].width_px // look.shape[2]
    order = np.argsort(-look, axis=None, kind="stable")
    cells = [tuple(int(i) for i in np.unravel_index(cell, look.shape)) for cell in order]
    return [
        LookedAt(
            rig.cameras[c].name,
            round(float(look[c, row, column]), 3),
            (column * side, row * side, (column + 1) * side, (row + 1) * side),
        )
        for c, row, column in cells
        if look[c, row, column] > TOLD_SHARE
    ]


def _periods(footage: Footage, explained: Explained) -> list[dict[str, Any]]:
    """From when to when which cause and rule were told."""
    rows = zip(footage.times_s, explained.said, strict=True)
    groups = [list(group) for _, group in groupby(rows, key=lambda row: (row[1].cause, row[1].rule))]
    return [
        {
            "from_s": round(float(group[0][0]), 2),
            "to_s": round(float(group[-1][0]), 2),
            "sentence": sentence(group[0][1]),
            "rule": group[0][1].number,
        }
        for group in groups
    ]


def drawn(footage: Footage, explained: Explained, at: int, told: Told) -> Picture:
    """The cameras' images of an instant with what was looked at in red, above them what was said."""
    images = footage.shown if footage.shown is not None else _grown(footage.seen.images[at])
    views = [
        _heated(image, look, camera.name)
        for image, look, camera in zip(images, explained.look[at], footage.rig.cameras, strict=True)
    ]
    across = len(views) if len(views) <= ACROSS else len(views) // 2
    rows = [np.concatenate(views[i : i + across], 1) for i in range(0, len(views), across)]
    cameras = np.concatenate(rows, 0)
    lines = [f"{told.sentence}.", f"{told.text}."]
    lines += [f"{told.quantity}."] if told.quantity else []
    lines += [f"The expert: {told.truth}."] if told.truth else []
    return np.concatenate([_caption([f"{told.name}, {told.time_s:g} s", *lines], cameras.shape[1]), cameras])


def _grown(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[C, H, W, 3], each pixel a square of ENLARGED."""
    return images.repeat(ENLARGED, 1).repeat(ENLARGED, 2)


def _heated(image: Picture, look: NDArray[np.float32], name: str) -> Picture:
    """An image with its patches reddened by their share of the look, the told ones framed."""
    height, width = image.shape[:2]
    rows, columns = look.shape
    patch = height // rows, width // columns
    heat = np.sqrt(look / max(float(look.max()), TOLD_SHARE)).repeat(patch[0], 0).repeat(patch[1], 1)[..., None]
    mixed = image + (HEAT_RGB - image) * (SHADED * heat * (heat > 0.3))
    canvas = Image.fromarray(mixed.astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    for row, column in np.argwhere(look > TOLD_SHARE):
        box = (column * patch[1], row * patch[0], (column + 1) * patch[1] - 1, (row + 1) * patch[0] - 1)
        pen.rectangle(box, outline=(255, 240, 60), width=2)
    pen.text((4, 2), name, fill=(235, 235, 235))
    return np.asarray(canvas)


def _caption(lines: Sequence[str], width_px: int) -> Picture:
    """Lines of text on black, wrapped to the width."""
    wrapped = [part for line in lines for part in textwrap.wrap(line, max(width_px // 6, 20))]
    strip = Image.new("RGB", (width_px, LINE_PX * len(wrapped) + 8))
    pen = ImageDraw.Draw(strip)
    for number, line in enumerate(wrapped):
        pen.text((6, 4 + number * LINE_PX), line, fill=(235, 235, 235))
    return np.asarray(strip)


def _text(told: Told, periods: Sequence[dict[str, Any]], warnings: Sequence[str]) -> str:
    looked = (
        ", ".join(f"{p.camera} {p.share:.0%} at {p.box_px}" for p in told.looked_at) or "at nothing in particular"
    )
    lines = [
        f"{told.name}, {told.time_s:g} s",
        f"why        {told.sentence} (cause {told.probability:.0%} sure)",
        f"rule       {told.text}",
        *([f"quantity   {told.quantity}"] if told.quantity else []),
        f"looked at  {looked}",
        *([f"expert     {told.truth}"] if told.truth else []),
        f"picture    {told.picture}",
        *(f"  {p['from_s']:6.1f} to {p['to_s']:5.1f} s  rule {p['rule']}: {p['sentence']}" for p in periods),
        *(f"note       {warning}" for warning in warnings),
    ]
    return "\n".join(lines)
