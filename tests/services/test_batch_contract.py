"""The batch engine keeps the engines' contract on a real broker."""

from __future__ import annotations

import pytest

from fleet.kafka import NativeKafka
from tests.contract.engines import EngineContract
from tests.services.batch_player import BatchPlayer

pytestmark = pytest.mark.services


class TestBatch(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def player(cls, broker: NativeKafka, tmp_path_factory: pytest.TempPathFactory) -> BatchPlayer:
        return BatchPlayer(broker, tmp_path_factory.mktemp("batch"))
