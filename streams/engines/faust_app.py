"""The Faust engine: the control plane's stages in a worker, with tables on changelogs, timers and a web view.

Several workers of one group share the work: partitions of flows of scope "partition" are spread, those of the
fleet have one active worker, and whoever is left takes over from the changelogs. See docs/adr/0009 and 0010.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faust
import msgspec
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from faust import Worker
from faust.types import TP
from faust.web import Request, Response, View

from streams.contracts.clock import SystemClock
from streams.engines.faust_agent import FlowAgent
from streams.engines.faust_flow import Flow, flows_of
from streams.engines.faust_parts import JournaledApp, StoodStill
from streams.engines.inline import ContentSink
from streams.engines.now import Now, clock_time
from streams.stage import AnyStage
from streams.state import pack
from streams.transport.base import TransportError
from streams.transport.kafka import KafkaConfig, KafkaTransport, connect

STOP_S = 15.0
"""A worker that has crashed stops within so long, or is ended."""
_ROW_BYTES = 4_200_000
"""Of a changelog's record at most: a turn's records and one more, with their framing."""
_VIEW_BYTES = 1_000_000
"""A state larger than this is not shown, only told of."""


class WorkerFailed(RuntimeError):
    """The worker ended because of an error: says which."""


@dataclass(frozen=True, slots=True)
class FaustConfig:
    """Where the broker is, and how the worker runs. Workers of one group share the work."""

    bootstrap: str
    prefix: str = ""
    """Before every topic and group."""
    group: str = "streams"
    member: str = ""
    """A name that outlives restarts: a worker that comes back soon gets its partitions back at once."""
    web_port: int = 6066
    """0: no web view."""
    web_host: str = "127.0.0.1"
    """Address that the web view listens on."""
    limit: int = 1000
    """Records of one turn at most."""
    period_s: float = 1.0
    """Silence after which an empty batch lets time pass, s."""
    session_s: float = 10.0
    """A worker not heard of for so long is given up, s."""
    commit_s: float = 1.0
    """Between two commits of what was taken, s. They show how far the group is; journals know it by themselves."""
    replication: int = 1


def run_worker(
    config: FaustConfig, stages: Iterable[AnyStage], *, sink: ContentSink | None = None, now: Now | None = None
) -> None:
    """Run the stages until SIGTERM or SIGINT. Raises UnknownStage, BrokenFlow, ConnectionFailed, WorkerFailed."""
    flows = flows_of(stages, config.prefix, config.group)
    KafkaTransport(KafkaConfig(config.bootstrap, prefix=config.prefix, replication=config.replication)).close()
    run_flows(config, flows, sink=sink, now=now)


def run_flows(
    config: FaustConfig, flows: Sequence[Flow], *, sink: ContentSink | None = None, now: Now | None = None
) -> None:
    """As run_worker; flows may differ in their topics' prefix, and their topics are there."""
    create_changelogs(config, flows)
    with tempfile.TemporaryDirectory(prefix="fleetwheel-faust-") as folder:
        app = build_app(config, flows, Path(folder), sink=sink, now=now or clock_time(SystemClock()))
        worker = Worker(app, loglevel=logging.WARNING, redirect_stdouts=False)
        with ends_once_crashed(app):
            try:
                worker.execute_from_commandline()
            except SystemExit:
                reason = app.crash_reason
                if reason is not None:
                    raise WorkerFailed(f"the Faust worker ended: {type(reason).__name__}: {reason}") from reason


@contextmanager
def ends_once_crashed(app: faust.App, stop_s: float = STOP_S) -> Iterator[None]:
    """A process whose worker has crashed ends, also where stopping it hangs: the journals know all that was
    decided, and whoever watches over the process can start it again."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            if app.crash_reason is not None and not over.wait(stop_s):
                sys.stderr.write(f"fleet: the Faust worker did not stop; it had ended by: {app.crash_reason}\n")
                sys.stderr.flush()
                os._exit(1)

    watcher = threading.Thread(target=watch, name="ends-once-crashed", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def create_changelogs(config: FaustConfig, flows: Sequence[Flow]) -> None:
    """Before the worker starts: one that finds no changelog crash-loops. Raises TransportError."""
    admin = connect(KafkaConfig(config.bootstrap))
    settings = {"cleanup.policy": "compact", "max.message.bytes": str(_ROW_BYTES), "segment.bytes": str(64 << 20)}
    wanted = [
        NewTopic(f.changelog, num_partitions=f.lanes, replication_factor=config.replication, config=settings)
        for f in flows
    ]
    for name, made in admin.create_topics(wanted).items():
        try:
            made.result(timeout=30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TransportError(f"topic {name} could not be made: {error.args[0].str()}") from error
    _check_partitions(admin, flows)


def _check_partitions(admin: AdminClient, flows: Sequence[Flow]) -> None:
    topics = admin.list_topics(timeout=30).topics
    for flow in flows:
        found = len(topics[flow.changelog].partitions) if flow.changelog in topics else flow.lanes
        if found != flow.lanes:
            raise TransportError(
                f"{flow.changelog} has {found} partitions, not {flow.lanes}: delete it and its input is read again"
            )


def build_app(
    config: FaustConfig, flows: Sequence[Flow], folder: Path, *, sink: ContentSink | None, now: Now
) -> JournaledApp:
    """The application, ready for a worker; `folder` is for Faust's own use."""
    agents: list[FlowAgent] = []

    def positions() -> dict[TP, int]:
        return {tp: o for agent in agents for tp, o in agent.positions().items()}

    def told() -> dict[TP, int]:
        return {tp: o for agent in agents if agent.whole for tp, o in agent.positions().items()}

    fleet = [t for f in flows if f.scope == "fleet" for t in (*f.inputs, f.changelog)]
    app = JournaledApp(
        config.prefix + config.group,
        fleet_topics=fleet,
        positions=positions,
        told=told,
        **_settings(config, folder),
    )
    agents += [FlowAgent(app, f, now, sink=sink, limit=config.limit, period_s=config.period_s) for f in flows]
    _follow_rebalances(app, agents)
    _look_for_what_stood_still(app, config.session_s / 4)
    _add_views(app, agents)
    return app


def _settings(config: FaustConfig, folder: Path) -> dict[str, Any]:
    return {
        "broker": ";".join(f"kafka://{place}" for place in config.bootstrap.split(",")),
        "store": "memory://",
        "datadir": str(folder),
        "processing_guarantee": "at_least_once",
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "table_standby_replicas": 0,
        "stream_wait_empty": False,
        "stream_recovery_delay": 0.0,
        "stream_buffer_maxsize": config.limit,
        "consumer_auto_offset_reset": "earliest",
        "consumer_max_fetch_size": _ROW_BYTES,
        "consumer_group_instance_id": config.member or None,
        "producer_max_request_size": _ROW_BYTES,
        "broker_session_timeout": config.session_s,
        "broker_heartbeat_interval": config.session_s / 5,
        "broker_commit_interval": config.commit_s,
        # What Faust knows a worker by; a member that comes back must be who it was.
        "canonical_url": f"http://{config.member or f'{config.web_host}:{config.web_port}'}",
        "web_enabled": config.web_port > 0,
        "web_bind": config.web_host,
        "web_host": config.web_host,
        "web_port": config.web_port or 6066,
        "worker_redirect_stdouts": False,
    }


def _follow_rebalances(app: JournaledApp, agents: Sequence[FlowAgent]) -> None:
    async def release(*_: object, **__: object) -> None:
        for agent in agents:
            await agent.release()

    async def restore(*_: object, **__: object) -> None:
        for agent in agents:
            await agent.restore()
        # Faust lets the streams flow, from what was committed, and then seeks. Commits may run ahead of the
        # journals: what is fetched in between would be taken, and what lies before it passed over as taken.
        if app.consumer.assignment():
            await app.consumer.perform_seek()

    # Faust holds handlers weakly; the app keeps them.
    app.handlers = (release, restore)  # type: ignore[attr-defined]
    app.on_partitions_revoked.connect(release)
    app.on_before_shutdown.connect(release)
    app.on_rebalance_complete.connect(restore)


def _look_for_what_stood_still(app: JournaledApp, period_s: float) -> None:
    stood_still = StoodStill()

    # Not a timer: Faust's warn of each call that lasts, and this one waits for the consumer's thread.
    async def look() -> None:
        while not app.should_stop:
            await app.sleep(period_s)
            await app.fetch_what_stood_still(stood_still)

    app.task(look)


def _add_views(app: JournaledApp, agents: Sequence[FlowAgent]) -> None:
    @app.page("/streams/")
    async def overview(self: View, request: Request) -> Response:
        """Counts and positions of every flow."""
        return self.bytes(
            msgspec.json.encode({a.flow.name: a.describe() for a in agents}), content_type="application/json"
        )

    @app.page("/streams/{stage}/state")
    async def state(self: View, request: Request, stage: str) -> Response:
        """A stage's states by lane, as JSON; bytes as base64."""
        found = {n: _shown(s, lane.states[s.name]) for a in agents for s in a.flow.stages if s.name == stage
                 for n, lane in a.lanes.items()}  # fmt: skip
        return self.bytes(msgspec.json.encode(found), content_type="application/json")


def _shown(stage: AnyStage, state: object) -> object:
    data = pack(state)
    if len(data) > _VIEW_BYTES:
        return {"bytes": len(data), "shown": f"states up to {_VIEW_BYTES} bytes"}
    return msgspec.msgpack.decode(data)
