"""What a Flink job is started with: one typed value, as JSON between the command line and the job's own Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from streams.topics import BY_NAME
from streams.topology import BY_STAGE, TOPOLOGY, Node, Scope, topics_read, topics_written


class FlinkConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times in ms are Flink's own settings; see each field."""

    kafka: str
    """HOST:PORT, or several with commas."""
    stages: tuple[str, ...]
    checkpoints: str
    """URI of a folder: file:///…, or what a plugin of Flink's opens (s3://…)."""
    jars: tuple[str, ...]
    """Files: the Kafka connector, MessagePack and our own."""
    python: str
    """The interpreter that runs the stages on every task manager."""
    make: str
    """ "module:function", which makes the stages: (names, registry.store.Store) -> the stages."""
    store: str
    """Where the archive stores clips: a path or a URL of fsspec."""
    group: str = "flink"
    """Of consumers; with the stages' names it also names the transactions: one running job of a group."""
    prefix: str = ""
    """Before every topic and group: several fleets on one broker."""
    options: dict[str, str] = {}
    """Further settings of the Kafka client, such as security.protocol."""
    master: str = ""
    """HOST:PORT of a session cluster's REST interface; empty: a cluster inside this process."""
    parallelism: int = 1
    max_parallelism: int = 128
    """Of key groups: fixed for the life of a state, a bound on parallelism."""
    restore: str = ""
    """"latest", the path of a checkpoint, or empty: begin at what the group has committed, with empty states."""
    time: Literal["live", "recorded"] = "live"
    """"recorded": time passes only as records say, never by itself."""
    bounded: bool = False
    """Stop at what the topics hold now."""
    execution: Literal["process", "thread"] = "thread"
    checkpoint_ms: int = 2_000
    batch_ms: int = 200
    """A record waits so long for others; none longer than to the next checkpoint, before which no reader sees what
    it came to."""
    batch_records: int = 2_000
    batch_bytes: int = 2 << 20
    """What a batch comes to is larger than the batch, and Flink writes what is larger than 5 MiB to a disk on its
    way from one operator to another."""
    tick_ms: int = 1_000
    """Every so often of event time, stages step on an empty batch."""
    quiet_ms: int = 2_000
    """A partition that brings nothing for so long follows the machine's clock."""
    expire_ms: int = 14 * 24 * 3600 * 1000
    """The state of a partition that brings nothing for so long is dropped: twice the retention of its topic."""
    restarts: int = 10
    """After so many failures in a row, the job ends."""
    transaction_timeout_ms: int = 600_000
    """A job that is down for longer loses what it had written since its last checkpoint; below the broker's
    transaction.max.timeout.ms."""
    metrics_ports: str = ""
    """Port or range on which each process serves Prometheus; empty: not at all."""
    memory_mb: int = 1_024
    """Of the cluster inside this process."""


class Group(msgspec.Struct, frozen=True):
    """Stages that one operator runs, one state for each of its lanes."""

    name: str
    stages: tuple[str, ...]
    topics: tuple[str, ...]
    scope: Scope
    after: str = ""
    """The group from whose lanes it takes what they tell, straight, beside its being published; empty: from topics
    alone."""

    @property
    def lanes(self) -> int:
        """Partitions of what it reads, or one."""
        return max(BY_NAME[t].partitions for t in self.topics) if self.scope == "partition" else 1


class NotRunnable(ValueError):
    """These stages cannot run as a job of their own: says why."""


def plan(stages: Sequence[str], topology: Iterable[Node] = TOPOLOGY) -> tuple[Group, ...]:
    """One group for each set of stages that edges inside the process join. Raises NotRunnable."""
    unknown = sorted(set(stages) - set(BY_STAGE))
    if unknown or not stages:
        raise NotRunnable(f"stages {unknown} are not in streams/topology.py: {', '.join(BY_STAGE)}")
    groups: list[list[Node]] = []
    for node in (n for n in topology if n.stage in stages):
        edges = {s for s in node.reads if s not in BY_NAME}
        joined = [g for g in groups if edges & {w for n in g for w in n.writes}]
        missing = edges - {w for g in joined for n in g for w in n.writes}
        if missing:
            raise NotRunnable(
                f"{node.stage} reads {', '.join(sorted(missing))}: name the stage that writes it too"
            )
        groups = [g for g in groups if g not in joined] + [[n for g in joined for n in g] + [node]]
    found = tuple(_group(g) for g in groups)
    return tuple(_joined(g, found) for g in found)


def _joined(group: Group, groups: Sequence[Group]) -> Group:
    """A job holds all lanes: what its fleet-wide stages read of them need not come back from the broker."""
    writers = (g for g in groups if g.scope == "partition" and set(group.topics) <= set(topics_written(g.stages)))
    after = next(writers, None) if group.scope == "fleet" else None
    return msgspec.structs.replace(group, topics=(), after=after.name) if after else group


def _group(nodes: Sequence[Node]) -> Group:
    names = tuple(n.stage for n in nodes)
    return Group("-".join(names), names, topics_read(names), nodes[0].scope)


def group_id(group: Group, config: FlinkConfig) -> str:
    """The consumer group of one operator's source."""
    return f"{config.prefix}{config.group}-{group.name}"


def newest_checkpoint(found: Iterable[tuple[str, int]]) -> str | None:
    """Of files and the times at which they were written: the newest checkpoint that is whole, which is one with a
    `_metadata`; None where there is none."""
    whole = [(time, path) for path, time in found if path.endswith("/_metadata") and "/chk-" in path]
    return max(whole)[1].removesuffix("/_metadata") if whole else None


def object_store(environ: Mapping[str, str]) -> dict[str, str]:
    """Flink's settings of s3:// by what fsspec's clients take from the environment; keys it finds there itself."""
    found: dict[str, str] = {}
    if region := environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"):
        found["s3.region"] = region
    if endpoint := environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL"):
        # Servers other than Amazon's: buckets are no hosts, and its own encodings are foreign to many.
        found |= {
            "s3.endpoint": endpoint,
            "s3.path-style-access": "true",
            "s3.chunked-encoding.enabled": "false",
            "s3.checksum-validation.enabled": "false",
        }
    return found
