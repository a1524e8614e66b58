"""The Faust engine keeps the engines' contract on a real broker, also when its worker is killed."""

from __future__ import annotations

import pytest

from fleet.kafka import NativeKafka
from tests.contract.engines import EngineContract
from tests.services.players import FaustPlayer

pytestmark = pytest.mark.services


class TestFaust(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def player(cls, broker: NativeKafka, tmp_path_factory: pytest.TempPathFactory) -> FaustPlayer:
        return FaustPlayer(broker, tmp_path_factory.mktemp("faust"))
