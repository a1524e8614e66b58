"""The worlds that measured results rest on stay as they are, bit by bit: what is added must not touch them.

`python -m tests.golden.test_present_worlds` writes the digests anew; the demo and `fleet benchmark flywheel` must
then be measured again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from model.rig import THREE_CAMERAS
from simulation.episode import Supervised, record_expert
from simulation.scenarios import CONDITIONS, scenes
from simulation.world import World

DIGESTS = Path(__file__).parent / "present_worlds.json"
TRUTHS = ("x_m", "y_m", "speed_mps", "accel_mps2", "ttc_s", "person_ttc_s", "lateral_error_m")


def states(condition: str) -> str:
    """Digest of half a minute under the expert, who hurries in part so that the safety driver is needed too."""
    digest = hashlib.sha256()
    for seed, haste in ((3, 1.0), (4, 1.15)):
        world = World(scenes({condition: 1}, 6, seed, "train"), None, seed)
        supervised = Supervised(world)
        for _ in range(150):
            expert = world.expert()
            outcome = supervised.step((expert.trajectory * haste).astype(np.float32))
            status = world.status()
            taken = "".join(f"{e.vehicle}{e.cause}" for e in outcome.disengagements)
            tags = b"".join(status.tags[name].tobytes() for name in sorted(status.tags))
            truths = [np.ascontiguousarray(getattr(status, name)).tobytes() for name in TRUTHS]
            for part in (expert.trajectory.tobytes(), expert.rule.tobytes(), taken.encode(), tags, *truths):
                digest.update(part)
    return digest.hexdigest()


def frames(condition: str) -> str:
    """Digest of what is recorded to learn from: pictures and the expert's answers."""
    recording = record_expert(scenes({condition: 1}, 2, 5, "train"), THREE_CAMERAS, 2.0, 5)
    return hashlib.sha256(recording.images.tobytes() + recording.target.tobytes()).hexdigest()


def measured(condition: str) -> dict[str, str]:
    return {"states": states(condition), "frames": frames(condition)}


@pytest.mark.parametrize("condition", list(json.loads(DIGESTS.read_text())) if DIGESTS.exists() else [])
def test_present_worlds_unfold_and_look_as_they_did(condition: str) -> None:
    assert measured(condition) == json.loads(DIGESTS.read_text())[condition]


def test_the_first_loop_knows_these_conditions_and_no_others() -> None:
    assert list(json.loads(DIGESTS.read_text())) == list(CONDITIONS)


if __name__ == "__main__":
    DIGESTS.write_text(json.dumps({name: measured(name) for name in CONDITIONS}, indent=1) + "\n")
    sys.stdout.write(f"{len(CONDITIONS)} conditions in {DIGESTS}\n")
