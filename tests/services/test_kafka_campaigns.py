"""Campaigns over a real broker: written, approved and killed by the commands, obeyed by a vehicle that reads the
topic from its start."""

from __future__ import annotations

import json

import pytest

from edge.agent.campaigns import Campaigns
from fleet.campaigns import BadCampaign, Source, create_campaign, move_campaign, new_campaign, print_campaigns
from fleet.kafka import NativeKafka
from streams.contracts.campaigns import Campaign, CampaignState
from streams.contracts.clock import SystemClock
from streams.coverage import Coverage
from streams.engines.inline import InlineEngine
from streams.transport.kafka import KafkaConfig, KafkaTransport
from streams.transport.messages import Inbox

pytestmark = pytest.mark.services


def vehicle(broker: str, prefix: str, group: str) -> Campaigns:
    """One that hears of campaigns for the first time."""
    transport, campaigns = KafkaTransport(KafkaConfig(broker, prefix=prefix)), Campaigns("v1")
    inbox = Inbox(transport, group, ("fleet.campaigns",))
    now_ns = SystemClock().now_ns()
    while inbox.lag():
        for message in inbox.receive(now_ns, timeout_s=1.0):
            assert isinstance(message, Campaign)
            campaigns.receive(message, now_ns)
    transport.close()
    return campaigns


def test_written_approved_and_killed_over_a_broker(
    broker: NativeKafka, capsys: pytest.CaptureFixture[str]
) -> None:
    bootstrap, prefix = broker.bootstrap, "campaigns-"
    source = Source(bootstrap, prefix, None)
    transport = KafkaTransport(KafkaConfig(bootstrap, prefix=prefix))
    engine = InlineEngine(transport, [Coverage()], SystemClock(), group="control")
    create_campaign(source, new_campaign("night", "illumination == 'night'", "ada", 7.0), as_json=True)
    engine.run_until_idle()
    assert vehicle(bootstrap, prefix, "a").active == ()
    with pytest.raises(BadCampaign, match="exists"):
        create_campaign(source, new_campaign("night", "true", "eve", 7.0), as_json=True)
    move_campaign(source, "night", CampaignState.APPROVED, "grace", "", as_json=True)
    engine.run_until_idle()
    assert source.campaign("night").state is CampaignState.ACTIVE
    assert vehicle(bootstrap, prefix, "b").active == ("night",)
    move_campaign(source, "night", CampaignState.KILLED, "ada", "wrong street", as_json=True)
    engine.run_until_idle()
    assert vehicle(bootstrap, prefix, "c").active == ()
    capsys.readouterr()
    print_campaigns(source, as_json=True)
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["state"], told["approved_by"]) == ("killed", "grace") and "wrong street" in told["reason"]
    transport.close()
