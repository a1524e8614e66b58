"""Synthetic samples whose targets can be learnt from what the network is given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model.data import Samples, samples_from_arrays
from model.labels import LABELS

TIMES_S = np.arange(1, 9) * 0.3


def some_samples(count: int, source: str = "base", seed: int = 0) -> Samples:
    """Roads whose brightness in the front camera says how hard to turn, and red how hard to brake."""
    rng = np.random.default_rng([seed, count])
    bright, red = rng.integers(0, 256, (2, count))
    images = np.zeros((count, 3, 48, 96, 3), np.uint8)
    images[:, 1, 24:, :, 1] = bright[:, None, None]
    images[:, 1, :24, :, 0] = red[:, None, None]
    speed = rng.uniform(6, 12, count)
    x = speed[:, None] * TIMES_S - 0.5 * (red[:, None] / 128) * TIMES_S**2
    y = (bright[:, None] / 255 - 0.5) * TIMES_S**2
    return samples_from_arrays(
        images,
        speed_mps=speed,
        yaw_rate_radps=np.zeros(count),
        command=rng.integers(0, 4, count),
        target=np.stack([x, y], 2),
        source=source,
    )


def labelled(samples: Samples) -> Samples:
    """The samples with every label there is, drawn at random."""
    rng = np.random.default_rng(len(samples))
    labels = {}
    for name, label in LABELS.items():
        shape = (len(samples), *label.shape)
        drawn = rng.integers(0, label.classes, shape) if label.classes else rng.normal(size=shape)
        labels[name] = drawn.astype(label.dtype)
    return replace(samples, labels=labels)
