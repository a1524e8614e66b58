"""Batches with gaps: what a network must learn to do without, because cameras break, drives begin, and dashcams
know no signals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import BadConfig, Gaps, NetworkConfig
from model.data import BadSamples, Samples


def check_gaps(network: NetworkConfig, gaps: Gaps, *parts: Samples) -> None:
    """Raises BadConfig where gaps are asked for, and BadSamples where samples have some, that the network has
    nothing for."""
    if network.gaps:
        return
    if gaps != Gaps():
        raise BadConfig(f"training: {gaps} needs a network with gaps 1")
    unknown = sum(int((np.isnan(p.speed_mps) | np.isnan(p.yaw_rate_radps)).sum()) for p in parts)
    if unknown:
        raise BadSamples(f"{unknown} frames without speed or yaw rate: they need a network with gaps 1")


def with_gaps(batch: Samples, gaps: Gaps, frames: int, rng: np.random.Generator) -> Samples:
    """A batch of `frames` instants each (Samples.with_history) that lacks, drawn for each sample by itself: whole
    cameras, but never all; what was before some instant; speed and yaw rate. Labels and targets stay."""
    if gaps == Gaps():
        return batch
    count, views = batch.images.shape[:2]
    blind = _lost(rng, count, views // frames, gaps.camera)
    lost: NDArray[np.bool_] = blind[:, None] | _forgotten(rng, count, frames, gaps.past)
    images = np.where(lost.reshape(count, views)[..., None, None, None], np.uint8(0), batch.images)
    mute = np.asarray(rng.random(count) < gaps.signals)
    told: dict[str, Any] = {
        name: np.where(mute, np.float32(np.nan), getattr(batch, name)) for name in ("speed_mps", "yaw_rate_radps")
    }
    past = batch.past
    if past is not None:
        unseen: NDArray[np.bool_] = np.asarray(lost.all(2))
        unknown = mute[:, None] | unseen[:, 1:]
        past = np.where(unknown[..., None], np.float32(np.nan), past)
    return replace(batch, images=images, past=past, **told)


def _lost(rng: np.random.Generator, count: int, cameras: int, share: float) -> NDArray[np.bool_]:
    """[N, C], which cameras are lost: each with this probability, and where that would be all of them, none."""
    lost = rng.random((count, cameras)) < share
    return np.asarray(lost & ~lost.all(1, keepdims=True))


def _forgotten(rng: np.random.Generator, count: int, frames: int, share: float) -> NDArray[np.bool_]:
    """[N, T, 1], which instants were not seen: with this probability all from some age on, as when a drive
    begins."""
    from_age = np.where(rng.random(count) < share, 1 + (rng.random(count) * (frames - 1)).astype(int), frames)
    return np.asarray(np.arange(frames) >= from_age[:, None])[..., None]
