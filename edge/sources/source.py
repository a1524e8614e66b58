"""What a recorded drive offers, whatever it was recorded by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Protocol

import msgspec

from edge.agent.frame import Frame
from model.rig import Rig

FRAME_NS = 200_000_000
"""Frames are taken at 5 Hz, model.policy's PLAN_PERIOD_S."""


class BadSource(ValueError):
    """A recording that cannot be used: names the file, what is wrong with it and what to do."""


class Drive(Protocol):
    """A recorded drive.

    `frames` yields frames in order of time, without plans; it may block for decoding, and raises BadSource where
    the recording turns out to be damaged: the frames before that are good.
    """

    name: str
    region: str
    rig: Rig | None
    """None: there are no images."""
    duration_s: float
    """As the recording says; 0 where it does not."""
    km: float | None
    """None: the recording does not tell how far it went."""
    warnings: list[str]
    """What a person should know of the recording; grows while frames are taken."""

    def frames(self) -> Iterator[Frame]: ...


def rig_json(rig: Rig | None) -> str:
    """A rig as model.rig.rig_from_dict reads it, for a clip's metadata; "" without cameras."""
    return msgspec.json.encode(asdict(rig)).decode() if rig else ""
