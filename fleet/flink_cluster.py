"""A standalone session cluster from the distribution in the apache-flink wheel: a job manager and task managers,
as processes on 127.0.0.1."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from urllib.error import URLError
from urllib.request import urlopen

import msgspec

from fleet.flink import JVM, FlinkEnvironment, FlinkUnavailable
from fleet.kafka import free_port
from streams.engines.flink.config import object_store


class FlinkCluster:
    """`start` it, submit to `master`, `stop` it; or as a context manager. One slot a task manager: in thread mode
    the slots of one share an interpreter, and so one core."""

    def __init__(self, folder: Path, *, workers: int = 1, slots: int = 1, port: int = 0) -> None:
        """`folder` takes the logs; port 0 takes a free one."""
        self.folder, self.workers, self._slots = folder.resolve(), workers, slots
        self.port = port or free_port()
        self._rpc_port = free_port()
        self.metrics_ports = [free_port() for _ in range(workers + 1)]
        """Where the job manager and then each task manager serve Prometheus."""
        self._environment = FlinkEnvironment()
        self.processes: list[subprocess.Popen[bytes]] = []
        """The job manager, then the task managers."""

    @property
    def master(self) -> str:
        """HOST:PORT for --master; a browser finds Flink's own pages there."""
        return f"127.0.0.1:{self.port}"

    def start(self, timeout_s: float = 120.0) -> FlinkCluster:
        """Until every task manager has registered. Raises FlinkUnavailable."""
        self._environment.check()
        self._launch("jobmanager.sh", {"jobmanager.memory.process.size": "1000m"})
        for _ in range(self.workers):
            self.add_worker()
        try:
            self._await(timeout_s)
        except FlinkUnavailable:
            self.stop()
            raise
        return self

    def add_worker(self) -> subprocess.Popen[bytes]:
        """One more task manager."""
        settings = {
            "taskmanager.numberOfTaskSlots": str(self._slots),
            "taskmanager.memory.process.size": "1600m",
            "taskmanager.memory.managed.size": "128m",
            "taskmanager.host": "127.0.0.1",
            "taskmanager.bind-host": "127.0.0.1",
        }
        return self._launch("taskmanager.sh", settings)

    def stop(self) -> None:
        """End all of them, gently and then by force."""
        for process in reversed(self.processes):
            _signal(process, signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()
        self.processes = []

    def __enter__(self) -> FlinkCluster:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self, script: str, settings: dict[str, str]) -> subprocess.Popen[bytes]:
        number = len(self.processes)
        logs = self.folder / f"{script.removesuffix('.sh')}-{number}"
        environment = self._environment.variables(logs)
        # Flink sizes each process itself.
        environment["JAVA_TOOL_OPTIONS"] = JVM
        environment["FLINK_PID_DIR"] = str(logs)
        flink = self._environment.packages / "pyflink"
        settings = self._common(number) | settings
        words = [str(flink / "bin" / script), "start-foreground", *_dynamic(settings)]
        with (logs / "console.log").open("ab") as log:
            process = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
        self.processes.append(process)
        return process

    def _common(self, number: int) -> dict[str, str]:
        metrics = self.metrics_ports[number] if number < len(self.metrics_ports) else free_port()
        return {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": str(self._rpc_port),
            "jobmanager.bind-host": "127.0.0.1",
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": str(self.port),
            "python.executable": str(self._environment.python),
            # Who does not answer twice is dead: by default that is known after twenty seconds.
            "heartbeat.interval": "3 s",
            "metrics.reporter.prom.factory.class": "org.apache.flink.metrics.prometheus.PrometheusReporterFactory",
            "metrics.reporter.prom.port": str(metrics),
        } | object_store(os.environ)

    def _await(self, timeout_s: float) -> None:
        ends = time.monotonic() + timeout_s
        while self.registered() < self.workers:
            ended = next((p for p in self.processes if p.poll() is not None), None)
            if ended is not None or time.monotonic() > ends:
                raise FlinkUnavailable(f"the Flink cluster did not come up; its logs lie in {self.folder}")
            time.sleep(0.2)

    def registered(self) -> int:
        """Task managers that the job manager knows."""
        try:
            with urlopen(f"http://{self.master}/taskmanagers", timeout=2) as answer:
                return len(msgspec.json.decode(answer.read())["taskmanagers"])
        except (URLError, OSError):
            return 0


def _dynamic(settings: dict[str, str]) -> list[str]:
    """As Flink's scripts take them: -D is a word of its own."""
    return [word for name, value in settings.items() for word in ("-D", f"{name}={value}")]


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    if process.poll() is None:
        os.killpg(process.pid, number)


def run_cluster(port: int, workers: int, folder: Path) -> None:
    """`fleet flink`: a cluster until it is interrupted. Raises FlinkUnavailable."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cluster = FlinkCluster(folder, workers=workers, port=port)
    try:
        cluster.start()
        metrics = ", ".join(map(str, cluster.metrics_ports))
        sys.stdout.write(f"Flink answers at {cluster.master}; metrics on {metrics}; logs in {cluster.folder}\n")
        sys.stdout.flush()
        while all(p.poll() is None for p in cluster.processes):
            time.sleep(0.5)
        raise FlinkUnavailable(f"a process of the cluster ended by itself; see {cluster.folder}")
    except KeyboardInterrupt:
        pass
    finally:
        cluster.stop()
