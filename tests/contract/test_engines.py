"""The inline engine keeps the contract however it cuts its input; and the recordings are worth playing."""

from __future__ import annotations

import msgspec
import pytest

from streams.topics import DEAD_LETTER
from streams.topology import BY_STAGE
from tests.contract.engines import EngineContract, InlinePlayer, Told, written_by
from tests.contract.recordings import RECORDINGS


class TestInlineInSmallBatches(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def player(cls) -> InlinePlayer:
        return InlinePlayer(limit=3)


@pytest.fixture(scope="module")
def reference() -> dict[str, Told]:
    return InlinePlayer().play({name: make() for name, make in RECORDINGS.items()})


@pytest.mark.parametrize("stage", BY_STAGE)
def test_each_recording_makes_its_stage_speak(stage: str, reference: dict[str, Told]) -> None:
    recording, told = RECORDINGS[stage](), reference[stage]
    for topic in written_by(recording):
        if topic != DEAD_LETTER or any(r.value == b"junk" for p in recording.phases for r in p.records):
            assert any(r.topic == topic for r in told.records), f"nothing came out on {topic}"


def test_recordings_cover_what_can_go_wrong(reference: dict[str, Told]) -> None:
    letters = {
        name: {msgspec.json.decode(r.value)["reason"] for r in told.records if r.topic == DEAD_LETTER}
        for name, told in reference.items()
    }
    assert letters["dedup"] >= {
        "malformed",
        "unknown-type",
        "unknown-version",
        "future-dated",
        "misplaced",
        "replayed",
    }
    assert letters["archive"] >= {"foreign", "wrong-hash", "late", "unrequested"}


def test_recordings_cover_every_end(reference: dict[str, Told]) -> None:
    states = [
        msgspec.json.decode(r.value)["state"] for r in reference["rollouts"].records if r.topic == "fleet.releases"
    ]
    assert {"canary", "wave", "complete", "halted"} <= set(states)
    assert len([r for r in reference["triggers"].records if r.topic == "learning.jobs"]) == 2
    assert len(reference["archive"].contents) == 4
    campaigns = [
        msgspec.json.decode(r.value)["state"]
        for r in reference["coverage"].records
        if r.topic == "fleet.campaigns"
    ]
    assert {"approved", "active", "killed", "expired"} <= set(campaigns)
