"""The agent: one per vehicle. Frames in, messages out; clips wait in the spool until they are asked for."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass

from edge.agent.campaigns import Campaigns
from edge.agent.clip import encode_clip
from edge.agent.exposure import DRIVER, Meter
from edge.agent.expressions import Value, values_of
from edge.agent.frame import Frame
from edge.agent.readings import Readings, clip_scores
from edge.agent.recorder import Recorder, Recording, Window
from edge.agent.scores import quantise
from edge.agent.spool import Spool, SpoolFull
from edge.agent.triggers import RANK, RULES, Reading, Rule, Sampling, armed, detect
from edge.agent.updater import Installer
from edge.agent.uploader import Link, Uploader, UploadPolicy
from streams.contracts.campaigns import Campaign, campaign_of, cause_of
from streams.contracts.clips import MAX_CLIP_BYTES, ClipChunk, ClipRequest
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message, message_id
from streams.contracts.drive import ClipOffer, Pose, Scores, Telemetry, Trigger, TriggerEvent
from streams.contracts.ids import event_id
from streams.contracts.releases import Rollout

log = logging.getLogger(__name__)
NO_SAMPLES, UPLOAD_POLICY = Sampling(), UploadPolicy()


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Who the vehicle is, and when it speaks."""

    vehicle: str
    boot: str
    """New at every start of the process: event ids are made from it and a sequence that starts at 0."""
    region: str
    rig_json: str = ""
    """Goes into each clip, so that its images can be used without this vehicle."""
    rules: tuple[Rule, ...] = RULES
    sampling: Sampling = NO_SAMPLES
    pre_s: float = 2.0
    post_s: float = 2.0
    max_frames: int = 400
    telemetry_s: float = 10.0
    watts_source: str = "modelled"
    upload: UploadPolicy = UPLOAD_POLICY


class Agent:
    """Not thread-safe; nothing here blocks but the disk. Every message it returns is in the spool's outbox until
    `delivered`, so that a crash repeats messages and loses none."""

    def __init__(
        self,
        config: AgentConfig,
        spool: Spool,
        installer: Installer | None = None,
        campaigns: Campaigns | None = None,
    ) -> None:
        """Without an installer it obeys no rollout, without campaigns no campaign."""
        self._config, self._spool, self.installer, self.campaigns = config, spool, installer, campaigns
        self._recorder = Recorder(config.pre_s, config.post_s, config.max_frames)
        self._readings, self._meter = Readings(), Meter(config.region)
        self._uploader = Uploader(spool, config.vehicle, config.upload)
        self._recorder.keep(campaigns.longest_pre_s if campaigns else 0.0)
        self._armed = armed(config.rules)
        self._sequence, self._reported_ns, self._period = 0, -1, -1
        self._last: Frame | None = None
        self._handed_ns: dict[str, int] = {}
        """Messages of the outbox -> when they were handed out, ns."""
        self.dropped_frames = 0

    def observe(self, frame: Frame) -> list[Message]:
        """Takes the next frame; returns the events and the report that it brings about. A frame that is not later
        than the last is dropped and counted."""
        if frame.time_ns <= self._recorder.last_ns:
            self.dropped_frames += 1
            return []
        done = self._recorder.add(frame)
        self._detect(frame)
        self._meter.add(frame)
        if self.installer is not None:
            self.installer.health(frame.time_ns, frame.plan_m is not None)
        self._last = frame
        messages: list[Message] = [self._event(recording) for recording in done]
        if self._reported_ns < 0:
            self._reported_ns = frame.time_ns
        if self._meter.full or frame.time_ns - self._reported_ns >= self._config.telemetry_s * SECOND_NS:
            messages.append(self._report(frame.time_ns))
        return self._accept(messages + self._campaign_reports(), frame.time_ns)

    def end_drive(self, now_ns: int) -> list[Message]:
        """Ignition off: the open windows as they are, and a last report. The next frame starts a new drive."""
        messages: list[Message] = [self._event(recording) for recording in self._recorder.flush()]
        messages.append(self._report(now_ns))
        self._readings.end_drive()
        self._meter.end_drive()
        self._armed, self._period = armed(self._config.rules), -1
        if self.campaigns is not None:
            self.campaigns.end_drive()
        return self._accept(messages + self._campaign_reports(), now_ns)

    def receive(self, message: Message, now_ns: int) -> list[Message]:
        """Obeys a clip request, a rollout or a campaign; one for another vehicle, or any other message, changes
        nothing. Raises SpoolFull: the message must come again."""
        if isinstance(message, ClipRequest) and message.vehicle == self._config.vehicle:
            lost = self._uploader.answer(message, now_ns)
            return self._accept([lost], now_ns) if lost else []
        if isinstance(message, Rollout) and self.installer is not None:
            self.installer.offer(message, self._config.vehicle)
        if isinstance(message, Campaign) and self.campaigns is not None:
            return self._obey(message, self.campaigns, now_ns)
        return []

    def pump(self, now_ns: int, max_bytes: int, link: Link = Link.FREE) -> list[Message]:
        """What to send now: messages that nobody confirmed (of an earlier boot, or for too long), then chunks of
        requested clips, `max_bytes` of them."""
        if link is Link.NONE:
            return []
        retry_ns = int(self._config.upload.retry_s * SECOND_NS)
        again = [
            message
            for name, message in self._spool.outbox.items()
            if now_ns - self._handed_ns.get(name, now_ns - retry_ns) >= retry_ns
        ]
        chunks = self._uploader.pump(now_ns, max_bytes, link)
        self._hand_out(again, now_ns)
        return [*again, *chunks]

    def delivered(self, messages: Iterable[Message], now_ns: int) -> None:
        """The transport has these for good; they will not be sent again."""
        ids = []
        for message in messages:
            if isinstance(message, ClipChunk):
                self._uploader.arrived(message, now_ns)
            else:
                ids.append(message_id(message))
        self._spool.delivered(ids)
        for name in ids:
            self._handed_ns.pop(name, None)

    def _detect(self, frame: Frame) -> None:
        period = self._config.sampling.period(frame.time_ns)
        drawn = -1 < self._period != period and self._config.sampling.drawn(self._config.vehicle, period)
        self._period = period
        reading = self._readings.read(frame, drawn)
        self._armed, fired = detect(self._armed, reading, frame.time_ns, self._config.rules)
        for rule in fired:
            sample = rule.kind is Trigger.SAMPLE
            self._recorder.trigger(
                rule.kind,
                frame.time_ns - int(rule.looks_back_s * SECOND_NS),
                (frame.takeover_cause or DRIVER) if rule.kind is Trigger.DISENGAGEMENT else "",
                self._config.sampling.probability if sample else 1.0,
            )
        if self.campaigns is not None and self.campaigns.active:
            for campaign in self.campaigns.watch(self._known(frame, reading), frame.time_ns):
                self._recorder.open(_window(campaign, frame.time_ns))

    def _known(self, frame: Frame, reading: Reading) -> dict[str, Value]:
        """What a campaign's condition may look at."""
        takeover = reading.takeover > 0
        known: dict[str, Value] = {
            "acceleration_mps2": reading.acceleration_mps2,
            "disagreement": reading.disagreement,
            "uncertainty": reading.uncertainty,
            "novelty": reading.novelty,
            "engaged": frame.engaged,
            "takeover": takeover,
            "cause": (frame.takeover_cause or DRIVER) if takeover else "",
            "model_version": frame.model_version,
        }
        return values_of(frame.signals, self._config.region, known)

    def _obey(self, campaign: Campaign, campaigns: Campaigns, now_ns: int) -> list[Message]:
        """What a killed campaign has brought in is given up: open windows and clips that wait."""
        for clip_id in campaigns.receive(campaign, now_ns):
            if clip_id in self._spool.clips:
                self._spool.remove(clip_id, f"campaign {campaign.campaign_id} was killed", now_ns)
        if campaign.campaign_id not in campaigns.active:
            self._recorder.drop(cause_of(campaign.campaign_id))
        self._recorder.keep(campaigns.longest_pre_s)
        return self._accept(self._campaign_reports(), now_ns)

    def _campaign_reports(self) -> list[Message]:
        return list(self.campaigns.take_reports()) if self.campaigns is not None else []

    def _event(self, recording: Recording) -> TriggerEvent:
        """Stores the clip and tells of it; without room for the clip the event goes without."""
        config, window, frames = self._config, recording.window, recording.frames
        name, sequence = self._next_id()
        frame = min(frames, key=lambda f: abs(f.time_ns - window.time_ns))
        scores = clip_scores(frames)
        return TriggerEvent(
            event_id=name,
            vehicle=config.vehicle,
            boot=config.boot,
            sequence=sequence,
            time_ns=window.time_ns,
            kind=window.kind,
            model_version=frame.model_version,
            region=config.region,
            cause=window.cause,
            pose=frame.pose or Pose(),
            signals={k: v for k, v in frame.signals.items() if math.isfinite(v)},
            scores=scores,
            embedding=b"" if frame.embedding is None else quantise(frame.embedding),
            embedding_version=frame.model_version,
            clip=self._store(name, recording, scores, frame.model_version),
            collection_probability=window.collection_probability,
        )

    def _store(self, name: str, recording: Recording, scores: Scores, model_version: str) -> ClipOffer | None:
        window, frames = recording.window, recording.frames
        data = encode_clip(frames, self._metadata(name, recording, model_version))
        if len(data) > MAX_CLIP_BYTES:
            log.warning("clip %s of %s is not kept: %d bytes, no archive takes it", name, window.kind, len(data))
            return None
        if not self._within_budget(name, window, len(data)):
            return None
        worth = RANK[window.kind] + scores.hindsight_miss / (1 + scores.hindsight_miss)
        try:
            self._spool.put(name, data, worth, window.time_ns)
        except SpoolFull as error:
            log.warning("clip %s of %s is not kept: %s", name, window.kind, error)
            return None
        return ClipOffer(name, frames[0].time_ns, frames[-1].time_ns, len(data))

    def _within_budget(self, name: str, window: Window, size: int) -> bool:
        """A campaign's clip is booked against its bytes of the day."""
        campaign = campaign_of(window.cause)
        return not campaign or (
            self.campaigns is not None and self.campaigns.spend(campaign, name, size, window.time_ns)
        )

    def _metadata(self, name: str, recording: Recording, model_version: str) -> dict[str, str]:
        window = recording.window
        return {
            "clip_id": name,
            "event_id": name,
            "vehicle": self._config.vehicle,
            "kind": str(window.kind),
            "cause": window.cause,
            "trigger_ns": str(window.time_ns),
            "model_version": model_version,
            "region": self._config.region,
            "rig": self._config.rig_json,
        }

    def _report(self, now_ns: int) -> Telemetry:
        name, sequence = self._next_id()
        self._reported_ns = now_ns
        p50, p99 = self._meter.latency_ms()
        watts = self._meter.watts()
        return Telemetry(
            event_id=name,
            vehicle=self._config.vehicle,
            boot=self._config.boot,
            sequence=sequence,
            time_ns=now_ns,
            model_version=self._last.model_version if self._last else "",
            region=self._config.region,
            exposures=self._meter.take(),
            latency_ms_p50=p50,
            latency_ms_p99=p99,
            watts=watts,
            watts_source=self._config.watts_source if watts else "",
            spool_bytes=self._spool.bytes,
            spool_evicted=self._spool.evicted,
            release=self.installer.release if self.installer else "",
            update_state=self.installer.reported_state if self.installer else "idle",
        )

    def _next_id(self) -> tuple[str, int]:
        sequence, self._sequence = self._sequence, self._sequence + 1
        return event_id(self._config.vehicle, self._config.boot, sequence), sequence

    def _accept(self, messages: list[Message], now_ns: int) -> list[Message]:
        """Puts messages into the outbox. On a full disk they are still returned: sent now or never."""
        if messages:
            try:
                self._spool.enqueue(messages)
            except SpoolFull as error:
                log.warning("%d messages are not kept for a second try: %s", len(messages), error)
            else:
                self._hand_out(messages, now_ns)
        return messages

    def _hand_out(self, messages: list[Message], now_ns: int) -> None:
        for message in messages:
            self._handed_ns[message_id(message)] = now_ns


def _window(campaign: Campaign, now_ns: int) -> Window:
    """Around now, as the campaign has it; nothing from after its end."""
    return Window(
        Trigger.CAMPAIGN,
        cause_of(campaign.campaign_id),
        now_ns,
        now_ns - int(campaign.pre_s * SECOND_NS),
        min(now_ns + int(campaign.post_s * SECOND_NS), campaign.expires_ns),
        campaign.sampling_probability,
    )
