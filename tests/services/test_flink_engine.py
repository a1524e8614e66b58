"""The Flink engine keeps the engines' contract on a real broker: also when it is killed again and again, and goes
on from its checkpoint with another parallelism."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fleet.flink import FlinkEnvironment
from fleet.kafka import NativeKafka
from tests.contract.engines import EngineContract, Told
from tests.contract.recordings import Recording
from tests.services.flink_player import FlinkPlayer

pytestmark = [pytest.mark.services, pytest.mark.slow]


class RestlessPlayer(FlinkPlayer):
    """Killed after the first phases were fed, and restored with as many subtasks as its list says."""

    parallelisms = (2, 1)

    def play(self, recordings: Mapping[str, Recording]) -> dict[str, Told]:  # type: ignore[override]
        return super().play(recordings, self._between)

    def _between(self, number: int) -> None:
        if number < len(self.parallelisms):
            self.kill()
            self.parallelism = self.parallelisms[number]
            self.start()


@pytest.fixture(scope="module", autouse=True)
def environment() -> FlinkEnvironment:
    """Flink's own; where it was not made a skip that says how."""
    found = FlinkEnvironment()
    if reason := found.missing():
        pytest.skip(reason)
    return found


class TestFlink(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def player(cls, broker: NativeKafka, tmp_path_factory: pytest.TempPathFactory) -> FlinkPlayer:
        return FlinkPlayer(broker, tmp_path_factory.mktemp("flink"))


class TestFlinkKilledAndRescaled(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def player(cls, broker: NativeKafka, tmp_path_factory: pytest.TempPathFactory) -> RestlessPlayer:
        return RestlessPlayer(broker, tmp_path_factory.mktemp("restless"))
