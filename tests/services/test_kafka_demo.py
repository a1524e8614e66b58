"""The same loop with every message over a real broker: the same turns, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.kafka import NativeKafka
from tests.conftest import QuickRun, quick_demo

pytestmark = [pytest.mark.services, pytest.mark.slow]


def test_the_wheel_turns_alike_over_kafka(broker: NativeKafka, quick_run: QuickRun, tmp_path: Path) -> None:
    over_kafka = quick_demo(tmp_path / "run", "--kafka", broker.bootstrap).summary
    embedded = quick_run.summary
    assert over_kafka["turns"] == embedded["turns"]
    assert over_kafka["clips"] == embedded["clips"]
    assert over_kafka["clips"]["lost"] == 0
    assert [j["fingerprint"] for j in over_kafka["jobs"]] == [j["fingerprint"] for j in embedded["jobs"]]
