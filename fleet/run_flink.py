"""`fleet streams run --engine flink`: one job, in a cluster of its own or on a session cluster."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

import msgspec

from fleet.flink import FlinkEnvironment
from fleet.streams import BadOption, RunOptions
from streams.engines.flink.config import FlinkConfig, plan
from streams.transport.kafka import KafkaConfig, KafkaTransport

_OWN = {
    "bounded",
    "batch_bytes",
    "batch_ms",
    "batch_records",
    "checkpoint_ms",
    "execution",
    "expire_ms",
    "max_parallelism",
    "metrics_ports",
    "python",
    "quiet_ms",
    "restarts",
    "tick_ms",
    "time",
    "transaction_timeout_ms",
}
"""What --set may name of FlinkConfig; the rest is for the Kafka client."""


class FlinkJobFailed(RuntimeError):
    """The job ended by itself: says what Flink says."""


def run(options: RunOptions) -> None:
    """Until the job ends, or Ctrl-C or SIGTERM ends it. Raises FlinkUnavailable, NotRunnable, FlinkJobFailed."""
    environment = FlinkEnvironment().check()
    config = job_config(options, environment)
    KafkaTransport(KafkaConfig(options.kafka, prefix=options.prefix, options=config.options)).close()
    logs = Path("runs/flink").resolve()
    job = environment.submit([config], logs)

    def end(_number: int, _frame: FrameType | None) -> None:
        job.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    _follow(job)
    if job.wait():
        raise FlinkJobFailed(f"the Flink job failed: {_cause(logs / 'job.log')}; all of it in {logs}")


def job_config(options: RunOptions, environment: FlinkEnvironment) -> FlinkConfig:
    """What the command line asked for. Raises BadOption, NotRunnable."""
    plan(options.stages)
    if options.of_stages:
        raise BadOption(f"--set {', '.join(options.of_stages)}: on flink stages have their defaults")
    if options.idle_s is not None:
        raise BadOption("--idle is not for flink: --set bounded=true stops at what the topics hold now")
    own = {name: value for name, value in options.settings.items() if name in _OWN}
    words: dict[str, object] = {
        "kafka": options.kafka,
        "stages": options.stages,
        "checkpoints": _uri(options.checkpoints),
        "jars": environment.jars,
        "python": str(environment.python),
        "make": "fleet.stages:make_stages",
        "store": options.store if "://" in options.store else str(Path(options.store).resolve()),
        "group": options.group,
        "prefix": options.prefix,
        "options": {name: value for name, value in options.settings.items() if name not in _OWN},
        "master": options.master,
        "parallelism": options.parallelism,
        "restore": options.restore if options.restore in ("", "latest") else _uri(options.restore),
    }
    try:
        return msgspec.convert(words | own, FlinkConfig, strict=False)
    except msgspec.ValidationError as error:
        raise BadOption(f"--set: {error}") from error


def _uri(place: str) -> str:
    return place if "://" in place else Path(place).resolve().as_uri()


def _follow(job: subprocess.Popen[str]) -> None:
    assert job.stdout is not None
    for line in (text for text in job.stdout if text.startswith("{")):
        told = msgspec.json.decode(line, type=dict[str, str])
        restored = f", goes on from {told['restored']}" if told.get("restored") else ""
        sys.stderr.write(f"fleet streams: Flink job {told['job']} {told['event']}{restored}\n")
        sys.stderr.flush()


def _cause(log: Path) -> str:
    """The innermost cause in a Java stack trace, or the log's last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return (causes or lines or ["it said nothing"])[-1][:500]
