"""The Flink engine keeps the engines' contract on a real broker: also when it is killed again and again, and goes
on from its checkpoint with another parallelism."""

from __future__ import annotations

import pytest

from fleet.kafka import NativeKafka
from tests.contract.engines import EngineContract, InlinePlayer, Player, Told, check_same, once, words
from tests.services.flink_player import NEEDS_FLINK, FlinkPlayer, RestlessFlinkPlayer
from tests.services.flink_stages import FLOW, PLAYED

pytestmark = NEEDS_FLINK


class FlinkContract(EngineContract):
    """With a recording of lanes and fleet in one job, where one takes straight what the others tell."""

    @pytest.fixture(scope="class")
    @classmethod
    def told(cls, player: Player) -> dict[str, Told]:
        return player.play({name: make() for name, make in PLAYED.items()})

    def test_the_fleet_takes_what_lanes_tell(self, told: dict[str, Told]) -> None:
        reference = InlinePlayer().play({FLOW: PLAYED[FLOW]()})[FLOW]
        assert {r.topic for r in reference.records} >= {"fleet.scenarios", "fleet.clip-requests"}
        check_same(told[FLOW], reference)
        assert words(told[FLOW]) == once(words(told[FLOW]))


class TestFlink(FlinkContract):
    @pytest.fixture(scope="class")
    @classmethod
    def player(cls, broker: NativeKafka, tmp_path_factory: pytest.TempPathFactory) -> FlinkPlayer:
        return FlinkPlayer(broker, tmp_path_factory.mktemp("flink"))


class TestFlinkKilledAndRescaled(FlinkContract):
    @pytest.fixture(scope="class")
    @classmethod
    def player(cls, broker: NativeKafka, tmp_path_factory: pytest.TempPathFactory) -> RestlessFlinkPlayer:
        return RestlessFlinkPlayer(broker, tmp_path_factory.mktemp("restless"))
