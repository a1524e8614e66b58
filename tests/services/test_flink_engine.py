"""The Flink engine keeps the engines' contract on a real broker: also when it is killed again and again, and goes
on from its checkpoint with another parallelism."""

from __future__ import annotations

import pytest

from fleet.kafka import NativeKafka
from tests.contract.engines import EngineContract
from tests.services.flink_player import NEEDS_FLINK, FlinkPlayer, RestlessFlinkPlayer

pytestmark = NEEDS_FLINK


class TestFlink(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def player(cls, broker: NativeKafka, tmp_path_factory: pytest.TempPathFactory) -> FlinkPlayer:
        return FlinkPlayer(broker, tmp_path_factory.mktemp("flink"))


class TestFlinkKilledAndRescaled(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def player(cls, broker: NativeKafka, tmp_path_factory: pytest.TempPathFactory) -> RestlessFlinkPlayer:
        return RestlessFlinkPlayer(broker, tmp_path_factory.mktemp("restless"))
