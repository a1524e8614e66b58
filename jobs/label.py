"""What should have been driven in each frame of each clip, and what can be measured of a clip on the way."""

from __future__ import annotations

import json
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import numpy as tensors

from jobs.documents import ClipFacts, Curated, Labelled
from jobs.step import Work
from model.policy import PLAN_POINTS, PLAN_STEP_S
from registry.clips import ClipFrames, read_clip
from registry.datasets import DatasetClip, load_dataset
from registry.errors import Corrupt, Missing, Refused

DRIVER, HINDSIGHT = "driver", "hindsight"
LARGEST_ACCELERATION_MPS2 = 12.0
"""More than tyres give."""
LARGEST_SPEED_MPS = 70.0
LEAST_CONTRAST = 2.0
"""Standard deviation of the pixels of a view that shows something, of 255."""


@dataclass(frozen=True, slots=True)
class ClipLabels:
    """Labels of a clip's N frames."""

    target: NDArray[np.float32]
    """[N, T, 2], waypoints in the vehicle frame, m; 0 where not valid."""
    valid: NDArray[np.bool_]
    """[N], whether there is a label that can be trusted."""


def label(work: Work) -> Labelled:
    """The step: labels and facts of every clip of the dataset, unreadable clips included."""
    clips = load_dataset(work.store, work.input("curate", Curated).dataset).clips
    arrays: dict[str, ClipLabels] = {}
    facts: list[ClipFacts] = []
    for number, clip in enumerate(clips):
        fact, labels = _label_one(work, clip)
        facts.append(fact)
        if labels:
            arrays[clip.clip_id] = labels
        work.progress(number + 1, len(clips), "clips")
    return Labelled(
        labels=work.store.put(pack(arrays)).sha256,
        facts=work.store.put(msgspec.json.encode(facts)).sha256,
        clips=len(clips),
        frames=sum(f.frames for f in facts),
        labelled=sum(f.labelled for f in facts),
    )


def _label_one(work: Work, clip: DatasetClip) -> tuple[ClipFacts, ClipLabels | None]:
    try:
        frames = read_clip(work.store.get(clip.sha256), clip.clip_id)
    except (Corrupt, Refused, Missing) as error:
        return ClipFacts(clip.clip_id, clip.vehicle, clip.split, clip.weight, unreadable=str(error)), None
    return label_clip(frames, clip)


def label_clip(frames: ClipFrames, clip: DatasetClip) -> tuple[ClipFacts, ClipLabels]:
    """Labels of a clip: the driver's plan where it was recorded, else the way that was then driven by hand."""
    driven, driven_valid = hindsight(frames)
    planned = np.isfinite(frames.driver_m).all((1, 2))
    source = DRIVER if planned.any() else HINDSIGHT
    target, labelled = (frames.driver_m, planned) if planned.any() else (driven, driven_valid.all(1))
    finite = labelled & np.isfinite(frames.speed_mps) & np.isfinite(frames.yaw_rate_radps)
    plausible = finite & is_plausible(np.where(finite[:, None, None], target, 0), np.nan_to_num(frames.speed_mps))
    facts = ClipFacts(
        clip_id=clip.clip_id,
        vehicle=clip.vehicle,
        split=clip.split,
        weight=clip.weight,
        shape=frames.images.shape[1:4],
        cameras=frames.cameras,
        frames=len(finite),
        labelled=int(plausible.sum()),
        source=source if plausible.any() else "",
        not_finite=int((~finite).sum()) if source == DRIVER else int((~np.isfinite(frames.speed_mps)).sum()),
        implausible=int((finite & ~plausible).sum()),
        driven_error_m=_driven_error(target, driven, driven_valid & finite[:, None]) if source == DRIVER else 0.0,
        dark_or_frozen=_shows_nothing(frames),
        largest_gap_s=float(np.diff(frames.times_ns).max(initial=0)) / 1e9,
    )
    kept = np.where(plausible[:, None, None], target, 0).astype(np.float32)
    return facts, ClipLabels(kept, plausible)


def hindsight(frames: ClipFrames) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The way a vehicle went, as waypoints [N, T, 2] from each frame by dead reckoning of speed and yaw rate, and
    which of them [N, T] lie within the clip and were driven by hand all the way: a policy is no teacher."""
    t = (frames.times_ns - frames.times_ns[0]) / 1e9
    speed, yaw_rate = (np.nan_to_num(a.astype(np.float64)) for a in (frames.speed_mps, frames.yaw_rate_radps))
    heading = _integral(yaw_rate, t)
    x, y = _integral(speed * np.cos(heading), t), _integral(speed * np.sin(heading), t)
    ahead = t[:, None] + PLAN_STEP_S * np.arange(1, PLAN_POINTS + 1)
    dx, dy = (np.interp(ahead, t, p) - p[:, None] for p in (x, y))
    cos, sin = np.cos(heading)[:, None], np.sin(heading)[:, None]
    target = np.stack([cos * dx + sin * dy, cos * dy - sin * dx], -1).astype(np.float32)
    known = np.isfinite(frames.speed_mps) & np.isfinite(frames.yaw_rate_radps)
    by_hand = np.concatenate([[0], np.cumsum(frames.engaged | ~known)])
    last = np.searchsorted(t, ahead - 1e-6)
    inside = ahead <= t[-1] + 1e-6
    first = np.arange(len(t))[:, None]
    untouched = by_hand[np.minimum(last, len(t) - 1) + 1] == by_hand[first]
    return target, inside & untouched


def is_plausible(target: NDArray[np.floating], speed_mps: NDArray[np.floating]) -> NDArray[np.bool_]:
    """[N]: could a vehicle at this speed take these waypoints [N, T, 2]? Bounds on speed and on its change."""
    steps = np.diff(target, axis=1, prepend=0.0)
    speeds = np.concatenate([speed_mps[:, None], np.linalg.norm(steps, axis=2) / PLAN_STEP_S], 1)
    change = np.abs(np.diff(speeds, axis=1)) / PLAN_STEP_S
    return np.asarray((speeds.max(1) < LARGEST_SPEED_MPS) & (change.max(1) < LARGEST_ACCELERATION_MPS2))


def pack(labels: dict[str, ClipLabels]) -> bytes:
    """Labels of many clips as one safetensors file."""
    names = sorted(labels)
    counts = np.array([len(labels[n].valid) for n in names], np.int64)
    empty = ClipLabels(np.zeros((0, PLAN_POINTS, 2), np.float32), np.zeros(0, bool))
    parts = [labels[n] for n in names] or [empty]
    arrays = {
        "counts": counts,
        "target": np.concatenate([p.target for p in parts]),
        "valid": np.concatenate([p.valid for p in parts]),
    }
    packed: bytes = tensors.save(arrays, {"clips": json.dumps(names)})
    return packed


def unpack(data: bytes) -> dict[str, ClipLabels]:
    """Reads `pack`."""
    arrays = tensors.load(data)
    length = int.from_bytes(data[:8], "little")
    names = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["clips"])
    edges = np.cumsum(arrays["counts"])[:-1]
    targets, valids = np.split(arrays["target"], edges), np.split(arrays["valid"], edges)
    return {n: ClipLabels(t, v) for n, t, v in zip(names, targets, valids, strict=False)}


def _integral(rate: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2 * np.diff(t))])


def _driven_error(target: NDArray[np.float32], driven: NDArray[np.float32], both: NDArray[np.bool_]) -> float:
    """Sideways, at the furthest waypoint that was driven by hand, median over frames. Along the way they differ
    honestly: lights change, others brake."""
    rows = np.flatnonzero(both.any(1))
    if not len(rows):
        return 0.0
    last = PLAN_POINTS - 1 - both[rows, ::-1].argmax(1)
    return float(np.median(np.abs(target - driven)[rows, last, 1]))


def _shows_nothing(frames: ClipFrames) -> bool:
    thumbnails = frames.images[:, :, ::4, ::4].astype(np.float32)
    if thumbnails.std((2, 3)).max(initial=0) < LEAST_CONTRAST:
        return True
    moving = len(thumbnails) > 1 and float(np.nan_to_num(frames.speed_mps).mean()) > 2.0
    return moving and bool((thumbnails == thumbnails[:1]).all())
