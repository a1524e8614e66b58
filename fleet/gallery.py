"""Stored clips as the report shows them."""

from __future__ import annotations

import numpy as np

from fleet.ledger import Clip, Ledger
from fleet.report import ClipView, draw_frame
from model.rig import rig_from_dict
from registry.clip_frames import read_clip
from registry.store import Store

SHOWN = 12


def clip_views(ledger: Ledger, store: Store, count: int = SHOWN) -> list[ClipView]:
    """The most valuable stored clips, spread over turns and conditions, each at its trigger."""
    stored = [c for n, c in ledger.clips.items() if n in ledger.verified and c.request is not None]
    return [_view(clip, store) for clip in spread(stored, count)]


def spread(clips: list[Clip], count: int) -> list[Clip]:
    """Round-robin over (condition, turn), the highest priority first within each."""
    groups: dict[tuple[str, int], list[Clip]] = {}
    for clip in sorted(clips, key=lambda c: (-_priority(c), c.event.event_id)):
        groups.setdefault((clip.condition, clip.turn), []).append(clip)
    ordered = [groups[key] for key in sorted(groups)]
    rounds = max((len(g) for g in ordered), default=0)
    picked = [g[i] for i in range(rounds) for g in ordered if i < len(g)]
    return picked[:count]


def _priority(clip: Clip) -> int:
    return clip.request.priority if clip.request else 0


def _view(clip: Clip, store: Store) -> ClipView:
    frames = read_clip(store.get(clip.sha256), clip.event.event_id)
    at = int(np.abs(frames.times_ns - clip.event.time_ns).argmin())
    assert frames.rig is not None
    assert clip.request is not None
    png = draw_frame(frames.images[at], rig_from_dict(frames.rig), frames.plan_m[at], frames.driver_m[at])
    cause = f": {clip.event.cause.replace('_', ' ')}" if clip.event.cause else ""
    caption = f"{str(clip.event.kind).replace('_', ' ')}{cause}, {clip.condition.replace('_', ' ')}"
    return ClipView(clip.event.event_id, clip.turn, caption, clip.request.reason, png)
